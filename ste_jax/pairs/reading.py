"""Counts the parts of a text, with bounds where readers may differ, and finds its words.

What a word, a sentence or a paragraph is depends on the reader. Counts are therefore a `Span`: no careful
reader counts fewer parts than `low` or more than `high`. A count is None where the notion itself is
unclear, as of a word in Chinese text or of a sentence in code. Texts are expected in the form of `normal`.
"""

import functools
import re
import unicodedata
from typing import NamedTuple

# Scripts that put no spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, kana and Chinese characters.
_UNSPACED = re.compile(
    r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u9fff\uf900-\ufaff"
    r"\uff66-\uff9f\U00020000-\U0003ffff]"
)
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_FENCE = re.compile(r"^[ ]*(?:```|~~~)", re.M)
_CODE = re.compile(
    r"^[ ]*(?:def \w+\(|class \w+[(:{]|import \w+$|from [\w.]+ import |return\b.*[;)]$|#include|public \w|"
    r"(?:var|let|const) \w+ =|function\b.*\{|(?:for|while|if) ?\(.*\{?$|print\(|</?\w+[^>]*>|SELECT |\\begin)"
    r"|[;{}]$|^[ ]*[\w.\[\]]+ ?[-+*/]?= ?\S|\w\(\w*\)",
    re.M,
)
_BULLET = re.compile(r"^[ ]*[-*+•◦▪‣][ ]+[^\s*+-]", re.M)
_NUMBER = re.compile(r"^[ ]*\(?(\d{1,3})[.)][ ]+\S", re.M)
# A number within a line, a letter with a parenthesis, a dash that may open a speech, a sign of other kinds.
_LIKE_A_LIST = re.compile(
    r"(?<!\S)\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,4})[.)](?=\s|$)|^[ ]*[-–—*+•·◦▪‣●○■□➢➤✓✔\u2190-\u21ff→]"
    r"|[•◦▪‣●]|^[ ]*#|^[ ]*\d{1,3}[.):]",
    re.M,
)
_CLOSERS = r"[\"'”’»)\]*_]*"
# From the first mark of a run only: a long run would be looked through from each.
_MARKS = r"(?<![.!?…])[.!?…]+"
_END = re.compile(rf"{_MARKS}{_CLOSERS}(?=\s|$)")
_POSSIBLE_END = re.compile(rf"{_MARKS}{_CLOSERS}(?=\s|$|[^\W\d_])|\n+")
_NESTED = re.compile(r"\"[^\"\n]*(?:\"|$)|“[^”\n]*(?:”|$)|\([^()\n]*(?:\)|$)")
_ABBREVIATIONS = frozenset(
    re.findall(
        r"\w+",
        """
        dr mr mrs ms prof st jr sr vs etc approx no inc ltd co corp dept fig vol al cf ca gen sen rep rev hon
        eq sec ave blvd rd mt ft jan feb mar apr jun jul aug sep sept oct nov dec
        """,
    )
)


class Span(NamedTuple):
    """Bounds of a count that no careful reader exceeds."""

    low: int
    high: int


@functools.lru_cache(maxsize=512)
def normal(text: str) -> str:
    """Returns a text with composed characters, "\\n" and " " as its only blanks, and nothing invisible."""
    text = re.sub(r"\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]", "\n", unicodedata.normalize("NFC", text))
    text = re.sub(r"[^\S\n]", " ", text)
    if text.isascii() and text.isprintable():
        return text.strip()
    hidden = ("Cc", "Cf", "Cs", "Co", "Cn")
    return "".join(c for c in text if c == "\n" or unicodedata.category(c) not in hidden).strip()


def is_blank(text: str) -> bool:
    """Returns True if a text has neither letters nor digits."""
    return not any(c.isalnum() for c in text)


@functools.lru_cache(maxsize=512)
def has_words(text: str) -> bool:
    """Returns True if it is clear where the words of a text begin and end."""
    if text.isascii():
        return True
    combined = any(unicodedata.category(c) in ("Mn", "Mc") and c != "\ufe0f" for c in text)
    return not (_UNSPACED.search(text) or combined)


@functools.lru_cache(maxsize=512)
def words(text: str) -> tuple[str, ...]:
    """Returns the words of a text, in its order and spelling, without numbers; none if words are unclear."""
    return tuple(_WORD.findall(text)) if has_words(text) else ()


@functools.lru_cache(maxsize=512)
def has_code(text: str) -> bool:
    """Returns True if a text holds code, or something like it."""
    return bool(_FENCE.search(text) or _CODE.search(text))


@functools.lru_cache(maxsize=512)
def word_count(text: str) -> Span | None:
    """Returns the number of words: between those that spaces part and all runs of letters or digits."""
    if not has_words(text) or has_code(text):
        return None
    pieces = text.split()
    spaced = sum(any(c.isalnum() for c in piece) for piece in pieces)
    return Span(spaced, max(len(pieces), len(re.findall(r"[^\W_]+", text))))


@functools.lru_cache(maxsize=512)
def longest_word(text: str) -> Span | None:
    """Returns the number of letters of the longest word: of a part of a compound, or of all of it."""
    if not words(text) or has_code(text) or re.search(r"://|www\.|@|_", text):
        return None
    joined = re.findall(r"[^\W_]+(?:[-'’./][^\W_]+)*", text)
    return Span(max(map(len, re.findall(r"[^\W\d_]+", text))), max(map(len, joined)))


@functools.lru_cache(maxsize=512)
def complete_sentences(text: str) -> tuple[str, ...]:
    """Returns the complete sentences that every reader sees: of three words or more, up to a certain end."""
    nested = [match.span() for match in _NESTED.finditer(text)]
    sentences, start = [], 0
    for match in _END.finditer(text):
        inside = any(first < match.start() < last for first, last in nested)
        if not inside and _is_certain_end(text, match):
            sentence = text[start : match.end()].strip()
            if len(words(sentence)) >= 3 and "\n" not in sentence:
                sentences.append(sentence)
            start = match.end()
    return tuple(sentences)


def _is_certain_end(text: str, match: re.Match[str]) -> bool:
    """Returns True if a full stop, question or exclamation mark ends a sentence for every reader."""
    before = text[max(0, match.start() - 40) : match.start()].split() or [""]
    piece = before[-1].strip("\"'“”‘’([*_")
    unclear = len(piece) < 2 or "." in piece or piece.isdigit() or piece.casefold() in _ABBREVIATIONS
    if (match[0][0] == "." and unclear) or ".." in match[0] or "…" in match[0]:
        return False
    following = text[match.end() : match.end() + 40].lstrip().lstrip("\"'“‘([*_")
    return not following or following[0].isupper()


@functools.lru_cache(maxsize=512)
def sentence_count(text: str) -> Span | None:
    """Returns the number of sentences: between complete ones with certain ends and all that could be one."""
    if not has_words(text) or has_code(text):
        return None
    possible = sum(any(c.isalnum() for c in part) for part in _POSSIBLE_END.split(text))
    return Span(len(complete_sentences(text)), possible)


@functools.lru_cache(maxsize=512)
def paragraph_count(text: str) -> Span | None:
    """Returns the number of paragraphs: between blocks with a complete sentence and all lines.

    Items of lists and headings are not certain to be paragraphs.
    """
    if not has_words(text) or has_code(text):
        return None
    blocks = [block for block in re.split(r"\n\s*\n", text) if not _LIKE_A_LIST.match(block.strip())]
    lines = sum(bool(line.strip()) for line in text.split("\n"))
    return Span(sum(bool(complete_sentences(block.strip())) for block in blocks), lines)


@functools.lru_cache(maxsize=512)
def list_items(text: str, kind: str) -> Span | None:
    """Returns the number of items of lists of a kind, "bulleted", "numbered" or "any".

    `high` counts whatever looks like an item of any list, so that a numbered list is an unclear bulleted one.
    """
    if has_code(text):
        return None
    bullets, numbers = len(_BULLET.findall(text)), [int(n) for n in _NUMBER.findall(text)]
    numbered = len(numbers) if numbers == list(range(1, len(numbers) + 1)) else 0
    low = {"bulleted": bullets, "numbered": numbered, "any": max(bullets, numbered)}[kind]
    return Span(low, max(low, len(_LIKE_A_LIST.findall(text))))


def without_numbering(text: str) -> str:
    """Returns a text without the numbers of its list items, on lines of their own or within a line."""
    return re.sub(r"(?<!\S)\(?\d{1,3}[.)](?=\s|$)", "", text)
