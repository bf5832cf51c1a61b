"""Text as it is compared with delimiters: what looks alike is equal, and every character knows where it was.

Compatibility forms (full-width letters and brackets), accents, invisible and control characters, HTML
references (`&lt;`), backslashes, and characters that look like ASCII make no difference to a
reader of a prompt, so they must make none to `sanitize`. The case of letters stays, but for those that look
like ASCII.
"""

import functools
import html
import re
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence

# Characters that look like ASCII although Unicode relates them to nothing: brackets and marks, then letters.
_LOOKALIKES = {
    "<": "\u2039\u3008\u27e8\u276c\u276e\u2770\u02c2\u1438\u29fc\u227a\u22d6\u2991",
    ">": "\u203a\u3009\u27e9\u276d\u276f\u2771\u02c3\u1433\u29fd\u227b\u22d7\u2992",
    "<<": "\u00ab\u226a\u300a\u27ea\u2aa1",
    ">>": "\u00bb\u226b\u300b\u27eb\u2aa2",
    "[": "\u2772\u298b\u298d\u298f\u3010\u3014\u3016\u2045\u230a\u2308\u23a1\u23a3\u2e22\u2e24",
    "]": "\u2773\u298c\u298e\u2990\u3011\u3015\u3017\u2046\u230b\u2309\u23a4\u23a6\u2e23\u2e25",
    "[[": "\u27e6\u301a\u3018\u27ec",
    "]]": "\u27e7\u301b\u3019\u27ed",
    "/": "\u2044\u2215\u29f8\u2571\u27cb",
    "#": "\u266f\u22d5\u2bd0\u2317\u29e3",
    "=": "\u2550\ua78a\u2e40\u30a0\ua4ff",
    "|": "\u2223\u2502\u01c0\u23d0\u2758",
    "*": "\u2217\u204e\u2731",
    "_": "\u02cd\u2017",
    "-": "\u2010\u2012\u2013\u2014\u2015\u2212\u2796",
    ":": "\ua789\u2236\u02d0\u0589\u05c3",
    # Letters of other scripts, which stand for both cases: Cyrillic, Greek, Armenian, Coptic; Cherokee, Lisu,
    # and Canadian syllabics.
    "a": "\u0430\u03b1\u2c80\u13aa\ua4ee\u15c5\u0251\u237a",
    "b": "\u0432\u03b2\u2c82\u13f4\u13cf\ua4d0\u15f7",
    "c": "\u0441\u03f2\u2ca4\u13df\ua4da\u1455",
    "d": "\u0501\u13a0\ua4d3\u15ea",
    "e": "\u0435\u03b5\u13ac\ua4f0\u212e",
    "f": "\ua4dd",
    "g": "\u13c0\ua4d6\u0261",
    "h": "\u043d\u03b7\u2c8e\u13bb\u13c2\ua4e7\u157c",
    "i": "\u0456\u03b9\u0131\u04cf\u2c92\u13a5\ua4f2",
    "j": "\u0458\u03f3\u13ab\ua4d9\u148d",
    "k": "\u043a\u03ba\u2c94\u13e6\ua4d7",
    "l": "\u13de\ua4e1\u14aa",
    "m": "\u043c\u03bc\u2c98\u13b7\ua4df\u15f0",
    "n": "\u03bd\u0578\u2c9a\ua4e0\u144e",
    "o": "\u043e\u03bf\u2c9e\u13be\ua4f3\u0585",
    "p": "\u0440\u03c1\u2ca2\u13e2\ua4d1\u146d",
    "q": "\u051b",
    "r": "\u13a1\u13d2\ua4e3\u1587",
    "s": "\u0455\u13da\u13d5\ua4e2\u1515",
    "t": "\u0442\u03c4\u2ca6\u13a2\ua4d4",
    "u": "\u057d\ua4f4\u144c",
    "v": "\u13d9\ua4e6\u142f",
    "w": "\u0461\u051d\u13b3\u13d4\ua4ea",
    "x": "\u0445\u03c7\u2cac\ua4eb",
    "y": "\u0443\u03c5\u2ca8\u13a9\u13bd\ua4ec",
    "z": "\u03b6\u13c3\ua4dc",
}
_FOLDED = {
    cased: ascii_
    for ascii_, characters in _LOOKALIKES.items()
    for character in characters
    for cased in (character, character.upper(), character.lower())
    if not cased.isascii()
}
# Small capitals, letters with strokes and hooks, and letters in filled circles and squares.
_NAMED = re.compile(
    r"(?:LATIN (?:SMALL|CAPITAL) LETTER|LATIN LETTER SMALL CAPITAL|REGIONAL INDICATOR SYMBOL LETTER"
    r"|(?:CROSSED )?NEGATIVE (?:CIRCLED|SQUARED) LATIN CAPITAL LETTER)"
    r"(?: (?:SCRIPT|DOTLESS|BARRED|BLACKLETTER|INSULAR|STIRRUP))? ([A-Z])(?: WITH .*)?"
)
# Format and control characters. Half surrogate pairs, private and unassigned characters have no place in a
# word.
_SHAPELESS = frozenset(("Cf", "Cc", "Cs", "Co", "Cn"))
_MARKS = frozenset(("Mn", "Me"))  # accents among others
# Invisible, though they count as letters or symbols: the fillers of Hangul, the Khmer inherent vowels, the
# blanks of Braille, hieroglyphs and music, and the place of an object.
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u17b4\u17b5\u2800\U00013441\U00013442\U0001d159\ufffc")
# What is read as one character: an HTML reference, or a character.
_UNIT = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});|.", re.DOTALL)
# Texts without any of these characters are their own form.
_TO_FOLD = re.compile(r"[^\t-\r\x1c-%'-\[\]-~]")


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
        # Of each unit of the original: the number of its first character, and of folded characters before it.
        # None: nothing was folded.
        self._places: tuple[Sequence[int], Sequence[int]] | None = None
        if not _TO_FOLD.search(original):
            self.text = original
            return
        pieces, firsts, starts, length = [], [], [], 0
        for match in _UNIT.finditer(original):
            piece = _fold(match[0])
            pieces.append(piece)
            firsts.append(match.start())
            starts.append(length)
            length += len(piece)
        self.text, self._places = "".join(pieces), ([*firsts, len(original)], starts)

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Returns the (first, last + 1) character of the original of a part of the folded text."""
        if self._places is None:
            return start, end
        firsts, starts = self._places
        first = bisect_right(starts, start) - 1
        last = bisect_right(starts, end - 1) if end > start else first
        return firsts[first], firsts[last]

    def part(self, start: int, end: int) -> str:
        """Returns what the original says in a part of the folded text."""
        first, last = self.span(start, end)
        return self.original[first:last]


def fold(text: str) -> str:
    """Returns a text in the form in which it is compared."""
    return Folded(text).text


@functools.lru_cache(maxsize=65_536)
def _fold(unit: str) -> str:
    """Returns the folded form of a unit of a text."""
    if len(unit) > 1:
        character = html.unescape(unit)
        # Unknown references, and the few for two characters, are ordinary text.
        return _fold(character) if len(character) == 1 else unit
    return "".join(map(_alike, unicodedata.normalize("NFKD", unit)))


def _alike(character: str) -> str:
    """Returns the ASCII that a character looks like, nothing for an invisible one, or the character."""
    if character in _FOLDED:
        return _FOLDED[character]
    if character == "\\" or not _has_shape(character) or unicodedata.category(character) in _MARKS:
        return ""
    named = None if character.isascii() else _NAMED.fullmatch(unicodedata.name(character, ""))
    if not named:
        return character
    return named[1] if character.isupper() else named[1].lower()


def without_invisible(text: str) -> str:
    """Returns a text without characters that have no shape of their own, such as soft hyphens."""
    return text if text.isascii() and text.isprintable() else "".join(filter(_has_shape, text))


@functools.lru_cache(maxsize=65_536)
def _has_shape(character: str) -> bool:
    """Returns False for invisible characters; white space counts as visible."""
    if character.isspace():
        return True
    return character not in _FILLERS and unicodedata.category(character) not in _SHAPELESS
