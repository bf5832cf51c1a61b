"""Types of requirements on the signs of a text: punctuation, digits and quotation marks."""

import itertools
import re

from ste_jax.pairs import topics
from ste_jax.pairs.checks import TextCheck, has, opposite
from ste_jax.pairs.predicate import PredicateType
from ste_jax.pairs.reading import has_code, without_numbering

_FORMS = {".": ".。．｡", "?": "?？", "!": "!！"}


def _ends_with(mark: str) -> TextCheck:
    """Returns the check for a last character; among or behind other marks it is unclear."""

    def check(text: str) -> bool | None:
        if has_code(text):
            return None
        marks = "".join(itertools.takewhile(lambda c: not (c.isalnum() or c.isspace()), reversed(text)))
        if marks == mark:
            return True
        return None if any(form in marks for form in _FORMS[mark]) or "…" in marks else False

    return check


def _has_number(text: str) -> bool | None:
    # Neither the number of a list item nor a digit in a name is a number that the answer mentions.
    if re.search(r"(?<![\w.,])[0-9]+(?:[.,][0-9]+)*(?!\w)", without_numbering(text)):
        return True
    return None if any(c.isnumeric() for c in text) else False


def _has_no_digits(text: str) -> bool | None:
    if re.search(r"[0-9]", without_numbering(text)):
        return False
    return None if any(c.isnumeric() for c in text) else True


_COMMA = has(r",(?!\d)", r"[,，、،﹐]")
_COLON = has(r":(?=\s|\Z)", r"[:：︓]")
_QUESTION = has(r"\?", r"[?？¿؟⁇⁈⁉]")
_EXCLAMATION = has(r"!", r"[!！¡‼⁉⁈]")
_PARENTHESES = has(r"(?<!\S)\((?=[^()\n]*[^\W\d_]{2})[^()\n]*\)", r"[()（）]")
# Single quotation marks cannot be distinguished from apostrophes, nor a double one from the sign for inches.
_QUOTATION = has(
    r"(?<![\w\"])\"(?=[^\"\n]*\w)[^\"\n]*(?<!\d)\"(?!\w)"
    r"|“(?=[^“”\n]*\w)[^“”\n]*”|«(?=[^«»\n]*\w)[^«»\n]*»",
    r"[\"“”„‟«»‹›`「」『』＂〝〞]|(?<!\w)['‘’‚]|['‘’](?!\w)",
)

HAS_COMMA = PredicateType(
    "has_comma",
    _COMMA,
    (
        "Use at least one comma.",
        "Your answer must contain a comma.",
        "There must be a comma in your answer.",
        "Using at least one comma, answer this:",
    ),
    clashes=topics.marks,
)
NO_COMMA = PredicateType(
    "no_comma",
    opposite(_COMMA),
    (
        "Do not use any commas.",
        "Your answer must not contain a comma.",
        "Write without commas.",
        "Without a single comma, answer this:",
    ),
    clashes=topics.marks,
)
HAS_COLON = PredicateType(
    "has_colon",
    _COLON,
    (
        "Use at least one colon.",
        "Your answer must contain a colon.",
        "Put a colon (:) somewhere in your answer.",
        "Using at least one colon, answer this:",
    ),
    clashes=topics.marks,
)
NO_COLON = PredicateType(
    "no_colon",
    opposite(_COLON),
    (
        "Do not use any colons.",
        "Your answer must not contain a colon.",
        "Write without colons.",
        "Without a single colon, answer this:",
    ),
    clashes=topics.marks,
)
HAS_QUESTION_MARK = PredicateType(
    "has_question_mark",
    _QUESTION,
    (
        "Use at least one question mark.",
        "Your answer must contain a question mark.",
        "There must be a question mark in your answer.",
        "Using at least one question mark, answer this:",
    ),
    clashes=topics.questions,
)
NO_QUESTION_MARK = PredicateType(
    "no_question_mark",
    opposite(_QUESTION),
    (
        "Do not use question marks.",
        "Your answer must not contain a question mark.",
        "Write without question marks.",
        "Without any question mark, answer this:",
    ),
    clashes=topics.questions,
)
HAS_EXCLAMATION_MARK = PredicateType(
    "has_exclamation_mark",
    _EXCLAMATION,
    (
        "Use at least one exclamation mark.",
        "Your answer must contain an exclamation mark.",
        "There must be an exclamation mark in your answer.",
        "Using at least one exclamation mark, answer this:",
    ),
    clashes=topics.marks,
)
NO_EXCLAMATION_MARK = PredicateType(
    "no_exclamation_mark",
    opposite(_EXCLAMATION),
    (
        "Do not use exclamation marks.",
        "Your answer must not contain an exclamation mark.",
        "Write without exclamation marks.",
        "Without any exclamation mark, answer this:",
    ),
    clashes=topics.marks,
)
ENDS_WITH_QUESTION_MARK = PredicateType(
    "ends_with_question_mark",
    _ends_with("?"),
    (
        "End your answer with a question mark.",
        "The last character of your answer must be a question mark.",
        "Finish with a question mark.",
        "In an answer that ends with a question mark, do this:",
    ),
    clashes=topics.questions,
)
ENDS_WITH_EXCLAMATION_MARK = PredicateType(
    "ends_with_exclamation_mark",
    _ends_with("!"),
    (
        "End your answer with an exclamation mark.",
        "The last character of your answer must be an exclamation mark.",
        "Finish with an exclamation mark.",
        "In an answer that ends with an exclamation mark, do this:",
    ),
    clashes=topics.places,
)
ENDS_WITH_FULL_STOP = PredicateType(
    "ends_with_full_stop",
    _ends_with("."),
    (
        "End your answer with a full stop.",
        "The last character of your answer must be a period.",
        "Finish with a period.",
        "In an answer that ends with a full stop, do this:",
    ),
    clashes=topics.places,
)
HAS_DIGITS = PredicateType(
    "has_digits",
    _has_number,
    (
        "Use at least one number written in digits.",
        "Your answer must contain a number in digits, such as 7.",
        "Mention a number, written with digits.",
        "Using at least one number in digits, answer this:",
    ),
    clashes=topics.numbers,
)
NO_DIGITS = PredicateType(
    "no_digits",
    _has_no_digits,
    (
        "Do not use any digits.",
        "Your answer must not contain digits (0-9).",
        "Write without digits.",
        "Without a single digit, answer this:",
    ),
    clashes=topics.digits,
)
HAS_QUOTATION = PredicateType(
    "has_quotation",
    _QUOTATION,
    (
        "Put something in quotation marks.",
        "Your answer must contain text in quotation marks.",
        "Use quotation marks at least once.",
        "Using quotation marks at least once, answer this:",
    ),
    clashes=topics.quotes,
)
NO_QUOTATION = PredicateType(
    "no_quotation",
    opposite(_QUOTATION),
    (
        "Do not use quotation marks.",
        "Your answer must not contain quotation marks.",
        "Write without quotation marks.",
        "Without any quotation marks, answer this:",
    ),
    clashes=topics.quotes,
)
HAS_PARENTHESES = PredicateType(
    "has_parentheses",
    _PARENTHESES,
    (
        "Put something in parentheses.",
        "Your answer must contain text in parentheses.",
        "Use a pair of parentheses at least once.",
        "Using parentheses at least once, answer this:",
    ),
    clashes=topics.marks,
)
NO_PARENTHESES = PredicateType(
    "no_parentheses",
    opposite(_PARENTHESES),
    (
        "Do not use parentheses.",
        "Your answer must not contain parentheses.",
        "Write without parentheses.",
        "Without any parentheses, answer this:",
    ),
    clashes=topics.marks,
)
