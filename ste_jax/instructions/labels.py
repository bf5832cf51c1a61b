"""What the model is asked about an instruction (category, complexity, length), and how its answer is read.

The prompt is short on purpose: it is read for every instruction. The parser never guesses: a field that
does not clearly name one permitted value is None.
"""

import dataclasses
import re
from typing import TypeVar

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
_COMPLEXITY = re.compile(r"\D*(?<![-.\u2212])(\d{1,2})(?:\s*\(?\s*(?:/|(?:out )?of)\s*10)?\D*")

_Value = TypeVar("_Value", str, int)


Messages = list[dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Label:
    """What the model said of one instruction; None where it said nothing that can be used."""

    category: str | None
    complexity: int | None
    length: str | None


_ASK = "Sort this request: "
_WORKED = (
    ("Write a Python function that sorts a list of numbers.", Label("Coding", 3, "1 paragraph")),
    ("Who was the first person to walk on the moon?", Label("Closed Question Answering", 1, "1 sentence")),
)


def label_prompt(text: str, categories: tuple[str, ...] = CATEGORIES) -> Messages:
    """Returns the conversation that asks for the category, complexity and answer length of `text`.

    Worked turns come first, as far as their categories are among `categories`: without them small models
    answer the request instead of sorting it.
    """
    rules = (
        f"You sort requests; you never answer them. Category: one of {'; '.join(categories)}. "
        f"Complexity: 1 (easy) to 10 (hard). Length of a good answer: one of {'; '.join(LENGTH_BANDS)}."
    )
    messages = [{"role": "system", "content": rules}]
    for request, label in _WORKED:
        if label.category in categories:
            answer = f"Category: {label.category}\nComplexity: {label.complexity}\nLength: {label.length}"
            messages += [
                {"role": "user", "content": _ASK + request},
                {"role": "assistant", "content": answer},
            ]
    return [*messages, {"role": "user", "content": _ASK + text}]


def parse_label(completion: str, categories: tuple[str, ...] = CATEGORIES) -> Label:
    """Reads the three fields out of a completion, each on its own.

    Case, markdown, numbering and words after the value do not matter. A field is None when its line is
    missing, names no permitted value or several, or when two lines contradict each other.
    """
    return Label(
        category=_only([_choice(value, categories) for value in _values(completion, "category")]),
        complexity=_only([_complexity(value) for value in _values(completion, "complexity")]),
        length=_only([_choice(value, LENGTH_BANDS) for value in _values(completion, "length")]),
    )


def _values(completion: str, key: str) -> list[str]:
    """Returns what follows `key` and its colon where they begin a line (`Length of the answer:` too)."""
    pattern = rf"^[\W\d_]*{key}(?:[\W_]*?[:=–-]|\b[^:\n]{{0,30}}:)(.*)$"
    return re.findall(pattern, completion, re.IGNORECASE | re.MULTILINE)


def _only(values: list[_Value | None]) -> _Value | None:
    """Returns the value of all lines that have one, if they agree."""
    found = {value for value in values if value is not None}
    return found.pop() if len(found) == 1 else None


def _choice(value: str, options: tuple[str, ...]) -> str | None:
    """Returns the option that begins `value`, if no other is in it, or the only one that `value` begins."""
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
    """Returns `text` in lower-case words without punctuation; numbers are digits, and a range is one word."""
    text = text.casefold().replace("(s)", "").replace("+", " or more ")
    found: list[str] = _WORD.findall(text)
    words = [_NUMBER_WORDS.get(word, word) if word.isalnum() else "-" for word in found]
    return " ".join(_RANGE.sub(r"\1~\2", " ".join(words)).replace("-", " ").split())
