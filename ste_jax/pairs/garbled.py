"""Kind `garbled`: an answer against a damaged copy of the same length.

Four kinds of damage: a clause of another answer in place of one of its own, sentences or numbered steps out
of order, words left out and others doubled, and a noun of the instruction exchanged. The lengths differ by at
most one twentieth, so that only reading finds the fault.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ste_jax.pairs.candidate import Answered, Candidate
from ste_jax.pairs.damage import dropped_and_doubled, out_of_order, swapped_clause, swapped_noun
from ste_jax.pairs.ring import Ring
from ste_jax.pairs.usable import usable
from ste_jax.randomness import generator

KIND = "garbled"
MAX_DIFFERENCE = 0.05
# Other instructions that words and clauses are taken from.
_DONORS = 12
Damaged = tuple[str, tuple[str, ...]]
_Damage = Callable[[Answered, Sequence[Answered], np.random.Generator], Damaged | None]


def _words(answered: Answered, _: Sequence[Answered], random: np.random.Generator) -> Damaged | None:
    text = dropped_and_doubled(answered.answer, random)
    return (text, ()) if text else None


def _order(answered: Answered, _: Sequence[Answered], random: np.random.Generator) -> Damaged | None:
    text = out_of_order(answered.answer, random)
    return (text, ()) if text else None


# The rarest first.
_DAMAGES: dict[str, _Damage] = {
    "order": _order,
    "noun": swapped_noun,
    "clause": swapped_clause,
    "words": _words,
}


def garbled(answers: Sequence[Answered], *, seed: int) -> list[Candidate]:
    """Returns a candidate for each usable answer that can be damaged.

    The kinds of damage are equally frequent draws. Where the drawn one is not possible, the others are tried
    from the rarest to the most common, which keeps their shares as equal as the answers allow.
    """
    kept = usable(answers)
    ring = Ring(kept, seed=seed, kind=KIND)
    made = (_candidate(answered, list(ring.after(answered, _DONORS)), seed) for answered in kept)
    return [candidate for candidate in made if candidate]


def _candidate(answered: Answered, donors: Sequence[Answered], seed: int) -> Candidate | None:
    random = generator(seed, KIND, answered.id)
    drawn = list(_DAMAGES)[random.integers(len(_DAMAGES))]
    for variant in dict.fromkeys((drawn, *_DAMAGES)):
        damaged = _DAMAGES[variant](answered, donors, random)
        if damaged and _is_near(damaged[0], answered.answer):
            return Candidate(
                key=answered.id,
                sources=(answered.id, *damaged[1]),
                instruction=answered.instruction,
                better=answered.answer,
                worse=damaged[0],
                details={"variant": variant},
            )
    return None


def _is_near(damaged: str, answer: str) -> bool:
    return damaged != answer and abs(len(damaged) - len(answer)) <= MAX_DIFFERENCE * len(answer)
