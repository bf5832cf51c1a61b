"""Kind `handicapped`: the beginning of a fitting answer against a long answer to another instruction.

The worse response is 1.5 to 4 times as long, on a similar subject, and whole. Only the instruction tells that
the short one is better.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from ste_jax.pairs.candidate import Answered, Candidate
from ste_jax.pairs.matching import neighbour_matches
from ste_jax.pairs.overlap import names_more
from ste_jax.pairs.ring import Ring
from ste_jax.pairs.wording import is_complete, sentences
from ste_jax.randomness import generator

KIND = "handicapped"
MIN_RATIO, MAX_RATIO = 1.5, 4.0
_MIN_WORDS = 4
# Further instructions tried for an answer that makes a misfit longer.
_TRIED = 20


@dataclasses.dataclass(frozen=True)
class _Option:
    fit: str
    misfit: str
    third: Answered | None


def handicapped(answers: Sequence[Answered], *, seed: int) -> list[Candidate]:
    """Returns a candidate for each matched instruction whose answer begins with sentences that fit.

    Sentences fit if they name more of what only their own instruction is about than the misfit does. If the
    whole misfit is too short, the answer to a third instruction is added to it.
    """
    matches = neighbour_matches(answers).pairs
    ring = Ring([answered for match in matches for answered in match], seed=seed, kind=KIND)
    ways = [way for left, right in matches for way in ((left, right), (right, left))]
    made = (_candidate(judged, other, ring, seed) for judged, other in ways)
    return [candidate for candidate in made if candidate]


def _candidate(judged: Answered, other: Answered, ring: Ring, seed: int) -> Candidate | None:
    third = ring.apart(judged, _TRIED, suits=lambda a: a.id != other.id)
    options = [
        option
        for option in _options(judged, other, third)
        if MIN_RATIO <= len(option.misfit) / len(option.fit) <= MAX_RATIO
        and names_more(judged, other, option.fit, option.misfit)
    ]
    if not options:
        return None
    option = options[generator(seed, KIND, judged.id).integers(len(options))]
    return Candidate(
        key=judged.id,
        sources=tuple(a.id for a in (judged, other, option.third) if a),
        instruction=judged.instruction,
        better=option.fit,
        worse=option.misfit,
        details={"ratio": round(len(option.misfit) / len(option.fit), 2)},
    )


def _options(judged: Answered, other: Answered, third: Answered | None) -> Iterator[_Option]:
    misfits: list[tuple[str, Answered | None]] = [(other.answer, None)]
    if third:
        misfits.append((f"{other.answer}\n\n{third.answer}", third))
    for fit, (misfit, added) in itertools.product(openings(judged.answer), misfits):
        yield _Option(fit, misfit, added)


def openings(answer: str) -> Iterator[str]:
    """Yields the first sentences of an answer, up to each sentence that is complete; none of code."""
    if "```" in answer:
        return
    for _, end in sentences(answer):
        opening = answer[:end]
        if not is_complete(opening):
            return
        if len(opening.split()) >= _MIN_WORDS:
            yield opening
