"""Causal attention over whole rows for training and prefill, with a custom backward pass."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from ste_jax.models.einsum import SAVED

Array = jax.Array
# Number of queries of a block. A larger block means fewer, larger products and more unused scores above the
# diagonal. Long rows are divided into four blocks, since the TPU compiler takes minutes for many blocks.
_BLOCK = 256
_multiply = partial(jnp.einsum, preferred_element_type=jnp.float32)


@jax.custom_vjp
def causal_attention(q: Array, k: Array, v: Array, segments: Array) -> Array:
    """Returns causal attention inside segments, [B, T, K, G, H] in the dtype of `q`.

    Scores and softmax are float32. A position attends to itself and the earlier positions of its segment.
    A block of queries reads only the keys up to the end of the block, which saves nearly half of the products
    of long rows. No array of [T, T] scores is stored: as in FlashAttention-2 (arXiv 2307.08691, section 3.1),
    the backward pass recomputes the weights from the scores and the log-sum-exp of each query.

    Args:
      q: Queries [B, T, K, G, H].
      k: Keys [B, T, K, H].
      v: Values [B, T, K, H].
      segments: int32 [B, T]; 0 is padding.
    """
    return _attend(q, k, v, segments)[0]


def _attend(q: Array, k: Array, v: Array, segments: Array) -> tuple[Array, Array]:
    """Returns the result of `causal_attention`, and the log-sum-exp of the scores, float32 [B, K, G, T]."""
    k, v = _by_head(k, v)
    outputs, sums = [], []
    for start, end in _blocks(q.shape[1]):
        scores = _multiply("BKGTH,BKSH->BKGTS", _rows(_scaled(q), start, end), k[:, :, :end])
        visible = _visible(segments[:, start:end], segments[:, :end], start)
        scores = jnp.where(visible[:, None, None], scores, -1e30)
        top = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - top)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        out = _multiply("BKGTS,BKSH->BKGTH", weights.astype(v.dtype), v[:, :, :end]) / total
        outputs.append(jnp.einsum("BKGTH->BTKGH", out.astype(q.dtype)))
        sums.append((top + jnp.log(total))[..., 0])
    return jnp.concatenate(outputs, axis=1), jnp.concatenate(sums, axis=-1)


def _forward(q: Array, k: Array, v: Array, segments: Array) -> tuple[Array, tuple[Array, ...]]:
    out, sums = (checkpoint_name(x, SAVED) for x in _attend(q, k, v, segments))
    return out, (q, k, v, segments, out, sums)


def _backward(residuals: tuple[Array, ...], d_out: Array) -> tuple[Array, Array, Array, None]:
    # Scores are laid out as [keys, queries], so that no product needs a transposed copy of them.
    q, k, v, segments, out, sums = residuals
    inner = _multiply("BTKGH,BTKGH->BKGT", d_out, out)
    kt = jnp.einsum("BSKH->BKHS", k)
    k, v = _by_head(k, v)
    dq, dk, dv = [], jnp.zeros_like(k, jnp.float32), jnp.zeros_like(v, jnp.float32)
    for start, end in _blocks(q.shape[1]):
        queries, d_rows = _rows(_scaled(q), start, end), _rows(d_out, start, end)
        scores = _multiply("BKSH,BKGTH->BKSGT", k[:, :, :end], queries)
        visible = _visible(segments[:, start:end], segments[:, :end], start).swapaxes(1, 2)
        scores = jnp.where(visible[:, None, :, None], scores, -1e30)
        weights = jnp.exp(scores - sums[:, :, None, :, start:end])
        d_weights = _multiply("BKSH,BKGTH->BKSGT", v[:, :, :end], d_rows)
        d_scores = (weights * (d_weights - inner[:, :, None, :, start:end])).astype(q.dtype)
        dv = _add_to_first(dv, _multiply("BKSGT,BKGTH->BKSH", weights.astype(q.dtype), d_rows))
        dk = _add_to_first(dk, _multiply("BKSGT,BKGTH->BKSH", d_scores, queries))
        rows = _multiply("BKHS,BKSGT->BKHGT", kt[..., :end], d_scores)
        dq.append(jnp.einsum("BKHGT->BTKGH", (rows * q.shape[-1] ** -0.5).astype(q.dtype)))
    dk, dv = (jnp.einsum("BKSH->BSKH", x).astype(k.dtype) for x in (dk, dv))
    return jnp.concatenate(dq, axis=1), dk, dv, None


causal_attention.defvjp(_forward, _backward)


def _add_to_first(total: Array, part: Array) -> Array:
    S = part.shape[2]
    return jnp.concatenate([total[:, :, :S] + part, total[:, :, S:]], axis=2)


def _blocks(T: int) -> list[tuple[int, int]]:
    """Returns the first and the end position of each block."""
    size = max(_BLOCK, T // 4)
    return [(start, min(start + size, T)) for start in range(0, T, size)]


def _by_head(*xs: Array) -> tuple[Array, ...]:
    # Without the barrier, XLA repeats these transposes in every block.
    return jax.lax.optimization_barrier(tuple(jnp.einsum("BSKH->BKSH", x) for x in xs))


def _rows(x: Array, start: int, end: int) -> Array:
    return jnp.einsum("BTKGH->BKGTH", x[:, start:end])


def _scaled(q: Array) -> Array:
    return (q.astype(jnp.float32) * q.shape[-1] ** -0.5).astype(q.dtype)


def _visible(queries: Array, keys: Array, start: int) -> Array:
    """Returns which keys each query of a block sees, bool [B, T, S], from the segments of both.

    Args:
      queries: Segments of the queries, int32 [B, T].
      keys: Segments of the keys, int32 [B, S].
      start: Position of the first query.
    """
    causal = jnp.arange(start, start + queries.shape[1])[:, None] >= jnp.arange(keys.shape[1])[None]
    return (queries[:, :, None] == keys[:, None, :]) & causal[None]
