"""Columns that are meant as a pair of responses under other names: "choosen", "answer_a" and "answer_b"."""

import difflib
import re
from collections.abc import Iterable, Sequence

_CHOSEN = ("chosen", "rejected")
_NAMED = ("response_a", "response_b")
_CHOICES = {
    "chosen": ("accepted", "preferred", "better", "winning"),
    "rejected": ("dispreferred", "unpreferred", "worse", "losing"),
}
# Words for a response. Columns that hold something about one, such as its score, have a further word.
_RESPONSE = ("response", "answer", "output", "completion", "reply", "generation", "candidate", "continuation")
_AROUND = ("model", "assistant", "bot", "llm", "text", "content", "message", "the", "generated")
_SIDES = (("a", "b", "c"), ("1", "2", "3"), ("0", "1", "2"), ("first", "second", "third"), ("left", "right"))


def meant_responses(columns: Sequence[str], known: Iterable[str]) -> dict[str, str]:
    """Returns the columns that are meant as two responses, with the names that they should have.

    Columns that have these names already are left out. The result is empty if there are no such columns.

    Args:
      columns: names of the columns of a table that has no two responses under known names.
      known: names of columns with a meaning.
    """
    others = [name for name in columns if name in (*_CHOSEN, *_NAMED) or name not in known]
    return _choice(others) or _sides(columns)


def _choice(columns: Sequence[str]) -> dict[str, str]:
    """Returns columns almost named chosen and rejected."""
    spellings = {re.sub(r"[\W_]|responses?|answers?", "", column.casefold()): column for column in columns}
    found: dict[str, str] = {}
    for name in _CHOSEN:
        words = (name, *_CHOICES[name])
        near = [close for word in words for close in _close(word, spellings) if close[0] == word[0]]
        if near:
            found[spellings[near[0]]] = name
    return {column: name for column, name in found.items() if column != name} if len(found) == 2 else {}


def _sides(columns: Sequence[str]) -> dict[str, str]:
    """Returns two columns of responses whose names differ in a letter or a number only, and no third one."""
    split = {tuple(_words(column)): column for column in columns}
    for words in filter(_is_response, split):
        for first, *others in _SIDES:
            if first in words:
                place = words.index(first)
                pair, *more = [split.get((*words[:place], side, *words[place + 1 :])) for side in others]
                if pair and not any(more):
                    names = zip((split[words], pair), _NAMED, strict=True)
                    return {column: name for column, name in names if column != name}
    return {}


def _is_response(words: Sequence[str]) -> bool:
    """Returns True for words that stand for a response, and letters or numbers that tell it from another."""
    sides = {side for sides in _SIDES for side in sides}
    return _RESPONSE[0] in words and {*words} <= {_RESPONSE[0], *_AROUND, *sides}


def _words(name: str) -> list[str]:
    """Returns the words of a name: answerA, reply_a and "Response (A)" have the same."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Za-z])(?=\d)", "_", name)
    words = [word for word in re.split(r"[\W_]+", parted.casefold()) if word]
    return [_RESPONSE[0] if any(_close(word, [known]) for known in _RESPONSE) else word for word in words]


def _close(word: str, columns: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(word, columns, 1, 0.84)
