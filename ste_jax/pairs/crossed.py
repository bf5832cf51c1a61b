"""Kinds `crossed` and `random_crossed`: two instructions whose answers lose to each other's.

Each response wins once, under the instruction that it answers, and loses once, under the other. A judge that
does not read the instruction is therefore right in exactly half of the pairs, whatever it goes by.
"""

from collections.abc import Sequence

from ste_jax.pairs.candidate import Answered, Candidate
from ste_jax.pairs.matching import Matches, neighbour_matches, random_matches

RANDOM_CROSSED = "random_crossed"


def crossed(answers: Sequence[Answered], *, seed: int) -> list[Candidate]:
    """Returns two candidates for each match of similar instructions.

    Args:
      answers: instructions with their answers.
      seed: not used, since nothing is drawn; `neighbour_matches` tells what is left out.
    """
    del seed
    return _both_ways(neighbour_matches(answers))


def random_crossed(answers: Sequence[Answered], *, seed: int) -> list[Candidate]:
    """Returns two candidates for each match of two random instructions.

    `random_matches` with the kind `RANDOM_CROSSED` tells what is left out.
    """
    return _both_ways(random_matches(answers, seed=seed, kind=RANDOM_CROSSED))


def _both_ways(matches: Matches) -> list[Candidate]:
    ways = [way for left, right in matches.pairs for way in ((left, right), (right, left))]
    return [
        Candidate(
            key=fits.id,
            sources=(fits.id, other.id),
            instruction=fits.instruction,
            better=fits.answer,
            worse=other.answer,
        )
        for fits, other in ways
    ]
