"""Kind `cut_off`: an answer against its beginning.

Whatever the answer is worth, its beginning leaves something out. With `padded`, one to one, the length of a
response does not tell which one is better: the two kinds make a candidate for the same instructions.
"""

from collections.abc import Sequence

import numpy as np

from ste_jax.pairs.candidate import Answered, Candidate
from ste_jax.pairs.usable import usable
from ste_jax.pairs.wording import beginning
from ste_jax.randomness import generator

KIND = "cut_off"
SHARES = (0.2, 0.6)
# Beginnings that hold nothing, which a judge that is used as a reward must not reward.
_BARE_SHARE, _OPENER_SHARE = 0.05, 0.05
_MAX_BARE = 0.05
_OPENERS = (
    "Sure, here is",
    "Sure! Here you go:",
    "Certainly!",
    "Of course. Here is what you asked for:",
    "Let me think about this step by step.",
    "Great question!",
    "Here is my answer:",
    "Thank you for your question.",
)


def cut_off(answers: Sequence[Answered], *, seed: int) -> list[Candidate]:
    """Returns a candidate for each usable answer.

    The worse response is the first 20 to 60% of the words in nine of ten cases; in one of twenty it is at
    most 5% of them, but at least one word, and in one of twenty an opener such as "Sure, here is".
    """
    made: list[Candidate] = []
    for answered in usable(answers):
        random = generator(seed, KIND, answered.id)
        variant, worse = _cut(answered.answer, random)
        made.append(
            Candidate(
                key=answered.id,
                sources=(answered.id,),
                instruction=answered.instruction,
                better=answered.answer,
                worse=worse,
                details={"variant": variant},
            )
        )
    return made


def _cut(answer: str, random: np.random.Generator) -> tuple[str, str]:
    drawn = random.random()
    if drawn < _OPENER_SHARE:
        openers = [opener for opener in _OPENERS if opener != answer]
        return "opener", openers[random.integers(len(openers))]
    if drawn < _OPENER_SHARE + _BARE_SHARE:
        return "bare", beginning(answer, random.uniform(0, _MAX_BARE))
    return "cut", beginning(answer, random.uniform(*SHARES))
