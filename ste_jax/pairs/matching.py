"""Matchings: every instruction is in at most one match, so that no response is used more often than others.

`heaviest_matching` is greedy with local improvement. It takes the heaviest edges first, then replaces a match
by two edges to unmatched ends wherever that is heavier in sum. The first step guarantees half of the maximum
weight; on real neighbours the result is within a few per cent of it. It takes O(E log E) for E edges, and
O(E) for each of at most ten rounds of improvement, where an exact general matching takes O(V^3).
"""

import bisect
import collections
import dataclasses
import functools
from collections.abc import Iterable, Sequence

from ste_jax.pairs.candidate import Answered
from ste_jax.pairs.overlap import crossing_reason
from ste_jax.pairs.similarity import neighbours
from ste_jax.pairs.usable import split_usable
from ste_jax.randomness import generator

# Neighbours of an instruction that it may be matched with.
NEIGHBOURS = 10
_ROUNDS = 10
_RANK_BITS = 128

Edge = tuple[float, int, int]


@dataclasses.dataclass(frozen=True)
class Matches:
    """Matched instructions.

    Attributes:
      pairs: the matches, in the order of their ids.
      left_out: numbers of instructions that are not usable, by the reason of `flaw`; of pairs of neighbours
        or random pairs that could not be matched, by that of `crossing_reason`; and of usable instructions
        without a match, "unmatched".
    """

    pairs: list[tuple[Answered, Answered]]
    left_out: dict[str, int]


def neighbour_matches(answers: Iterable[Answered]) -> Matches:
    """Returns a matching of similar instructions that is heavy in the cosine of their tf-idf weights.

    One more instruction changes all weights a little and may change matches anywhere, though most remain.

    Raises:
      SteError: "extra_missing" if scikit-learn is not installed.
    """
    return _neighbour_matches(tuple(answers))


# Several kinds of pairs are made from the same answers, one after the other.
@functools.lru_cache(maxsize=1)
def _neighbour_matches(answers: tuple[Answered, ...]) -> Matches:
    kept, left_out = split_usable(answers)
    edges: list[Edge] = []
    seen: set[tuple[int, int]] = set()
    for index, found in enumerate(neighbours([a.instruction for a in kept], NEIGHBOURS)):
        for weight, other in found:
            pair = (min(index, other), max(index, other))
            if pair in seen:
                continue
            seen.add(pair)
            reason = crossing_reason(kept[pair[0]], kept[pair[1]])
            if reason:
                left_out[reason] += 1
            else:
                edges.append((round(weight, 6), *pair))
    matched = heaviest_matching(edges)
    return _matches([(kept[left], kept[right]) for left, right in matched], kept, left_out)


def random_matches(answers: Iterable[Answered], *, seed: int, kind: str) -> Matches:
    """Returns a random matching; one more instruction changes few matches."""
    kept, left_out = split_usable(answers)
    by_id = {answered.id: answered for answered in kept}
    pairs = []
    for left, right in random_pairs(list(by_id), seed=seed, kind=kind):
        reason = crossing_reason(by_id[left], by_id[right])
        if reason:
            left_out[reason] += 1
        else:
            pairs.append((by_id[left], by_id[right]))
    return _matches(pairs, kept, left_out)


def _matches(
    pairs: Sequence[tuple[Answered, Answered]],
    kept: Sequence[Answered],
    left_out: collections.Counter[str],
) -> Matches:
    ordered = sorted((sorted(pair, key=lambda a: a.id) for pair in pairs), key=lambda pair: pair[0].id)
    unmatched = len(kept) - 2 * len(ordered)
    counts = dict(sorted(left_out.items())) | ({"unmatched": unmatched} if unmatched else {})
    return Matches([(left, right) for left, right in ordered], counts)


def heaviest_matching(edges: Iterable[Edge]) -> list[tuple[int, int]]:
    """Returns edges without common ends whose sum of weights is nearly the maximum.

    Args:
      edges: (weight, end, other end), with positive weights.
    """
    partner: dict[int, int] = {}
    around: dict[int, list[tuple[float, int]]] = collections.defaultdict(list)
    for weight, left, right in sorted(edges, key=lambda edge: (-edge[0], *edge[1:])):
        around[left].append((weight, right))
        around[right].append((weight, left))
        if left not in partner and right not in partner:
            partner[left], partner[right] = right, left
    for _ in range(_ROUNDS):
        if not any([_split_if_heavier(left, partner, around) for left in sorted(partner)]):
            break
    return sorted((left, right) for left, right in partner.items() if left < right)


def _split_if_heavier(left: int, partner: dict[int, int], around: dict[int, list[tuple[float, int]]]) -> bool:
    """Replaces the match of `left` by two edges to unmatched ends and returns True, if they are heavier."""
    right = partner[left]
    # Two of each side suffice, since at most one end is common.
    for_left, for_right = ([e for e in around[end] if e[1] not in partner][:2] for end in (left, right))
    sums = [(a + b, i, j) for a, i in for_left for b, j in for_right if i != j]
    weight = next(w for w, end in around[left] if end == right)
    if not sums or max(sums)[0] <= weight:
        return False
    _, new_left, new_right = max(sums)
    partner.update({left: new_left, new_left: left, right: new_right, new_right: right})
    return True


def random_pairs(names: Iterable[str], *, seed: int, kind: str) -> list[tuple[str, str]]:
    """Returns a random matching of names; at most one of them is left over.

    Each name has a random number, and the numbers are the leaves of a binary tree. From the leaves upward,
    what is left over on both sides of a node is paired. So one more name changes only pairs on its way to the
    root.
    """
    ranked = sorted(
        (int.from_bytes(generator(seed, kind, name, "pairs").bytes(_RANK_BITS // 8), "big"), name)
        for name in names
    )
    pairs: list[tuple[str, str]] = []
    _settle(ranked, 1 << (_RANK_BITS - 1), pairs)
    return pairs


def _settle(ranked: list[tuple[int, str]], bit: int, pairs: list[tuple[str, str]]) -> str | None:
    """Pairs the names of a subtree, which differ in `bit` and lower bits; returns the one left over."""
    if len(ranked) < 2:
        return ranked[0][1] if ranked else None
    middle = bisect.bisect_left(ranked, 1, key=lambda entry: int(bool(entry[0] & bit)))
    sides = (_settle(side, bit >> 1, pairs) for side in (ranked[:middle], ranked[middle:]))
    left, right = sides
    if left is None or right is None:
        return right if left is None else left
    pairs.append((left, right))
    return None
