"""Majority vote over the samples of one pair in one order.

Samples without a verdict do not vote. A tie is decided by a coin that belongs to the seed and the example,
so that an even number of votes is neither punished nor dependent on which label was counted first.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ste_jax.metrics.stats import WRONG, Policy, mean
from ste_jax.randomness import generator
from ste_jax.records import Label


class Example(NamedTuple):
    """One pair in one order: a unique key, the correct verdict, and the verdicts of its samples in order."""

    key: str
    label: Label
    verdicts: Sequence[Label | None]


def majority(labels: Sequence[Label | None], *, seed_key: tuple[int, str]) -> Label | None:
    """Returns the verdict of most samples, or None if none of them has one.

    Args:
      labels: the verdicts of the samples.
      seed_key: (seed, key of the example), from which a tie is decided.
    """
    votes = Counter(label for label in labels if label)
    if votes["A"] != votes["B"]:
        return "A" if votes["A"] > votes["B"] else "B"
    if not votes:
        return None
    seed, key = seed_key
    return "A" if generator(seed, "vote", key).random() < 0.5 else "B"


def vote_curve(examples: Sequence[Example], *, seed: int, policy: Policy = WRONG) -> list[float | None]:
    """Returns the accuracy of the vote over the first k samples, for k = 1 up to the number of samples.

    The policy says what a vote without any verdict is worth; None where no vote counts.

    Raises:
      ValueError: if there are no examples, or they differ in their number of samples.
    """
    counts = {len(example.verdicts) for example in examples}
    if len(counts) != 1:
        raise ValueError(
            f"vote curve: every example must have the same number of samples, found {sorted(counts)}; "
            "sample all N of every pair and order"
        )

    def score(example: Example, k: int) -> float:
        vote = majority(example.verdicts[:k], seed_key=(seed, example.key))
        return policy.silent if vote is None else float(vote == example.label)

    return [mean(np.array([score(e, k) for e in examples])) for k in range(1, counts.pop() + 1)]
