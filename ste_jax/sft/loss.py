"""Cross-entropy on the target tokens, without an array of [all tokens, vocabulary].

Only the hidden states that predict a target are projected to the vocabulary, `chunk` targets of each row at
a time; a chunk without one is skipped. Their logits are not kept. Where only the sum of the losses is wanted,
its gradient is made beside them; where each loss is, the backward pass projects the hidden states again.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ste_jax.models.llama import Llama
from ste_jax.sharding import Rules

Array = jax.Array


def target_losses(model: Llama, hidden: Array, batch: Mapping[str, Array], *, chunk: int) -> Array:
    """Returns the weighted losses of a batch's targets, float32 [B, R].

    Args:
      model: whose unembedding projects.
      hidden: [B, T, D] after the final norm.
      batch: target_at, target_ids int32 [B, R] and target_weights float32 [B, R], R a multiple of `chunk`.
      chunk: targets of a row in one projection.
    """

    # Around the branch, not in it: what a branch keeps, the table among it, is stacked for all chunks.
    @partial(jax.checkpoint, prevent_cse=False)
    def one(_: None, xs: tuple[Array, Array, Array]) -> tuple[None, Array]:
        weights = xs[2]
        return None, jax.lax.cond(
            jnp.any(weights > 0.0),
            lambda: _chunk_losses(model, model.table, *xs),
            lambda: jnp.zeros_like(weights),
        )

    with jax.named_scope("loss"):
        losses = jax.lax.scan(one, None, _chunks(model.rules, hidden, batch, chunk))[1]
        return _reshape(model.rules, losses.swapaxes(0, 1), *batch["target_at"].shape)


def total_loss(model: Llama, hidden: Array, batch: Mapping[str, Array], *, chunk: int) -> Array:
    """Returns the sum of `target_losses`, a float32 scalar, whose gradient costs one projection less."""
    total = _with_gradients(partial(_chunk_losses, model))
    with jax.named_scope("loss"):
        return total(model.table, *_chunks(model.rules, hidden, batch, chunk))


def _with_gradients(losses: Callable[..., Array]) -> Callable[..., Array]:
    """Returns (table, the arrays of all chunks) -> the sum of the losses of all chunks.

    The backward pass multiplies gradients that are there already, since they are linear in that of the sum.
    """

    def total(table: Array, *chunks: Array) -> Array:
        return jnp.sum(jax.lax.map(lambda xs: losses(table, *xs), chunks))

    def forward(table: Any, *given: Any) -> tuple[Array, tuple[list[Array], Array]]:
        # A frozen table gets no gradient, which XLA would not take out again.
        trained, chunks = [table.value] if table.perturbed else [], tuple(x.value for x in given)

        @jax.value_and_grad
        def loss_of(inputs: tuple[Array, ...], ids: Array, weights: Array) -> Array:
            states, *tables = inputs
            return jnp.sum(losses(*(tables or [table.value]), states, ids, weights))

        def one(carry: tuple[Array, list[Array]], xs: tuple[Array, Array, Array]) -> tuple[Any, Array]:
            states, ids, weights = xs

            def some() -> tuple[Any, Array]:
                loss, (d_states, *d_tables) = loss_of((states, *trained), ids, weights)
                return jax.tree.map(jnp.add, carry, (loss, d_tables)), d_states

            return jax.lax.cond(jnp.any(weights > 0.0), some, lambda: (carry, jnp.zeros_like(states)))

        start = (jnp.zeros((), jnp.float32), [jnp.zeros_like(x) for x in trained])
        (loss, d_tables), d_states = jax.lax.scan(one, start, chunks)
        return loss, (d_tables, d_states)

    def backward(kept: tuple[list[Array], Array], gradient: Array) -> tuple[Array | None, ...]:
        d_tables, d_states = jax.tree.map(lambda x: (gradient * x.astype(jnp.float32)).astype(x.dtype), kept)
        return (d_tables[0] if d_tables else None), d_states, None, None

    with_gradients = jax.custom_vjp(total)
    with_gradients.defvjp(forward, backward, symbolic_zeros=True)
    return with_gradients


def _chunk_losses(model: Llama, table: Array, states: Array, ids: Array, weights: Array) -> Array:
    logits = model.project(states, table)
    return weights * (jax.nn.logsumexp(logits, axis=-1) - _select(logits, ids))


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
