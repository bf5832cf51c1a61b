"""Samples the instructions to train on, by a quota per category and the hardest first.

The result is a function of the records and the seed, not of the order of the records.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from fractions import Fraction

from ste_jax.errors import SteError
from ste_jax.randomness import key_data
from ste_jax.records import Instruction

UNLABELLED = "unlabelled"


@dataclasses.dataclass(frozen=True)
class Quota:
    """Numbers of instructions of a category: by its weight, available, and taken."""

    category: str
    wanted: int
    available: int
    taken: int


@dataclasses.dataclass(frozen=True)
class Selection:
    """The sampled instructions, sorted by id, the quotas, and how many fewer than the size there are."""

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
    """Returns `size` instructions, or all that qualify if there are fewer.

    `size` is divided over the categories by weight (largest remainder). What a category cannot fill goes to
    the others, again by weight. Instructions without a category form the category `unlabelled`.

    Args:
      instructions: instructions with unique ids.
      size: number of instructions to sample.
      quotas: weights by category; categories without a weight are left out. If empty, `unlabelled` keeps its
        share of the pool, since its contents are unknown, and all categories share the rest equally.
      seed: seed of the draw inside a category.
      min_complexity: minimum complexity; instructions without a complexity do not reach it. None: no minimum.
      prefer_complex: takes instructions of higher complexity first, those without a complexity last.

    Raises:
      SteError: "config_invalid" if `size` or a weight is out of range, "data_invalid" if nothing qualifies.
    """
    if size < 1:
        raise SteError("config_invalid", f"select.size must be 1 or more, not {size}")
    pool: dict[str, list[Instruction]] = {}
    for instruction in instructions:
        if min_complexity is None or (instruction.complexity or 0) >= min_complexity:
            pool.setdefault(instruction.category or UNLABELLED, []).append(instruction)
    weights = _weights(quotas, pool)
    available = {category: len(pool.get(category, ())) for category in weights}
    if not any(available.values()):
        bound = f" with complexity {min_complexity} or more" if min_complexity is not None else ""
        raise SteError(
            "data_invalid",
            f"select: no instruction is left in the categories {', '.join(weights) or '(none)'}{bound}; add "
            "instructions, change select.quotas or lower select.min_complexity",
        )
    wanted, taken = _largest_remainder(size, weights), _fill(size, weights, available)
    chosen = [
        instruction
        for category, count in taken.items()
        for instruction in sorted(pool[category], key=lambda i: _rank(i, seed, prefer_complex))[:count]
    ]
    return Selection(
        instructions=tuple(sorted(chosen, key=lambda instruction: instruction.id)),
        quotas=tuple(Quota(name, wanted[name], available[name], taken.get(name, 0)) for name in weights),
        missing=size - len(chosen),
    )


def _weights(quotas: Mapping[str, float], pool: Mapping[str, list[Instruction]]) -> dict[str, Fraction]:
    """Returns the positive weights, sorted by category."""
    if not quotas:
        unlabelled = Fraction(len(pool.get(UNLABELLED, ())), max(1, sum(map(len, pool.values()))))
        labelled = [category for category in pool if category != UNLABELLED]
        weights = {category: (1 - unlabelled) / len(labelled) for category in labelled} | {
            UNLABELLED: unlabelled
        }
    else:
        for category, weight in quotas.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise SteError(
                    "config_invalid",
                    f"select.quotas: the weight of {category!r} must be 0 or more, not {weight}",
                )
        if not any(quotas.values()):
            raise SteError("config_invalid", "select.quotas: at least one weight must be positive")
        weights = {category: Fraction(weight) for category, weight in quotas.items()}
    return {category: weights[category] for category in sorted(weights) if weights[category] > 0}


def _largest_remainder(size: int, weights: Mapping[str, Fraction]) -> dict[str, int]:
    """Divides `size` by weight: whole shares first, then one each in order of the remainder, then by name."""
    total = sum(weights.values())
    exact = {category: size * weight / total for category, weight in weights.items()}
    shares = {category: math.floor(share) for category, share in exact.items()}
    by_remainder = sorted(weights, key=lambda category: (shares[category] - exact[category], category))
    for category in by_remainder[: size - sum(shares.values())]:
        shares[category] += 1
    return shares


def _fill(size: int, weights: Mapping[str, Fraction], available: Mapping[str, int]) -> dict[str, int]:
    """Divides `size` by weight, limited by what is available in each category."""
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
