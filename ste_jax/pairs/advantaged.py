"""Kind `advantaged`: a fitting answer against the beginning of an answer to another instruction.

The mirror image of `handicapped`: here the better response is 1.5 to 4 times as long. Mixed one to one,
length does not tell which response fits.
"""

from collections.abc import Sequence

from ste_jax.pairs.candidate import Answered, Candidate
from ste_jax.pairs.handicapped import MAX_RATIO, MIN_RATIO, openings
from ste_jax.pairs.matching import neighbour_matches
from ste_jax.randomness import generator

KIND = "advantaged"


def advantaged(answers: Sequence[Answered], *, seed: int) -> list[Candidate]:
    """Returns the answer to each matched instruction against first sentences of the other answer."""
    matches = neighbour_matches(answers).pairs
    ways = [way for left, right in matches for way in ((left, right), (right, left))]
    made = (_candidate(judged, other, seed) for judged, other in ways)
    return [candidate for candidate in made if candidate]


def _candidate(judged: Answered, other: Answered, seed: int) -> Candidate | None:
    options = [
        opening
        for opening in openings(other.answer)
        if MIN_RATIO <= len(judged.answer) / len(opening) <= MAX_RATIO
    ]
    if not options:
        return None
    misfit = options[generator(seed, KIND, judged.id).integers(len(options))]
    return Candidate(
        key=judged.id,
        sources=(judged.id, other.id),
        instruction=judged.instruction,
        better=judged.answer,
        worse=misfit,
        details={"ratio": round(len(misfit) / len(judged.answer), 2)},
    )
