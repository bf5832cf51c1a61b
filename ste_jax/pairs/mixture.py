"""Mixtures of kinds of pairs with given shares."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeVar

from ste_jax.pairs.kinds import UNCERTAIN
from ste_jax.randomness import generator
from ste_jax.records import Comparison

Kind = TypeVar("Kind", bound=str)
# Key of `Comparison.metadata` with the ids of the instructions that a pair was made from.
SOURCES = "sources"


def mixed(
    pairs: Mapping[Kind, Sequence[Comparison]], shares: Mapping[Kind, float], seed: int
) -> list[Comparison]:
    """Returns as many pairs of each kind as the shares and the scarcest kind allow.

    Pairs that belong together, such as both directions of crossed answers, are drawn together. Of kinds with
    uncertain labels, as many pairs are drawn whose better response is the longer one as other ones, so that
    their labels do not follow the length.

    Args:
      pairs: pairs by kind.
      shares: share of each kind, above 0; their sum does not matter.
      seed: seed of the draws, each of which also depends on the ids of the instructions.
    """
    groups = {kind: _groups(kind, pairs[kind], seed) for kind in shares}
    counts = {kind: sum(map(len, found)) for kind, found in groups.items()}
    total = min(counts[kind] / share for kind, share in shares.items())
    made: list[Comparison] = []
    for kind, found in groups.items():
        room = round(total * shares[kind])
        for group in found:
            if len(group) <= room:
                made += group
                room -= len(group)
    return made


def _groups(kind: str, pairs: Sequence[Comparison], seed: int) -> list[list[Comparison]]:
    """Returns the pairs of a kind in groups that belong together, in the order of their draw."""
    by_sources: dict[str, list[Comparison]] = defaultdict(list)
    for pair in pairs:
        by_sources["\x1f".join(sorted(pair.metadata.get(SOURCES) or [pair.id]))].append(pair)
    order = sorted(by_sources, key=lambda key: (generator(seed, "mixture", kind, key).random(), key))
    groups = [by_sources[key] for key in order]
    return _balanced(groups) if kind in UNCERTAIN else groups


def _balanced(groups: Sequence[list[Comparison]]) -> list[list[Comparison]]:
    """Returns groups of two pairs: in the first the better response is the longer one, in the second not."""
    pairs = [pair for group in groups for pair in group]
    longer = [pair for pair in pairs if len(pair.chosen) > len(pair.rejected)]
    shorter = [pair for pair in pairs if len(pair.chosen) < len(pair.rejected)]
    return [[one, other] for one, other in zip(longer, shorter, strict=False)]
