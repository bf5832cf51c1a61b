"""Picks the subset of the instructions to train on: seeded, by quotas a category, hardest first.

The result depends on the records and the seed only, never on the order in which they come.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction

from ste_jax.randomness import key_data
from ste_jax.records import Instruction

UNLABELLED = "unlabelled"


@dataclasses.dataclass(frozen=True)
class Quota:
    """One category's share: what its weight asks for, what there is, what was taken."""

    category: str
    wanted: int
    available: int
    taken: int


@dataclasses.dataclass(frozen=True)
class Selection:
    """The chosen instructions in id order, how they came about, and how many are missing from the size."""

    instructions: tuple[Instruction, ...]
    quotas: tuple[Quota, ...]
    missing: int


def sample(
    instructions: Iterable[Instruction],
    size: int,
    quotas: Mapping[str, float],
    seed: int,
    *,
    min_complexity: int | None = None,
    prefer_complex: bool = True,
) -> Selection:
    """Chooses `size` instructions, or all that qualify where there are fewer.

    `size` is split over the categories by weight (largest remainder); what a category cannot fill goes to the
    others, by weight again. Instructions without a category are the bucket `unlabelled`, with its own weight.

    Args:
      instructions: with unique ids.
      size: how many to choose.
      quotas: category -> weight; categories that are not named are left out. Empty: balanced, that is,
        `unlabelled` keeps its share of the pool (nobody knows what is in it) and the categories present share
        the rest equally.
      seed: of the draw inside a category.
      min_complexity: leaves out what is easier, and what has no complexity. None: no bound.
      prefer_complex: takes the highest complexity first (unknown last), and draws only among equals.

    Raises:
      ValueError: `size` or a weight makes no sense, or nothing qualifies.
    """
    if size < 1:
        raise ValueError(f"sampler: size must be 1 or more, not {size}")
    pool: dict[str, list[Instruction]] = {}
    for instruction in instructions:
        if min_complexity is None or (instruction.complexity or 0) >= min_complexity:
            pool.setdefault(instruction.category or UNLABELLED, []).append(instruction)
    weights = _weights(quotas, pool)
    available = {category: len(pool.get(category, ())) for category in weights}
    if not any(available.values()):
        raise ValueError(
            f"sampler: no instruction is left of the categories {', '.join(weights) or '(none)'}"
            + (f" with complexity {min_complexity} or more" if min_complexity is not None else "")
            + "; give more instructions, other quotas or a lower min_complexity"
        )
    wanted, taken = _largest_remainder(size, weights), _fill(size, weights, available)
    chosen = [
        instruction
        for category, count in taken.items()
        for instruction in sorted(pool[category], key=lambda one: _rank(one, seed, prefer_complex))[:count]
    ]
    return Selection(
        instructions=tuple(sorted(chosen, key=lambda instruction: instruction.id)),
        quotas=tuple(Quota(name, wanted[name], available[name], taken.get(name, 0)) for name in weights),
        missing=size - len(chosen),
    )


def _weights(quotas: Mapping[str, float], pool: Mapping[str, list[Instruction]]) -> dict[str, Fraction]:
    """Returns the positive weights, by category name."""
    if not quotas:
        unlabelled = Fraction(len(pool.get(UNLABELLED, ())), max(1, sum(map(len, pool.values()))))
        labelled = [category for category in pool if category != UNLABELLED]
        weights = {category: (1 - unlabelled) / len(labelled) for category in labelled} | {
            UNLABELLED: unlabelled
        }
    else:
        for category, weight in quotas.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"sampler: the weight of {category!r} must be 0 or more, not {weight}")
        if not any(quotas.values()):
            raise ValueError(
                "sampler: all weights are 0; give one category a positive weight, or no quotas at all"
            )
        weights = {category: Fraction(weight) for category, weight in quotas.items()}
    return {category: weights[category] for category in sorted(weights) if weights[category] > 0}


def _largest_remainder(size: int, weights: Mapping[str, Fraction]) -> dict[str, int]:
    """Splits `size` by weight: whole parts first, then one each by size of the remainder (then by name)."""
    total = sum(weights.values())
    exact = {category: size * weight / total for category, weight in weights.items()}
    shares = {category: math.floor(share) for category, share in exact.items()}
    by_remainder = sorted(weights, key=lambda category: (shares[category] - exact[category], category))
    for category in by_remainder[: size - sum(shares.values())]:
        shares[category] += 1
    return shares


def _fill(size: int, weights: Mapping[str, Fraction], available: Mapping[str, int]) -> dict[str, int]:
    """Splits `size` by weight without asking more of a category than it has."""
    taken: dict[str, int] = {}
    left = {category: weight for category, weight in weights.items() if available[category]}
    while left:
        shares = _largest_remainder(size - sum(taken.values()), left)
        full = [category for category in left if shares[category] >= available[category]]
        if not full:
            return taken | shares
        for category in full:
            taken[category] = available[category]
            del left[category]
    return taken


def _rank(instruction: Instruction, seed: int, prefer_complex: bool) -> tuple[int, bytes, str]:
    complexity = (instruction.complexity or 0) if prefer_complex else 0
    return -complexity, key_data(seed, "sample", instruction.id, 0).tobytes(), instruction.id
