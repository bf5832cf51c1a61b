"""Finds instructions whose text is held out: prompts of labelled pairs and of benchmarks.

Ids do not tell: the same prompt has another id in every file.
"""

import re
from collections.abc import Iterable, Sequence

from ste_jax.instructions.near_duplicates import NearDuplicates, normal

# A run of so many words that occurs in a prompt of a benchmark is taken from it, as in the report of GPT-3.
_WORDS = 13


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


def overlaps(texts: Sequence[str], held_out: Sequence[str], threshold: float) -> list[bool]:
    """Returns True for texts that repeat a held-out text, or share a run of 13 words with one."""
    runs = {run for text in held_out for run in _runs(text)}
    found = repeats(texts, held_out, threshold)
    return [near or not runs.isdisjoint(_runs(text)) for near, text in zip(found, texts, strict=True)]


def _runs(text: str) -> list[int]:
    """Returns the hashes of all runs of words of a text."""
    words = re.findall(r"\w+", text.casefold())
    return [hash(tuple(words[start : start + _WORDS])) for start in range(len(words) - _WORDS + 1)]
