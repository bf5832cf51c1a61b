"""Attention over keys kept in several places, exact.

A decoding query sees four kinds of keys: the prompt's (one copy for all samples of a group), earlier chunks
of its own sample, the chunk being written, and itself. The softmax runs over all of them with one common
maximum and one common sum, in float32: it equals plain attention over the keys put together. Reading the
prompt's keys once for all samples of a group is Hydragen's and bifurcated attention's idea (arXiv 2402.05099,
2403.08845).
Axes: B groups, T samples of a group, K kv heads, G query heads per kv head, H head dim, S keys.
"""

import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
# Finite, so that a part with no visible key gives weights of zero instead of nan.
_HIDDEN = -1e30


class Part(NamedTuple):
    """Keys of one place, and which of them may be seen.

    `k` is [B, K, H, S], `v` [B, K, S, H] and `visible` bool [B, S] where all samples of a group share them;
    [B, K, T, H, S], [B, K, T, S, H] and [B, T, S] where they are the sample's own.
    """

    k: Array
    v: Array
    visible: Array

    @property
    def samples(self) -> str:
        """The axis of samples in the keys, as a subscript."""
        return "T" if self.k.ndim == 5 else ""

    def scores(self, q: Array) -> Array:
        """Returns float32 scores [B, K, T, G, S] of scaled queries [B, T, K, G, H]."""
        product = f"BTKGH,BK{self.samples}HS->BKTGS"
        scores = jnp.einsum(product, q, self.k, preferred_element_type=jnp.float32)
        return jnp.where(self._mask(), scores, _HIDDEN)

    def weights(self, scores: Array, maximum: Array) -> Array:
        """Returns the exponentials [B, K, T, G, S] under a maximum [B, K, T, G]; unseen keys weigh 0."""
        return jnp.where(self._mask(), jnp.exp(scores - maximum[..., None]), 0.0)

    def values(self, weights: Array) -> Array:
        """Returns the weighted sums of values, float32 [B, K, T, G, H]."""
        product = f"BKTGS,BK{self.samples}SH->BKTGH"
        return jnp.einsum(product, weights.astype(self.v.dtype), self.v).astype(jnp.float32)

    def _mask(self) -> Array:
        if self.samples:
            return self.visible[:, None, :, None, :]
        return self.visible[:, None, None, None, :]


def attend_parts(q: Array, parts: list[Part]) -> Array:
    """Returns attention of queries [B, T, K, G, H], scaled, over the keys of all parts; float32, same shape.

    Sums run over the parts one after the other, so that a part without visible keys changes no bit.
    """
    scores = [part.scores(q) for part in parts]
    maximum = functools.reduce(jnp.maximum, [jnp.max(s, axis=-1) for s in scores])
    weights = [part.weights(s, maximum) for part, s in zip(parts, scores, strict=True)]
    total = functools.reduce(operator.add, [jnp.sum(w, axis=-1) for w in weights])
    values = functools.reduce(operator.add, [p.values(w) for p, w in zip(parts, weights, strict=True)])
    return jnp.einsum("BKTGH->BTKGH", values / total[..., None])
