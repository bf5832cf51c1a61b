"""Attention over keys kept in several places, merged exactly.

A decoding query sees four kinds of keys: the prompt's (one copy for all samples of a group), finished chunks
of its own sample, the chunk being written, and itself. Each gives a partial result (running maximum, sum,
weighted values); the merge is the usual rescaling by the maximum, in float32, and equals plain attention
over all keys.
Axes: B groups, T samples of a group, K kv heads, G query heads per kv head, H head dim, S keys.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
# Finite, so that a part with no visible key gives weights of zero instead of nan.
_HIDDEN = -1e30


class Partial(NamedTuple):
    """Attention over some of the keys: maximum and sum of exponentials [B,K,T,G], unnormalised values
    [B,K,T,G,H].
    """

    maximum: Array
    total: Array
    values: Array


def _partial(scores: Array, visible: Array, weigh) -> Partial:
    scores = jnp.where(visible, scores, _HIDDEN)
    maximum = jnp.max(scores, axis=-1)
    weights = jnp.where(visible, jnp.exp(scores - maximum[..., None]), 0.0)
    return Partial(maximum, jnp.sum(weights, axis=-1), weigh(weights).astype(jnp.float32))


def shared_partial(q: Array, k: Array, v: Array, visible: Array) -> Partial:
    """Attends to keys that all samples of a group share.

    Args:
      q: scaled queries [B, T, K, G, H].
      k: [B, K, H, S] (keys last: the product runs along memory).
      v: [B, K, S, H].
      visible: bool [B, S].
    """
    scores = jnp.einsum("BTKGH,BKHS->BKTGS", q, k, preferred_element_type=jnp.float32)
    mask = visible[:, None, None, None, :]
    return _partial(scores, mask, lambda w: jnp.einsum("BKTGS,BKSH->BKTGH", w.astype(v.dtype), v))


def own_partial(q: Array, k: Array, v: Array, visible: Array) -> Partial:
    """Attends to keys of the sample's own: k [B, T, K, H, S], v [B, T, K, S, H], visible bool [B, T, S]."""
    scores = jnp.einsum("BTKGH,BTKHS->BKTGS", q, k, preferred_element_type=jnp.float32)
    mask = visible[:, None, :, None, :]
    return _partial(scores, mask, lambda w: jnp.einsum("BKTGS,BTKSH->BKTGH", w.astype(v.dtype), v))


def merge(parts: list[Partial], dtype: str) -> Array:
    """Returns attention over the keys of all parts: [B, T, K, G, H] in `dtype`.

    Parts are added one after the other, so that a part without visible keys changes no bit of the result.
    """
    maximum, total, values = parts[0]
    for part in parts[1:]:
        highest = jnp.maximum(maximum, part.maximum)
        old, new = jnp.exp(maximum - highest), jnp.exp(part.maximum - highest)
        total = total * old + part.total * new
        values = values * old[..., None] + part.values * new[..., None]
        maximum = highest
    return jnp.einsum("BKTGH->BTKGH", values / total[..., None]).astype(dtype)
