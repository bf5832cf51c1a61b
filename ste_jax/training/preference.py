"""Direct preference optimization (arXiv 2305.18290) with an added likelihood of the chosen judgment (arXiv
2404.19733): batches and loss.

The chosen and the rejected judgment of a prompt are in the same row, so that one device has both.
"""

from collections.abc import Mapping
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from ste_jax.records import PreferenceExample
from ste_jax.training.batch import Batches
from ste_jax.training.settings import TrainSettings

Array = jax.Array


class PreferenceBatches(Batches):
    """Batches of `PreferenceExample`s: a row's sequences are chosen, rejected, chosen, rejected, ..."""

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Returns the arrays of `Batches.batch` and those of up to Q pairs per row:

        target_sequence: int32 [batch_rows, R]: index in the row of the sequence that a target belongs to.
        reference: float32 [batch_rows, 2 Q]: log-probability of each sequence under the starting model.
        pair_weights: float32 [batch_rows, Q]: 1, or 0 where a row has fewer pairs.
        """
        arrays = super().batch(step)
        pairs = self.examples_per_row
        at = arrays["target_at"]
        sequence = np.take_along_axis(arrays["segments"], at, axis=1) - 1
        reference = np.zeros((len(at), 2 * pairs), np.float32)
        weights = np.zeros((len(at), pairs), np.float32)
        for index, row in enumerate(self.rows(step)):
            weights[index, : len(row)] = 1.0
            known = [value for e in row for value in cast(PreferenceExample, e).reference]
            reference[index, : len(known)] = known
        sequence = np.where(arrays["target_weights"] > 0.0, sequence, 0)
        return {**arrays, "target_sequence": sequence, "reference": reference, "pair_weights": weights}


def sequence_log_probs(losses: Array, batch: Mapping[str, Array]) -> Array:
    """Returns the log-probability of every sequence, float32 [B, 2 Q], from the target losses [B, R]."""
    member = jax.nn.one_hot(batch["target_sequence"], batch["reference"].shape[1], dtype=jnp.float32)
    return -jnp.einsum("BR,BRS->BS", losses, member)


def preference_loss(
    losses: Array, batch: Mapping[str, Array], settings: TrainSettings, pairs: Array, chosen_targets: Array
) -> Array:
    """Returns a batch's share of the mean of -log sigmoid(beta * margin) over pairs, plus `nll_scale` times
    the mean negative log-likelihood of the chosen sequences' tokens.

    The margin is the log-ratio of chosen and rejected sequence under the model minus that of the reference.

    Args:
      losses: float32 [B, R], negative log-probabilities of the targets, 0 where there is no target.
      batch: Arrays of `PreferenceBatches.batch`.
      settings: Settings with `beta` and `nll_scale`.
      pairs: float32 scalar, number of pairs of the whole step.
      chosen_targets: float32 scalar, number of target tokens of its chosen sequences.

    Returns:
      A float32 scalar.
    """
    gain = sequence_log_probs(losses, batch) - batch["reference"]
    margin = settings.beta * (gain[:, 0::2] - gain[:, 1::2])
    preference = jnp.sum(batch["pair_weights"] * jax.nn.softplus(-margin)) / pairs
    likelihood = jnp.sum(losses * is_chosen(batch)) / chosen_targets
    return preference + settings.nll_scale * likelihood


def is_chosen(batch: Mapping[str, Array]) -> Array:
    """Returns the weights of the targets of chosen sequences, float32 [B, R]."""
    return jnp.where(batch["target_sequence"] % 2 == 0, batch["target_weights"], 0.0)
