"""Cross-entropy on the target tokens, without an array of [all tokens, vocabulary]."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp

from ste_jax.models.llama import Llama

Array = jax.Array


def target_losses(model: Llama, hidden: Array, batch: Mapping[str, Array], *, chunk: int) -> Array:
    """Returns the weighted losses of a batch's targets, float32 [B, R].

    Only the hidden states that predict a target are projected to the vocabulary, `chunk` targets of each row
    at a time; the backward pass projects them again instead of keeping their logits. A chunk without one is
    skipped.

    Args:
      model: whose unembedding projects.
      hidden: [B, T, D] after the final norm.
      batch: target_at, target_ids int32 [B, R] and target_weights float32 [B, R], R a multiple of `chunk`.
      chunk: targets of a row in one projection.
    """

    def reshape(x: Array, *shape: int) -> Array:
        # Said, since a single row would lose its place on the mesh, and the branches below their common type.
        out = model.rules.spec("batch", *[None] * (len(shape) - 1))
        return jnp.reshape(x, shape, out_sharding=out)

    def chunked(x: Array) -> Array:
        return reshape(x, x.shape[0], x.shape[1] // chunk, chunk, *x.shape[2:]).swapaxes(0, 1)

    # Around the branch, not in it: what a branch keeps, the table among it, is stacked for all chunks.
    @partial(jax.checkpoint, prevent_cse=False)
    def one(_: None, xs: tuple[Array, Array, Array]) -> tuple[None, Array]:
        weights = xs[2]
        return None, jax.lax.cond(
            jnp.any(weights > 0.0), lambda: chunk_losses(*xs), lambda: jnp.zeros_like(weights)
        )

    def chunk_losses(h: Array, ids: Array, weights: Array) -> Array:
        logits = model.unembed_hidden(h)
        return weights * (jax.nn.logsumexp(logits, axis=-1) - select(logits, ids))

    with jax.named_scope("loss"):
        states = jnp.take_along_axis(hidden, batch["target_at"][:, :, None], axis=1)
        xs = (chunked(states), chunked(batch["target_ids"]), chunked(batch["target_weights"]))
        losses = jax.lax.scan(one, None, xs)[1]
        return reshape(losses.swapaxes(0, 1), *batch["target_at"].shape)


def select(logits: Array, ids: Array) -> Array:
    """Returns logits [B, C, V] at ids [B, C]: a masked sum, which a vocabulary on several devices allows."""
    vocabulary = jax.lax.broadcasted_iota(jnp.int32, (1, 1, logits.shape[-1]), 2)
    return jnp.sum(jnp.where(vocabulary == ids[:, :, None], logits, 0.0), axis=-1)
