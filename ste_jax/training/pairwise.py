"""Training on the decision between two responses: batches and loss.

A judge without reasoning decides by the log-odds of the letters A and B at the verdict. With l1 the log-odds
of a pair as given and l2 those of the exchanged pair, the decision is d = (l1 - l2) / 2, which changes its
sign when the responses are exchanged, and the lean, which it cancels, is (l1 + l2) / 2. Both orders of a pair
are in the same row, so that one device has both.
"""

from collections.abc import Mapping
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from ste_jax.records import PairwiseExample
from ste_jax.training.batch import Batches
from ste_jax.training.settings import TrainSettings

Array = jax.Array
# Number of targets of a pair: A and B as given, A and B exchanged.
TARGETS = 4


class PairwiseBatches(Batches):
    """Batches of `PairwiseExample`s: a row's sequences are a pair as given, exchanged, the next pair, ..."""

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Returns the arrays of `Batches.batch` and those of up to Q pairs per row:

        probability_a: float32 [batch_rows, Q]: wanted probability that response A is better.
        is_certain: float32 [batch_rows, Q]: 1 if the label is certain, else 0.
        pair_weights: float32 [batch_rows, Q]: 1, or 0 where a row has fewer pairs.
        """
        arrays = super().batch(step)
        # The letters are two answers to the same question: both are predicted where the first one is.
        at = arrays["target_at"]
        at[:, 1::2] = at[:, : at.shape[1] // 2 * 2 : 2]
        names = ("probability_a", "is_certain", "pair_weights")
        extra = {name: np.zeros((len(at), self.examples_per_row), np.float32) for name in names}
        for index, row in enumerate(self.rows(step)):
            for column, example in enumerate(cast(list[PairwiseExample], row)):
                extra["probability_a"][index, column] = example.probability_a
                extra["is_certain"][index, column] = example.is_certain
                extra["pair_weights"][index, column] = 1.0
        return arrays | extra


class Decisions(NamedTuple):
    """Decisions of the pairs of a batch, float32 [B, Q] each.

    Attributes:
      log_odds: log-odds that response A is better.
      lean: log-odds of the letter A that remain when both orders are averaged.
    """

    log_odds: Array
    lean: Array


def decisions(losses: Array, pairs: int) -> Decisions:
    """Returns the decisions of up to `pairs` pairs per row from the target losses, float32 [B, R]."""
    # The loss of a letter is its negative log-probability; what all letters share cancels.
    of = [losses[:, offset : TARGETS * pairs : TARGETS] for offset in range(TARGETS)]
    as_given, exchanged = of[1] - of[0], of[3] - of[2]
    return Decisions((as_given - exchanged) / 2.0, (as_given + exchanged) / 2.0)


def pairwise_loss(losses: Array, batch: Mapping[str, Array], settings: TrainSettings, pairs: Array) -> Array:
    """Returns a batch's share of the mean loss over pairs.

    The loss of a pair is the cross-entropy c of its decision d: softplus(-d) if response A is better,
    softplus(d) if B is, their mean for a tie. For labels that are not certain it is the generalized
    cross-entropy (1 - exp(-q c)) / q with q = `settings.noise_exponent` (arXiv 1805.07836), whose gradient
    fades where the model contradicts the label. `settings.lean_penalty` times the squared lean is added.

    Args:
      losses: float32 [B, R], negative log-probabilities of the targets.
      batch: Arrays of `PairwiseBatches.batch`.
      settings: Settings with `noise_exponent` and `lean_penalty`.
      pairs: float32 scalar, number of pairs of the whole step.

    Returns:
      A float32 scalar.
    """
    log_odds, lean = decisions(losses, batch["pair_weights"].shape[1])
    wanted, exponent = batch["probability_a"], settings.noise_exponent
    loss = wanted * jax.nn.softplus(-log_odds) + (1.0 - wanted) * jax.nn.softplus(log_odds)
    if exponent > 0.0:
        robust = -jnp.expm1(-exponent * loss) / exponent
        loss = jnp.where(batch["is_certain"] > 0.0, loss, robust)
    loss += settings.lean_penalty * jnp.square(lean)
    return jnp.sum(batch["pair_weights"] * loss) / pairs
