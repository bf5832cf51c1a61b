"""Cross-entropy on the target tokens, without an array of [all tokens, vocabulary].

Only the hidden states that predict a target are projected to the vocabulary, `chunk` targets of each row at
a time; a chunk without targets is skipped. The logits of a chunk are not kept. `total_loss` computes the
gradient of the sum together with the losses; `target_losses` projects once more in the backward pass.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ste_jax.models.llama import Llama, logits_of
from ste_jax.sharding import Rules

Array = jax.Array
# (hidden states [B, C, D], unembedding [V, D], ids [B, C], weights [B, C]) -> float32 [B, C].
ChunkLosses = Callable[[Array, Array, Array, Array], Array]


def target_losses(model: Llama, hidden: Array, batch: Mapping[str, Array], *, chunk: int) -> Array:
    """Returns the weighted losses of a batch's targets, float32 [B, R].

    Args:
      model: Model whose unembedding projects.
      hidden: [B, T, D] after the final norm, in the dtype of the computation.
      batch: target_at, target_ids int32 [B, R] and target_weights float32 [B, R], R a multiple of `chunk`.
      chunk: Number of targets of a row per projection.
    """
    with jax.named_scope("loss"):
        chunks = _chunks(model.rules, hidden, batch, chunk)
        losses = _each(_chunk_losses(model), model.unembedding, *chunks)
        return _reshape(model.rules, losses.swapaxes(0, 1), *batch["target_at"].shape)


def total_loss(model: Llama, hidden: Array, batch: Mapping[str, Array], *, chunk: int) -> Array:
    """Returns the sum of `target_losses`, a float32 scalar, whose gradient costs one projection less.

    Args:
      model: Model whose unembedding projects.
      hidden: [B, T, D] after the final norm, in the dtype of the computation.
      batch: See `target_losses`.
      chunk: Number of targets of a row per projection.
    """
    with jax.named_scope("loss"):
        return _total(_chunk_losses(model), model.unembedding, *_chunks(model.rules, hidden, batch, chunk))


def _each(losses_of: ChunkLosses, unembedding: Array, *chunks: Array) -> Array:
    """Returns the losses of all chunks, [chunks, B, C]."""

    # Around the branch, not in it: the residuals of a branch, which include the unembedding, are stacked for
    # all chunks.
    @partial(jax.checkpoint, prevent_cse=False)
    def chunk_losses(_: None, xs: tuple[Array, Array, Array]) -> tuple[None, Array]:
        states, ids, weights = xs
        return None, jax.lax.cond(
            jnp.any(weights > 0.0),
            lambda: losses_of(states, unembedding, ids, weights),
            lambda: jnp.zeros_like(weights),
        )

    return jax.lax.scan(chunk_losses, None, chunks)[1]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _total(losses_of: ChunkLosses, unembedding: Array, *chunks: Array) -> Array:
    return jnp.sum(_each(losses_of, unembedding, *chunks))


def _total_forward(losses_of: ChunkLosses, unembedding: Any, *given: Any) -> tuple[Array, tuple[Any, Array]]:
    """Sums the losses and their gradients. XLA would not remove the gradient of a frozen unembedding."""
    table, is_trained = unembedding.value, unembedding.perturbed
    loss_of = jax.value_and_grad(lambda *xs: jnp.sum(losses_of(*xs)), (0, 1) if is_trained else (0,))

    def add_chunk(
        carry: tuple[Array, Any], xs: tuple[Array, Array, Array]
    ) -> tuple[tuple[Array, Any], Array]:
        states, ids, weights = xs

        def with_targets() -> tuple[tuple[Array, Any], Array]:
            loss, (d_states, *d_table) = loss_of(states, table, ids, weights)
            return jax.tree.map(jnp.add, carry, (loss, d_table)), d_states

        return jax.lax.cond(jnp.any(weights > 0.0), with_targets, lambda: (carry, jnp.zeros_like(states)))

    start = (jnp.zeros((), jnp.float32), [jnp.zeros_like(table)] if is_trained else [])
    (loss, d_table), d_states = jax.lax.scan(add_chunk, start, tuple(x.value for x in given))
    return loss, (d_table, d_states)


def _total_backward(
    losses_of: ChunkLosses, kept: tuple[Any, Array], gradient: Array
) -> tuple[Array | None, Array, None, None]:
    """Scales the gradients of the forward pass: they are linear in the gradient of the sum."""
    d_table, d_states = jax.tree.map(lambda x: (gradient * x.astype(jnp.float32)).astype(x.dtype), kept)
    return (d_table[0] if d_table else None), d_states, None, None


_total.defvjp(_total_forward, _total_backward, symbolic_zeros=True)


def _chunk_losses(model: Llama) -> ChunkLosses:
    """Returns the function of the losses of one chunk; it captures no array, which would get no gradient."""
    rules, dtype = model.rules, model.dtype

    def losses_of(states: Array, unembedding: Array, ids: Array, weights: Array) -> Array:
        logits = logits_of(states, unembedding, rules, dtype)
        return weights * (jax.nn.logsumexp(logits, axis=-1) - _select(logits, ids))

    return losses_of


def _select(logits: Array, ids: Array) -> Array:
    """Returns logits [B, C, V] at ids [B, C]: a masked sum, which a vocabulary on several devices allows."""
    vocabulary = jax.lax.broadcasted_iota(jnp.int32, (1, 1, logits.shape[-1]), 2)
    return jnp.sum(jnp.where(vocabulary == ids[:, :, None], logits, 0.0), axis=-1)


def _chunks(
    rules: Rules, hidden: Array, batch: Mapping[str, Array], chunk: int
) -> tuple[Array, Array, Array]:
    """Returns the hidden states, ids and weights of the targets: [R / chunk, B, chunk, ...] each."""
    states = jnp.take_along_axis(hidden, batch["target_at"][:, :, None], axis=1)

    def chunked(x: Array) -> Array:
        return _reshape(rules, x, x.shape[0], x.shape[1] // chunk, chunk, *x.shape[2:]).swapaxes(0, 1)

    return chunked(states), chunked(batch["target_ids"]), chunked(batch["target_weights"])


def _reshape(rules: Rules, x: Array, *shape: int) -> Array:
    # Explicit, since a single row would lose its sharding, and the branches of `cond` their common type.
    return jnp.reshape(x, shape, out_sharding=rules.spec("batch", *[None] * (len(shape) - 1)))
