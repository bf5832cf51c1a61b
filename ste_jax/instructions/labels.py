"""Prompt and parser of the labels of an instruction: category, complexity and length of a good answer.

The prompt is short on purpose, since it is prefilled for every instruction. The parser never guesses: a field
that does not clearly name one permitted value is None.
"""

import dataclasses
import re
from typing import TypeVar

from ste_jax.text.chat import Message

CATEGORIES = (
    "Coding",
    "Mathematical reasoning",
    "Asking for Advice",
    "Brainstorming",
    "Classification",
    "Closed Question Answering",
    "Creative Writing",
    "Extraction",
    "Inhabiting a Character/Persona",
    "Open Question Answering",
    "Rewriting",
    "Summarization",
    "Knowledge and Reasoning",
    "Humanity, History or Social Studies",
    "Other",
)
LENGTH_BANDS = ("1 sentence", "1-3 sentences", "1 paragraph", "2 paragraphs", "3 or more paragraphs")

_NUMBER_WORDS = {"one": "1", "two": "2", "three": "3", "sentences": "sentence", "paragraphs": "paragraph"}
_WORD = re.compile(r"[^\W_]+|[-\u2010-\u2015]")
_RANGE = re.compile(r"(\d) (?:-|to) (\d)")
_SHORTEST_PREFIX = 3
_COMPLEXITY = re.compile(r"\D*(?<![-.\u2212])(\d{1,2})(?:\s*(?:\(\s*)?(?:/|(?:out )?of)\s*10)?\D*")

_Value = TypeVar("_Value", str, int)


@dataclasses.dataclass(frozen=True)
class Label:
    """Labels of an instruction as given by a model; None where its answer cannot be parsed."""

    category: str | None
    complexity: int | None
    length: str | None


_ASK = "Sort this request: "
_WORKED = (
    ("Write a Python function that sorts a list of numbers.", Label("Coding", 3, "1 paragraph")),
    ("Who was the first person to walk on the moon?", Label("Closed Question Answering", 1, "1 sentence")),
)


def label_prompt(text: str, categories: tuple[str, ...] = CATEGORIES) -> list[Message]:
    """Returns the messages that ask for the category, complexity and answer length of `text`.

    Worked examples come first, if their categories are among `categories`. Without them small models answer
    the request instead of classifying it.
    """
    rules = (
        f"You sort requests; you never answer them. Category: one of {'; '.join(categories)}. "
        f"Complexity: 1 (easy) to 10 (hard). Length of a good answer: one of {'; '.join(LENGTH_BANDS)}."
    )
    messages = [Message("system", rules)]
    for request, label in _WORKED:
        if label.category in categories:
            answer = f"Category: {label.category}\nComplexity: {label.complexity}\nLength: {label.length}"
            messages += [Message("user", _ASK + request), Message("assistant", answer)]
    return [*messages, Message("user", _ASK + text)]


def parse_label(completion: str, categories: tuple[str, ...] = CATEGORIES) -> Label:
    """Returns the labels in a completion; each field is parsed independently.

    Case, markdown, numbering and words after the value are ignored. A field is None if its line is missing,
    names no permitted value or several, or if two lines contradict each other.
    """
    return Label(
        category=_only([_choice(value, categories) for value in _values(completion, "category")]),
        complexity=_only([_complexity(value) for value in _values(completion, "complexity")]),
        length=_only([_choice(value, LENGTH_BANDS) for value in _values(completion, "length")]),
    )


def _values(completion: str, key: str) -> list[str]:
    """Returns the text after `key` and a colon at the beginning of a line, as in `Length of the answer:`."""
    pattern = rf"^[\W\d_]*{key}(?:[\W_]*?[:=–-]|\b[^:\n]{{0,30}}:)(.*)$"
    return re.findall(pattern, completion, re.IGNORECASE | re.MULTILINE)


def _only(values: list[_Value | None]) -> _Value | None:
    """Returns the value on which all lines with a value agree, or None."""
    found = {value for value in values if value is not None}
    return found.pop() if len(found) == 1 else None


def _choice(value: str, options: tuple[str, ...]) -> str | None:
    """Returns the option that `value` begins with, or the only option that begins with `value`, or None."""
    words = _normal(re.sub(r"^\W*\d+[.)]\s", "", value))
    named = [option for option in options if f" {_normal(option)} " in f" {words} "]
    if named:
        longest = max(named, key=len)
        alone = all(_normal(option) in _normal(longest) for option in named)
        return longest if alone and f"{words} ".startswith(f"{_normal(longest)} ") else None
    begun = [option for option in options if _normal(option).startswith(words)]
    return begun[0] if len(begun) == 1 and len(words) >= _SHORTEST_PREFIX else None


def _complexity(value: str) -> int | None:
    match = _COMPLEXITY.fullmatch(value)
    return int(match[1]) if match and 1 <= int(match[1]) <= 10 else None


def _normal(text: str) -> str:
    """Returns `text` as lower-case words without punctuation; numbers are digits, a range is one word."""
    text = text.casefold().replace("(s)", "").replace("+", " or more ")
    found: list[str] = _WORD.findall(text)
    words = [_NUMBER_WORDS.get(word, word) if word.isalnum() else "-" for word in found]
    return " ".join(_RANGE.sub(r"\1~\2", " ".join(words)).replace("-", " ").split())
