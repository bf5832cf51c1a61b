"""Text as it is compared with delimiters: what looks alike is equal, and every character knows where it was.

Compatibility forms (full-width letters and brackets), accents, invisible characters and some characters that
look like ASCII make no difference to a reader of a prompt, so they must make none to `sanitize`. The case of
letters stays, but for those that look like ASCII.
"""

import functools
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence

# Characters that look like ASCII although Unicode relates them to nothing: brackets and marks, then letters.
_LOOKALIKES = {
    "<": "\u2039\u3008\u27e8\u276c\u276e\u2770\u02c2\u1438\u29fc\u227a",
    ">": "\u203a\u3009\u27e9\u276d\u276f\u2771\u02c3\u1433\u29fd\u227b",
    "[": "\u2772\u298b\u298d\u298f\u3010\u3014\u3016\u2045",
    "]": "\u2773\u298c\u298e\u2990\u3011\u3015\u3017\u2046",
    "[[": "\u27e6\u301a",
    "]]": "\u27e7\u301b",
    "/": "\u2044\u2215\u29f8\u2571\u27cb",
    "#": "\u266f\u22d5\u2bd0",
    "=": "\u2550\ua78a\u2e40",
    "|": "\u2223\u2502\u01c0",
    "*": "\u2217\u204e\u2731",
    "_": "\u02cd\u2017",
    "-": "\u2010\u2012\u2013\u2014\u2015\u2212\u2796",
    ":": "\ua789\u2236\u02d0",
    # Cyrillic, Greek and Armenian letters, which stand for both cases.
    "a": "\u0430\u03b1",
    "b": "\u0432\u03b2",
    "c": "\u0441\u03f2",
    "d": "\u0501",
    "e": "\u0435\u03b5",
    "h": "\u043d\u03b7",
    "i": "\u0456\u03b9\u0131\u04cf",
    "k": "\u043a\u03ba",
    "m": "\u043c\u03bc",
    "n": "\u03bd\u0578",
    "o": "\u043e\u03bf",
    "p": "\u0440\u03c1",
    "q": "\u051b",
    "s": "\u0455",
    "t": "\u0442\u03c4",
    "u": "\u057d",
    "x": "\u0445\u03c7",
    "y": "\u0443\u03c5",
}
_FOLDED = {
    cased: ascii_
    for ascii_, characters in _LOOKALIKES.items()
    for character in characters
    for cased in (character, character.upper())
    if not cased.isascii()
}
# Format characters, accents and other marks; half surrogate pairs have no place in a text at all.
_DROPPED = frozenset(("Cf", "Mn", "Me", "Cs"))
# Invisible, though they count as letters: the fillers of Hangul, and the Khmer inherent vowels.
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u17b4\u17b5")


class Folded:
    """A text in the form in which it is compared, with the way back.

    Args:
      original: any text.

    Attributes:
      original: that text.
      text: the folded text.
    """

    def __init__(self, original: str):
        self.original = original
        # Number of folded characters before each character of the original; None: nothing was folded.
        self._starts: Sequence[int] | None = None
        if original.isascii():
            self.text = original
            return
        pieces, starts, length = [], [], 0
        for character in original:
            piece = _fold(character)
            pieces.append(piece)
            starts.append(length)
            length += len(piece)
        self.text, self._starts = "".join(pieces), starts

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Returns the (first, last + 1) character of the original of a part of the folded text."""
        if self._starts is None or start == end:
            first = self._index(start)
            return first, first if start == end else end
        return self._index(start), self._index(end - 1) + 1

    def part(self, start: int, end: int) -> str:
        """Returns what the original says in a part of the folded text."""
        first, last = self.span(start, end)
        return self.original[first:last]

    def _index(self, position: int) -> int:
        """Returns the character of the original that a character of the folded text comes from."""
        return position if self._starts is None else bisect_right(self._starts, position) - 1


def fold(text: str) -> str:
    """Returns a text in the form in which it is compared."""
    return Folded(text).text


@functools.lru_cache(maxsize=65_536)
def _fold(character: str) -> str:
    if character < "\x80":
        return character
    return "".join(
        _FOLDED.get(c, c)
        for c in unicodedata.normalize("NFKD", character)
        if unicodedata.category(c) not in _DROPPED and c not in _FILLERS
    )
