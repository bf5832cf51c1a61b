"""Types of requirements on the style of a text: case, language, person, contractions, years, emoji."""

import functools
import re
import unicodedata
from collections.abc import Iterator

from ste_jax.pairs import topics
from ste_jax.pairs.checks import has, opposite
from ste_jax.pairs.predicate import PredicateType, Values
from ste_jax.pairs.reading import has_code, words

_ENGLISH = frozenset(
    re.findall(
        r"\w+", "the of and to in is that for it as with on be are this by from an or which can you not"
    )
)
# Frequent words of other languages in Latin script that English does not have.
_FOREIGN = frozenset(
    re.findall(
        r"\w+",
        """
        el la los las del que en una por con para es lo le les des et est dans pour une qui der das und ist
        nicht ein eine den von zu mit auf il di che non per della da do em uma com het een van niet dat nie
        """,
    )
)
_SCRIPTS = {"HANGUL": "Korean", "GREEK": "Greek", "HEBREW": "Hebrew", "THAI": "Thai", "CJK": "Chinese"}


def _is_lower_case(text: str) -> bool | None:
    letters = [c for c in text if c.islower() or c.isupper() or c.istitle()]
    if len(letters) < 10 or has_code(text):
        return None
    capitals = sum(not c.islower() for c in letters)
    return True if capitals == 0 else False if capitals >= 2 else None


def _has_capital_word(text: str) -> bool | None:
    if has_code(text):
        return None
    if re.search(r"(?<![\w.&/'’-])(?![IVXLC]+\b)[A-Z]{3,}(?![\w&/'’-])", text):
        return True
    return None if any(sum(c.isupper() for c in piece) >= 2 for piece in text.split()) else False


@functools.lru_cache(maxsize=512)
def _language(text: str) -> str | None:
    """Returns the language that the script or frequent English words of a text show.

    It is "" for a language that is not English but unknown, and None if nothing is clear.
    """
    letters = [c for c in text if c.isalpha()]
    if len(letters) < 10 or has_code(text):
        return None
    scripts = {re.split(r"[ -]", unicodedata.name(c, "?"))[0] for c in letters}
    if scripts & {"HIRAGANA", "KATAKANA"}:
        return "Japanese" if scripts <= {"HIRAGANA", "KATAKANA", "CJK"} else None
    if len(scripts) != 1:
        return None
    script = scripts.pop()
    return _latin(text) if script == "LATIN" else _SCRIPTS.get(script, "")


def _latin(text: str) -> str | None:
    found = [word.casefold() for word in words(text)]
    english, foreign = (sum(word in frequent for word in found) for frequent in (_ENGLISH, _FOREIGN))
    if len(found) < 8:
        return None
    if english >= 0.15 * len(found) and foreign <= 0.05 * len(found):
        return "English"
    return "" if foreign >= 0.15 * len(found) and english <= 0.05 * len(found) else None


def _is_in(text: str, language: str) -> bool | None:
    found = _language(text)
    return None if found is None else found == language


def _languages(meets: str, fails: str) -> Iterator[Values]:
    del fails
    if found := _language(meets):
        yield (found,)


_YOU = has(r"\b(?:you|You)\b(?!['’])", r"(?i)\byou(?:r\w*)?\b|\by['’]all\b|\b(?:ya|u|ur|thou|thee|thy)\b")
_I = has(
    r"\bI (?:a|ha|wa|wi|wo|ca|co|do|di|thi|kno|wan|lik|lov|fee|sai|rea|nee|nev|alw|jus|los|foun|sa)[a-z]+\b"
    r"|\b(?:my|me)\b",
    r"(?i)\b(?:i|me|my|mine|myself|im|ive)\b",
)
_CONTRACTION = has(
    r"(?i)(?<![\w'’])(?:(?:ca|wo|do|does|did|is|are|was|were|have|has|had|could|would|should)n['’]t|"
    r"(?:it|that|there|he|she|what)['’]s|i['’](?:m|ve|ll|d)|(?:you|we|they)['’](?:re|ve|ll|d)|let['’]s)(?![\w'’])",
    r"(?i)[^\W\d_] ?['’‘`´ʼ] ?[^\W\d_]|['’](?:tis|em|cause)\b|\b(?:do|does|did|ca|wo|is|are)nt\b|\bcannot\b"
    r"|\b(?:im|ive|gonna|wanna|gotta)\b",
)
_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December)(?: \d{1,2},)?"
)
_YEAR = has(
    rf"\b(?:[Ii]n|[Ss]ince|[Uu]ntil|[Dd]uring|[Yy]ear|{_MONTH}) (?:1[4-9]|20)\d\d(?=[.,;)]?(?:\s|\Z))"
    r"(?! [a-z])",
    r"\d|(?i:\b(?:nineteen|eighteen|twenty|two thousand|year|centur|decade))",
)
_EMOJI = has(
    r"[\U0001f300-\U0001f64f\U0001f680-\U0001f6ff\U0001f900-\U0001faff]",
    r"[\u00a9\u00ae\u203c\u2049\u2100-\u214f\u2190-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001ffff]"
    r"|[:;=]['-]?[()DPp]|<3",
)

LOWER_CASE = PredicateType(
    "lower_case",
    _is_lower_case,
    (
        "Write everything in lower case.",
        "Your answer must not contain capital letters.",
        "Use lowercase letters only.",
        "Without any capital letters, answer this:",
    ),
    clashes=topics.case,
)
CAPITAL_WORD = PredicateType(
    "capital_word",
    _has_capital_word,
    (
        "Include a word or abbreviation of three or more letters in all capitals.",
        "At least one word or abbreviation of three or more letters must be in ALL CAPS.",
        "Use all capitals for a word or abbreviation of at least three letters.",
        "With a word or abbreviation of three or more letters in all capitals, answer this:",
    ),
    clashes=topics.case,
)
LANGUAGE = PredicateType(
    "language",
    _is_in,
    (
        "Answer in {0}.",
        "Your answer must be in {0}.",
        "Write the whole answer in {0}.",
        "In {0}, answer this:",
    ),
    _languages,
    topics.languages,
)
SAYS_YOU = PredicateType(
    "says_you",
    _YOU,
    (
        'Use the word "you" at least once.',
        'Your answer must contain the word "you".',
        'The word "you" must appear.',
        'Using the word "you" at least once, answer this:',
    ),
    clashes=topics.persons,
)
NO_YOU = PredicateType(
    "no_you",
    opposite(_YOU),
    (
        'Do not use the word "you".',
        'Avoid the word "you".',
        'The word "you" must not appear in your answer.',
        'Without the word "you", answer this:',
    ),
    clashes=topics.persons,
)
SAYS_I = PredicateType(
    "says_i",
    _I,
    (
        'Use "I", "me" or "my" at least once.',
        'Your answer must contain "I", "me" or "my".',
        'At least once, say "I", "me" or "my".',
        'Using "I", "me" or "my", answer this:',
    ),
    clashes=topics.persons,
)
NO_I = PredicateType(
    "no_i",
    opposite(_I),
    (
        'Do not use the words "I", "me" and "my".',
        'Avoid "I", "me" and "my".',
        'The words "I", "me" and "my" must not appear.',
        'Without the words "I", "me" and "my", answer this:',
    ),
    clashes=topics.persons,
)
HAS_CONTRACTION = PredicateType(
    "has_contraction",
    _CONTRACTION,
    (
        'Use at least one contraction, such as "it\'s".',
        'Your answer must contain a contraction like "don\'t".',
        'Include a contraction (for example "can\'t").',
        'Using a contraction such as "it\'s", answer this:',
    ),
    clashes=topics.style,
)
NO_CONTRACTION = PredicateType(
    "no_contraction",
    opposite(_CONTRACTION),
    (
        'Do not use contractions such as "it\'s".',
        'Write "do not" rather than "don\'t", and use no other contractions either.',
        "Your answer must not contain contractions.",
        "Without contractions, answer this:",
    ),
    clashes=topics.style,
)
MENTIONS_YEAR = PredicateType(
    "mentions_year",
    _YEAR,
    (
        "Mention a specific year, such as 1995.",
        "Your answer must name a year in four digits.",
        "Include at least one year, written in digits.",
        "Mentioning a specific year, answer this:",
    ),
    clashes=topics.numbers,
)
HAS_EMOJI = PredicateType(
    "has_emoji",
    _EMOJI,
    (
        "Use at least one emoji.",
        "Your answer must contain an emoji.",
        "Put an emoji somewhere in your answer.",
        "Using at least one emoji, answer this:",
    ),
    clashes=topics.marks,
)
