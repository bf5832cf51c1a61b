"""Majority vote over the samples of one comparison in one order.

Samples without a verdict do not vote. A tie is decided by a draw that belongs to the seed and the example,
so that an even number of votes is neither penalized nor dependent on which label was counted first.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ste_jax.errors import SteError
from ste_jax.metrics.policy import WRONG, Policy
from ste_jax.metrics.stats import mean
from ste_jax.randomness import generator
from ste_jax.records import Label


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


def vote_curve(
    labels: Mapping[str, Label],
    verdicts: Mapping[str, Sequence[Label | None]],
    *,
    seed: int,
    policy: Policy = WRONG,
) -> list[float | None]:
    """Returns the accuracy of the vote over the first k samples, for k = 1 up to the number of samples.

    Args:
      labels: correct verdict by example, a comparison in one order.
      verdicts: verdicts of the samples of the same examples, in order.
      seed: seed of the draw between equally frequent verdicts.
      policy: score of a vote without any verdict; a value is None where no vote counts.

    Raises:
      SteError: there are no examples, or they differ in their number of samples ("samples_differ").
    """
    counts = {len(samples) for samples in verdicts.values()}
    if len(counts) != 1:
        raise SteError(
            "samples_differ",
            f"vote curve: every example must have the same number of samples, found {sorted(counts)}; "
            "sample all N of every comparison and order",
        )

    def score(key: str, k: int) -> float:
        vote = majority(verdicts[key][:k], seed_key=(seed, key))
        return policy.unparsed_score if vote is None else float(vote == labels[key])

    return [mean(np.array([score(key, k) for key in verdicts])) for k in range(1, counts.pop() + 1)]
