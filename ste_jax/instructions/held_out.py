"""Finds instructions whose text is held out: prompts of labelled pairs and of benchmarks.

Ids do not tell: the same prompt has another id in every file. Texts are compared as words: neither case,
punctuation nor compatibility forms (full-width letters) count. Where a script puts no blanks between words
(Chinese, Japanese, Thai and others), each character counts as half a word.
"""

import itertools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from ste_jax.instructions.near_duplicates import NearDuplicates, normal

# Sizes in half words. A run of 13 words that occurs in a prompt of a benchmark is taken from it, as in the
# report of GPT-3.
_RUN = 2 * 13
# A whole prompt of five words or more is found anywhere, one of two words only where it stands by itself:
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
        text = unicodedata.normalize("NFKC", text).casefold()
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


class _Prompts:
    """Prompts that are found where they stand whole in another text."""

    def __init__(self, prompts: Iterable[str]):
        # Prompts by their first two words, with the smallest size at which they are found.
        self._by_start: dict[tuple[str, ...], list[_Words]] = defaultdict(list)
        self._equal: set[tuple[str, ...]] = set()
        for prompt in map(_Words, set(prompts)):
            self._equal.add(tuple(prompt.words))
            if sum(prompt.sizes) >= _BY_ITSELF:
                self._by_start[tuple(prompt.words[:2])].append(prompt)

    def are_in(self, text: _Words) -> bool:
        """Returns True if a text has one of the prompts in it, or is one."""
        if text.words and tuple(text.words) in self._equal:
            return True
        return any(
            self._is_at(start, prompt, text)
            for start in range(len(text.words) - 1)
            for prompt in self._by_start.get(tuple(text.words[start : start + 2]), ())
        )

    @staticmethod
    def _is_at(start: int, prompt: _Words, text: _Words) -> bool:
        end = start + len(prompt.words)
        if text.words[start:end] != prompt.words:
            return False
        return sum(prompt.sizes) >= _ANYWHERE or (text.marked[start] and text.marked[end])


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
    """Returns True for texts that repeat a held-out text (see `repeats`) or have the whole of it in them."""
    prompts, found = _Prompts(held_out), repeats(texts, held_out, threshold)
    return [near or prompts.are_in(_Words(text)) for near, text in zip(found, texts, strict=True)]


def overlaps(texts: Sequence[str], held_out: Sequence[str], threshold: float) -> list[bool]:
    """Returns True for texts that contain a held-out text (see `contains`), or 13 words in a row of one."""
    runs = {hash(run) for text in held_out for run in _Words(text).runs()}
    found = contains(texts, held_out, threshold)
    return [
        whole or any(hash(run) in runs for run in _Words(text).runs())
        for whole, text in zip(found, texts, strict=True)
    ]
