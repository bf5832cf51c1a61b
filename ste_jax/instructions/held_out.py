"""Finds instructions whose text is held out: prompts of labelled pairs and of benchmarks.

Ids do not tell: the same prompt has another id in every file. Texts are compared as words: neither case,
punctuation nor compatibility forms (full-width letters) count. Where a script puts no blanks between words
(Chinese, Japanese, Thai and others), each character counts as half a word.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from ste_jax.instructions.near_duplicates import NearDuplicates, normal
from ste_jax.text.folding import without_invisible

# Sizes in half words. A run of 13 words that occurs in a prompt of a benchmark is taken from it, as in the
# report of GPT-3.
_RUN = 2 * 13
# A whole text of five words or more is found anywhere, one of two words only where it stands by itself:
# "Write a poem." is another instruction than "Write a poem about rain."
_ANYWHERE, _BY_ITSELF = 2 * 5, 2 * 2
# Thai, Lao, Burmese, Khmer, kana and Chinese characters.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"([{_UNSPACED}])|[^\W{_UNSPACED}]+")


class _Words:
    """The words of a text.

    Attributes:
      words: the words in order.
      sizes: the size of each word in half words.
      marked: for each place before, between and after the words, True if the text begins or ends there, or
        has more there than blanks.
    """

    def __init__(self, text: str):
        text = unicodedata.normalize("NFKC", without_invisible(text)).casefold()
        matches = list(_WORD.finditer(text))
        self.words = [match[0] for match in matches]
        self.sizes = [1 if match[1] else 2 for match in matches]
        gaps = (text[left.end() : right.start()] for left, right in itertools.pairwise(matches))
        self.marked = [True, *(bool(gap.strip(" \t")) for gap in gaps), True]

    def runs(self) -> Iterator[tuple[str, ...]]:
        """Yields the shortest runs of words that have the size of a run, one from each word on."""
        end = size = 0
        for start, first in enumerate(self.sizes):
            while size < _RUN and end < len(self.words):
                size += self.sizes[end]
                end += 1
            if size < _RUN:
                return
            yield tuple(self.words[start:end])
            size -= first


class _Phrases:
    """Texts that are found where they stand whole in another text."""

    def __init__(self, texts: Iterable[_Words]):
        # The words of the texts, by their first two and by their number.
        self._by_start: dict[tuple[str, ...], dict[int, set[tuple[str, ...]]]] = {}
        self._equal: set[tuple[str, ...]] = set()
        for text in texts:
            words = tuple(text.words)
            self._equal.add(words)
            if sum(text.sizes) >= _BY_ITSELF:
                by_length = self._by_start.setdefault(words[:2], {})
                by_length.setdefault(len(words), set()).add(words)

    def found_in(self, text: _Words) -> Iterator[tuple[str, ...]]:
        """Yields the words of each of the texts that another text is, or has in it."""
        words = tuple(text.words)
        if words and words in self._equal:
            yield words
        for start in range(len(words) - 1):
            for length, phrases in self._by_start.get(words[start : start + 2], {}).items():
                end = start + length
                if words[start:end] in phrases and _is_whole(text, start, end):
                    yield words[start:end]


def _is_whole(text: _Words, start: int, end: int) -> bool:
    """Returns True for words that are long enough to be found anywhere, or that stand by themselves."""
    return sum(text.sizes[start:end]) >= _ANYWHERE or (text.marked[start] and text.marked[end])


def repeats(texts: Sequence[str], held_out: Iterable[str], threshold: float) -> list[bool]:
    """Returns True for texts that are, or nearly are, one of the held-out texts.

    Args:
      texts: the texts to check.
      held_out: the held-out texts.
      threshold: similarity from which two texts are near duplicates (see `NearDuplicates`).
    """
    known, equal = NearDuplicates(threshold), set()
    for text in held_out:
        equal.add(normal(text))
        known.add(text)
    return [normal(text) in equal or text in known for text in texts]


def contains(texts: Sequence[str], held_out: Sequence[str], threshold: float) -> list[bool]:
    """Returns True for texts that repeat a held-out text (see `repeats`), have it in them, or are in it."""
    found = repeats(texts, held_out, threshold)
    words, others = list(map(_Words, texts)), list(map(_Words, dict.fromkeys(held_out)))
    prompts, phrases = _Phrases(others), _Phrases(words)
    inside = {phrase for other in others for phrase in phrases.found_in(other)}
    return [
        near or tuple(text.words) in inside or any(True for _ in prompts.found_in(text))
        for near, text in zip(found, words, strict=True)
    ]


def overlaps(texts: Sequence[str], held_out: Sequence[str], threshold: float) -> list[bool]:
    """Returns True for texts that contain a held-out text (see `contains`), or 13 words in a row of one."""
    runs = {hash(run) for text in held_out for run in _Words(text).runs()}
    found = contains(texts, held_out, threshold)
    return [
        whole or any(hash(run) in runs for run in _Words(text).runs())
        for whole, text in zip(found, texts, strict=True)
    ]
