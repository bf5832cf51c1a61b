"""Causal attention over whole rows, for training and prefill, with a backward pass of its own."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from ste_jax.models.product import PRODUCT

Array = jax.Array
# Queries of a block. More of them means fewer, larger products, and more scores above the diagonal in vain.
# Of a long row a block is a quarter: the TPU compiler takes minutes over a program of many blocks.
_BLOCK = 256
_multiply = partial(jnp.einsum, preferred_element_type=jnp.float32)


@jax.custom_vjp
def causal_attention(q: Array, k: Array, v: Array, segments: Array) -> Array:
    """Causal attention inside segments: q [B,T,K,G,H], k and v [B,T,K,H], segments int32 [B,T] ->
    [B,T,K,G,H].

    Scores and softmax are float32. A position sees the earlier ones of its own segment; segment 0 is padding.
    A block of queries reads only the keys up to its own end, which saves nearly half of the products of long
    rows. No array of [T, T] scores is kept: as in FlashAttention-2 (arXiv 2307.08691, section 3.1) the
    backward pass makes the weights again from the scores and the logarithm of each query's sum.
    """
    return _attend(q, k, v, segments)[0]


def _attend(q: Array, k: Array, v: Array, segments: Array) -> tuple[Array, Array]:
    """Returns what `causal_attention` does, and the log-sum-exp of the scores, float32 [B,K,G,T]."""
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
    out, sums = (checkpoint_name(x, PRODUCT) for x in _attend(q, k, v, segments))
    return out, (q, k, v, segments, out, sums)


def _backward(kept: tuple[Array, ...], d_out: Array) -> tuple[Array, Array, Array, None]:
    """Scores lie as [keys, queries] here: so no product needs a transposed copy of them."""
    q, k, v, segments, out, sums = kept
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
    """Returns the first position of each block and the one after its last."""
    size = max(_BLOCK, T // 4)
    return [(start, min(start + size, T)) for start in range(0, T, size)]


def _by_head(*xs: Array) -> tuple[Array, ...]:
    # Without the barrier XLA would redo these transposes in every block.
    return jax.lax.optimization_barrier(tuple(jnp.einsum("BSKH->BKSH", x) for x in xs))


def _rows(x: Array, start: int, end: int) -> Array:
    return jnp.einsum("BTKGH->BKGTH", x[:, start:end])


def _scaled(q: Array) -> Array:
    return (q.astype(jnp.float32) * q.shape[-1] ** -0.5).astype(q.dtype)


def _visible(queries: Array, keys: Array, start: int) -> Array:
    """Returns which keys [B,T,S] the queries at positions start.. see, of the segments of both."""
    causal = jnp.arange(start, start + queries.shape[1])[:, None] >= jnp.arange(keys.shape[1])[None]
    return (queries[:, :, None] == keys[:, None, :]) & causal[None]
