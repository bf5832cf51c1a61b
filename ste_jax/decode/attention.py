"""Exact attention over keys that are stored in several segments.

A decoding query attends to three kinds of keys: those of its prompt (one copy shared by all samples of the
prompt), those of the tokens that its sample has generated, and its own. The softmax runs over all of them
with one common maximum and one common sum in float32, so the result equals attention over the concatenated
keys. Reading the keys of a prompt once for all samples is the idea of Hydragen and of bifurcated attention
(arXiv 2402.05099, 2403.08845).
Axes: B slots, M prompts of a slot, T samples of a slot, K kv heads, G query heads per kv head, H head dim,
S keys of a segment.
"""

import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
# Finite, so that a segment without a visible key has weights of zero instead of NaN.
_HIDDEN = -1e30


class KVSegment(NamedTuple):
    """Keys and values of a segment, and which of them each sample sees.

    Attributes:
      k: Keys of prompts [B, M, K, H, S], or of generated tokens [B, K, T, H, S] if `is_suffix`.
      v: Values of prompts [B, M, K, S, H], or of generated tokens [B, K, T, S, H] if `is_suffix`.
      visible: bool [B, M, T, S], or [B, 1, T, S] if `is_suffix`.
      is_suffix: True for tokens that samples generated, of which each sample has its own.
    """

    k: Array
    v: Array
    visible: Array
    is_suffix: bool = False

    def scores(self, q: Array) -> Array:
        """Returns float32 scores [B, M, K, T, G, S] of scaled queries [B, T, K, G, H]; M is 1 of a suffix."""
        if self.is_suffix:
            spec, q = "BTKGH,BKTHS->BKTGS", q
        else:
            # M is a batch axis of both operands: as a free axis of the keys, XLA would transpose them.
            spec, q = "BMTKGH,BMKHS->BMKTGS", jnp.repeat(q[:, None], self.k.shape[1], axis=1)
        scores = jnp.einsum(spec, q, self.k, preferred_element_type=jnp.float32)
        return jnp.where(self._mask(), scores[:, None] if self.is_suffix else scores, _HIDDEN)

    def weights(self, scores: Array, maximum: Array) -> Array:
        """Returns the exponentials of scores, float32 [B, M, K, T, G, S]; hidden keys have weight 0.

        Args:
          scores: float32 [B, M, K, T, G, S].
          maximum: float32 [B, K, T, G], subtracted from the scores.
        """
        return jnp.where(self._mask(), jnp.exp(scores - maximum[:, None, ..., None]), 0.0)

    def values(self, weights: Array) -> Array:
        """Returns sums of values, float32 [B, K, T, G, H], under weights [B, M, K, T, G, S]."""
        weights = weights.astype(self.v.dtype)
        if self.is_suffix:
            return jnp.einsum("BKTGS,BKTSH->BKTGH", weights[:, 0], self.v).astype(jnp.float32)
        return jnp.sum(jnp.einsum("BMKTGS,BMKSH->BMKTGH", weights, self.v).astype(jnp.float32), axis=1)

    def _mask(self) -> Array:
        return self.visible[:, :, None, :, None, :]


def attend_segments(q: Array, segments: list[KVSegment]) -> Array:
    """Returns the attention of queries over the keys of all segments, float32 [B, T, K, G, H].

    Sums run over the segments one after the other, so that a segment without visible keys changes no bit.

    Args:
      q: Scaled queries [B, T, K, G, H].
      segments: At least one in which every query sees a key.
    """
    scores = [segment.scores(q) for segment in segments]
    maximum = functools.reduce(jnp.maximum, [jnp.max(s, axis=(1, -1)) for s in scores])
    weights = [segment.weights(s, maximum) for segment, s in zip(segments, scores, strict=True)]
    total = functools.reduce(operator.add, [jnp.sum(w, axis=(1, -1)) for w in weights])
    values = [segment.values(w) for segment, w in zip(segments, weights, strict=True)]
    return jnp.einsum("BKTGH->BTKGH", functools.reduce(operator.add, values) / total[..., None])
