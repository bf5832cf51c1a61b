"""Cross-entropy on the target tokens, without an array of [all tokens, vocabulary].

Only the hidden states that predict a target are projected to the vocabulary, `chunk` targets of each row at
a time; a chunk without one is skipped. The logits of a chunk are not kept. Where only the sum of the losses
is wanted, its gradient is made beside them; where each loss is, the backward pass projects once more.
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
      model: whose unembedding projects.
      hidden: [B, T, D] after the final norm.
      batch: target_at, target_ids int32 [B, R] and target_weights float32 [B, R], R a multiple of `chunk`.
      chunk: targets of a row in one projection.
    """
    with jax.named_scope("loss"):
        chunks = _chunks(model.rules, hidden, batch, chunk)
        losses = _each(_chunk_losses(model), model.unembedding, *chunks)
        return _reshape(model.rules, losses.swapaxes(0, 1), *batch["target_at"].shape)


def total_loss(model: Llama, hidden: Array, batch: Mapping[str, Array], *, chunk: int) -> Array:
    """Returns the sum of `target_losses`, a float32 scalar, whose gradient costs one projection less."""
    with jax.named_scope("loss"):
        return _total(_chunk_losses(model), model.unembedding, *_chunks(model.rules, hidden, batch, chunk))


def _each(losses_of: ChunkLosses, unembedding: Array, *chunks: Array) -> Array:
    """Returns the losses of all chunks, [chunks, B, C]."""

    # Around the branch, not in it: what a branch keeps, the unembedding among it, is stacked for all chunks.
    @partial(jax.checkpoint, prevent_cse=False)
    def one(_: None, xs: tuple[Array, Array, Array]) -> tuple[None, Array]:
        states, ids, weights = xs
        return None, jax.lax.cond(
            jnp.any(weights > 0.0),
            lambda: losses_of(states, unembedding, ids, weights),
            lambda: jnp.zeros_like(weights),
        )

    return jax.lax.scan(one, None, chunks)[1]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _total(losses_of: ChunkLosses, unembedding: Array, *chunks: Array) -> Array:
    return jnp.sum(_each(losses_of, unembedding, *chunks))


def _total_forward(losses_of: ChunkLosses, unembedding: Any, *given: Any) -> tuple[Array, tuple[Any, Array]]:
    """Sums the losses and their gradients. A frozen unembedding gets none, which XLA would not take out."""
    table, trained = unembedding.value, unembedding.perturbed
    loss_of = jax.value_and_grad(lambda *xs: jnp.sum(losses_of(*xs)), (0, 1) if trained else (0,))

    def one(carry: tuple[Array, Any], xs: tuple[Array, Array, Array]) -> tuple[tuple[Array, Any], Array]:
        states, ids, weights = xs

        def some() -> tuple[tuple[Array, Any], Array]:
            loss, (d_states, *d_table) = loss_of(states, table, ids, weights)
            return jax.tree.map(jnp.add, carry, (loss, d_table)), d_states

        return jax.lax.cond(jnp.any(weights > 0.0), some, lambda: (carry, jnp.zeros_like(states)))

    start = (jnp.zeros((), jnp.float32), [jnp.zeros_like(table)] if trained else [])
    (loss, d_table), d_states = jax.lax.scan(one, start, tuple(x.value for x in given))
    return loss, (d_table, d_states)


def _total_backward(
    losses_of: ChunkLosses, kept: tuple[Any, Array], gradient: Array
) -> tuple[Array | None, Array, None, None]:
    """Scales the gradients that are there already: they are linear in that of the sum."""
    d_table, d_states = jax.tree.map(lambda x: (gradient * x.astype(jnp.float32)).astype(x.dtype), kept)
    return (d_table[0] if d_table else None), d_states, None, None


_total.defvjp(_total_forward, _total_backward, symbolic_zeros=True)


def _chunk_losses(model: Llama) -> ChunkLosses:
    """Returns the losses of one chunk; it holds no array of the model, which would get no gradient."""
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
    # Said, since a single row would lose its place on the mesh, and the branches below their common type.
    return jnp.reshape(x, shape, out_sharding=rules.spec("batch", *[None] * (len(shape) - 1)))
