"""Kind `padded`: an answer against the same answer with a useless end.

The end is off-topic, repeats the answer, or repeats the question. Nothing is gained by it, whatever the
answer is worth. With `cut_off`, one to one, the length of a response does not tell which one is better.
"""

from collections.abc import Sequence

import numpy as np

from ste_jax.pairs.candidate import Answered, Candidate
from ste_jax.pairs.ring import Ring
from ste_jax.pairs.usable import usable
from ste_jax.pairs.wording import sentences
from ste_jax.randomness import generator

KIND = "padded"
# Length of the end relative to the answer.
SHARES = (0.4, 1.6)
_TRIED = 20
_VARIANTS = ("off_topic", "question", "repeated")


def padded(answers: Sequence[Answered], *, seed: int) -> list[Candidate]:
    """Returns a candidate for each usable answer; the three kinds of ends are equally frequent draws.

    Where no other answer is off-topic, or the question is too long or too short for the drawn length, the
    answer is repeated instead.
    """
    kept = usable(answers)
    ring = Ring(kept, seed=seed, kind=KIND)
    return [_candidate(answered, ring, seed) for answered in kept]


def _candidate(answered: Answered, ring: Ring, seed: int) -> Candidate:
    random = generator(seed, KIND, answered.id)
    length = round(len(answered.answer) * random.uniform(*SHARES))
    variant = _VARIANTS[random.integers(len(_VARIANTS))]
    end = None
    if variant == "off_topic":
        end = _off_topic(answered, ring, length)
    elif variant == "question":
        end = _question(answered)
    if end is None:
        variant, end = "repeated", _repeated(answered, length, random)
    tail, sources = end
    return Candidate(
        key=answered.id,
        sources=(answered.id, *sources),
        instruction=answered.instruction,
        better=answered.answer,
        worse=f"{answered.answer}\n\n{tail}",
        details={"variant": variant},
    )


def _off_topic(answered: Answered, ring: Ring, length: int) -> tuple[str, tuple[str, ...]] | None:
    other = ring.apart(answered, _TRIED)
    return (_up_to(other.answer, length), (other.id,)) if other else None


def _question(answered: Answered) -> tuple[str, tuple[str, ...]] | None:
    share = len(answered.instruction) / len(answered.answer)
    return (answered.instruction, ()) if share <= SHARES[1] else None


def _repeated(answered: Answered, length: int, random: np.random.Generator) -> tuple[str, tuple[str, ...]]:
    """Returns sentences of the answer, from a random one on and from the first one again after the last."""
    text = answered.answer
    starts = [start for start, _ in sentences(text)]
    start = starts[random.integers(len(starts))]
    return _up_to(f"{text[start:]}\n{text[:start]}".strip(), length), ()


def _up_to(text: str, length: int) -> str:
    """Returns the first sentences of a text whose end is closest to `length`, at least one."""
    ends = [end for _, end in sentences(text)]
    return text[: min(ends, key=lambda end: abs(end - length))]
