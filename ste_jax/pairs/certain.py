"""The kinds of pairs whose label is certain, by the name of their mode in `pairs.mode` (docs/PAIRS.md)."""

import dataclasses
from collections.abc import Callable, Sequence

from ste_jax.pairs.advantaged import advantaged
from ste_jax.pairs.candidate import Answered, Candidate
from ste_jax.pairs.composite import composite
from ste_jax.pairs.constraint import constraint
from ste_jax.pairs.crossed import crossed, random_crossed
from ste_jax.pairs.cut_off import cut_off
from ste_jax.pairs.garbled import garbled
from ste_jax.pairs.handicapped import handicapped
from ste_jax.pairs.neutral import neutral
from ste_jax.pairs.padded import padded
from ste_jax.pairs.predicates import HELD_OUT, TRAINED
from ste_jax.pairs.verified_arithmetic import arithmetic
from ste_jax.records import Part

Answers = Sequence[Answered]


def _constraint(answers: Answers, *, seed: int, part: Part) -> list[Candidate]:
    """Returns pairs by requirements; those of the test pairs are of types that training does not know."""
    return constraint(answers, seed=seed, types=HELD_OUT if part == "test" else TRAINED)


def _arithmetic(answers: Answers, *, seed: int, part: Part) -> list[Candidate]:
    """Returns as many problems as there are answers, other ones in each part."""
    parts: dict[Part, int] = {"train": 0, "validation": 1, "test": 2}
    problems = arithmetic(len(answers), seed=3 * seed + parts[part])
    # They are numbered from 0 in every part.
    names = [f"{part}-{problem.key}" for problem in problems]
    return [
        dataclasses.replace(problem, key=name, sources=(name,))
        for problem, name in zip(problems, names, strict=True)
    ]


def _alike(kind: Callable[..., list[Candidate]]) -> Callable[..., list[Candidate]]:
    """Returns a kind that is made in the same way in every part."""
    return lambda answers, *, seed, part: kind(answers, seed=seed)


# (answers, seed=, part=) -> candidates of a part of the instructions.
CERTAIN: dict[str, Callable[..., list[Candidate]]] = {
    "crossed": _alike(crossed),
    "random_crossed": _alike(random_crossed),
    "constraint": _constraint,
    "handicapped": _alike(handicapped),
    "advantaged": _alike(advantaged),
    "padded": _alike(padded),
    "cut_off": _alike(cut_off),
    "garbled": _alike(garbled),
    "neutral": _alike(neutral),
    "composite": _alike(composite),
    "arithmetic": _arithmetic,
}
# Kinds that compare two answers of the model to the same instruction.
OF_TWO_ANSWERS = frozenset(("constraint",))
# Kinds that match similar instructions, which needs the extra [select].
BY_SIMILARITY = frozenset(("nearest", "crossed", "handicapped", "advantaged"))
