"""Requirements on the form of an answer that an instruction already has, which others must not contradict."""

import re
from collections.abc import Callable

# (instruction, values of a requirement) -> True if the instruction speaks of the topic.
Topic = Callable[..., bool]


def _topic(pattern: str) -> Topic:
    found = re.compile(pattern, re.I).search
    return lambda instruction, *values: bool(found(instruction))


_FORMATS = r"\b(?:json|csv|xml|yaml|html|latex|markdown|table|tabular|spreadsheet|format(?:ted)?)\b"
_CODE = (
    r"\b(?:code|coding|scripts?|functions?|program(?:s|ming)?|python|java(?:script)?|c\+\+|c#|rust|lua\w*|sql|query|"
    r"bash|shell|regex|html|css|class|algorithm|implement\w*|api|json|yaml|xml|snippet|compiler?|library|django|"
    r"react|matlab|octave|roblox|excel|vba)\b|```"
)
_LENGTH = (
    r"\b(?:words?|sentences?|paragraphs?|characters?|lines?|pages?|stanzas?|verses?|length|long(?:er)?|"
    r"short(?:er)?|brief(?:ly)?|concise(?:ly)?|detail(?:s|ed)?|comprehensive|thorough(?:ly)?|in[- ]depth|"
    r"summar\w+|essay|article|haiku|limerick|sonnet|tweet|slogan|tagline|title|headline|caption|bullet\w*)\b"
)
_LISTS = (
    r"\b(?:lists?|listing|bullet\w*|numbered|enumerate\w*|outline|steps?|step-by-step|table|items|points|schedule|"
    r"itinerary|agenda|plan|recipe|checklist|ideas|examples|top \d+|\d+ (?:\w+ )?\w+s)\b"
)
_QUESTIONS = r"\b(?:questions?|quiz\w*|ask(?:s|ed|ing)?|interview\w*|interrogat\w+|survey|exam|riddles?)\b"
_NUMBERS = (
    r"\b(?:numbers?|digits?|numerals?|calculat\w+|comput\w+|solve|equation|sum|when|years?|dates?|percent\w*|"
    r"how (?:many|much|long|old|far|big)|statistics?|numeric\w*|math\w*)\b|%"
)
_LANGUAGES = (
    r"\b(?:translat\w+|languages?|english|spanish|french|german|italian|portuguese|russian|ukrainian|polish|dutch|"
    r"turkish|arabic|hebrew|greek|hindi|chinese|mandarin|japanese|korean|thai|vietnamese|latin|swedish)\b"
)
_CASE = r"\b(?:capital\w*|lower[- ]?case\w*|upper[- ]?case\w*|caps|acronyms?|abbreviat\w+)\b"
_MARKS = (
    r"\b(?:punctuat\w+|commas?|colons?|parenthes[ei]s|brackets?|apostrophes?|exclamat\w+|emojis?|symbols?)\b"
)
_QUOTES = r"\b(?:quot\w+|cit(?:e|es|ing|ations?)|dialog(?:ue)?s?|verbatim|titles?|slogans?|phrase)\b"
_PERSONS = (
    r"\b(?:(?:first|second|third)[- ]person|pronouns?|dear|letter|e-?mail|speech|diary|poem|song|lyrics)\b"
)
_PLACES = (
    r"\b(?:start|begin|open|end|finish|conclud|clos)\w*\b.{0,40}\b(?:with|by|in)\b"
    r"|\b(?:first|last|final|opening) (?:word|letter|sentence|line)\b|\b(?:acrostic|rhym\w+)\b"
)
_WORDS = (
    r"\b(?:without|avoid\w*|not|never|don't) (?:using|use|mention\w*|writ\w+|say\w*|includ\w+)\b"
    r"|\b(?:forbidden|taboo) words?\b"
)
_STYLE = (
    r"\b(?:formal\w*|informal\w*|slang|contractions?|academic|dialect|simple (?:words|language)|jargon)\b"
)

code = _topic(f"{_CODE}|{_FORMATS}")
form = _topic(f"{_FORMATS}|{_CODE}|{_LISTS}")
length = _topic(f"{_LENGTH}|{_FORMATS}|{_CODE}")
questions = _topic(_QUESTIONS)
numbers = _topic(f"{_NUMBERS}|{_CODE}")
digits = _topic(rf"{_NUMBERS}|{_CODE}|\d")
languages = _topic(_LANGUAGES)
case = _topic(f"{_CASE}|{_CODE}")
marks = _topic(f"{_MARKS}|{_CODE}|{_FORMATS}")
quotes = _topic(f"{_QUOTES}|{_CODE}|{_FORMATS}")
persons = _topic(_PERSONS)
places = _topic(f"{_PLACES}|{_FORMATS}")
words = _topic(_WORDS)
style = _topic(f"{_STYLE}|{_MARKS}")


def mentioned(instruction: str, *values: str | int) -> bool:
    """Returns True if the instruction contains one of the values, or speaks of words to avoid."""
    text = instruction.casefold()
    return words(instruction) or any(str(value).casefold()[:5] in text for value in values)
