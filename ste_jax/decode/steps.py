"""The two device programs of decoding: prefill of prompts, and a chunk of steps for all groups in flight."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ste_jax.decode.attention import merge, own_partial, shared_partial
from ste_jax.decode.cache import Chunk, Prefix, commit_chunk, empty_chunk, insert_prefixes
from ste_jax.decode.sampling import draw
from ste_jax.models.llama import Llama, causal_attention

Array = jax.Array

RUNNING, STOPPED, EXHAUSTED, CHOSEN = range(4)
NO_TAIL = -1
NO_TOKEN = -1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples:
    """Where every sample [B, T] stands; small, and owned by the host between chunks.

    `token` is fed next, at `position`; `budget` counts the tokens that it may still make. `tail` is NO_TAIL,
    or the number of forced tokens that were fed already. `status` is RUNNING, STOPPED (stop id), EXHAUSTED
    (budget) or CHOSEN (end of the tail). `used` counts the finished chunks of the group, [B].
    """

    token: Any
    position: Any
    budget: Any
    tail: Any
    status: Any
    keys: Any
    used: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Controls:
    """What holds for all requests of a call: temperature, top_p [], stop ids and choices bool [V], opening
    int32 [O].
    """

    temperature: Array
    top_p: Array
    is_stop: Array
    is_choice: Array
    opening: Array


@partial(jax.jit, static_argnames="unroll", donate_argnames="prefix")
def prefill(
    model: Llama, prefix: Prefix, tokens: Array, length: Array, source: Array, *, unroll: bool
) -> Prefix:
    """Reads prompts int32 [b, P] (real ones: the first length[b]) into the groups that `source` [B] sends
    them to.
    """
    rows, P = tokens.shape
    positions = jnp.broadcast_to(jnp.arange(P, dtype=jnp.int32)[None], (rows, P))
    positions = jax.sharding.reshard(positions, model.rules.spec("batch", None))
    segments = (positions < length[:, None]).astype(jnp.int32)
    _, (k, v) = model.run_layers(
        model.embed_tokens(tokens),
        positions,
        lambda q, k, v, _: causal_attention(q, k, v, segments),
        unroll=unroll,
    )
    new = Prefix(
        k=jnp.einsum("LBTKH->LBKHT", k).astype(prefix.k.dtype),
        v=jnp.einsum("LBTKH->LBKTH", v).astype(prefix.v.dtype),
        length=length,
    )
    return insert_prefixes(prefix, new, source, model.rules)


def _advance(samples: Samples, drawn: Array, controls: Controls) -> tuple[Samples, Array]:
    """Returns the samples after a step, and the ids that they made in it (NO_TOKEN: none), [B, T]."""
    running = samples.status == RUNNING
    in_tail = samples.tail >= 0
    forced = in_tail & (samples.tail < len(controls.opening))
    if len(controls.opening):
        at = jnp.clip(samples.tail, 0, len(controls.opening) - 1)
        drawn = jnp.where(forced, controls.opening.at[at].get(out_sharding=jax.typeof(at).sharding), drawn)
    stop = controls.is_stop.at[drawn].get(out_sharding=jax.typeof(drawn).sharding) & ~in_tail
    made = running & ~stop
    budget = samples.budget - (made & ~in_tail).astype(jnp.int32)
    status = jnp.where(stop, STOPPED, jnp.where(~in_tail & (budget <= 0), EXHAUSTED, RUNNING))
    status = jnp.where(in_tail & ~forced, CHOSEN, status)
    after = dataclasses.replace(
        samples,
        token=jnp.where(made, drawn, samples.token),
        position=samples.position + running.astype(jnp.int32),
        budget=budget,
        tail=samples.tail + (running & in_tail).astype(jnp.int32),
        status=jnp.where(running, status, samples.status),
    )
    return after, jnp.where(made, drawn, NO_TOKEN)


def _step_logits(
    model: Llama, prefix: Prefix, chunks: tuple[Chunk, ...], buffer: Chunk, samples: Samples, unroll: bool
) -> tuple[Array, tuple[Array, Array]]:
    """Feeds each sample's token: float32 logits [B, T, V], and its keys and values [L, B, T, K, H]."""
    in_prefix = jnp.arange(prefix.k.shape[-1])[None] < prefix.length[:, None]
    # Whoever has used all chunks but one stores this call's columns in the last: nobody can have filled it
    # yet.
    chunks = chunks[:-1]
    in_chunk = [c.written & (samples.used > i)[:, None, None] for i, c in enumerate(chunks)]
    itself = jnp.ones_like(samples.token, bool)[..., None]

    def attend(q: Array, k: Array, v: Array, caches: Any) -> Array:
        (prefix_k, prefix_v), of_chunks, (buffer_k, buffer_v) = caches
        q = (q.astype(jnp.float32) * q.shape[-1] ** -0.5).astype(q.dtype)
        parts = [shared_partial(q, prefix_k, prefix_v, in_prefix)]
        parts += [own_partial(q, k_, v_, mask) for (k_, v_), mask in zip(of_chunks, in_chunk, strict=True)]
        parts.append(own_partial(q, buffer_k, buffer_v, buffer.written))
        parts.append(own_partial(q, k[..., None], v[:, :, :, None], itself))
        return merge(parts, model.dtype)

    caches = ((prefix.k, prefix.v), [(c.k, c.v) for c in chunks], (buffer.k, buffer.v))
    x = model.embed_tokens(samples.token)
    x, (k, v) = model.run_layers(x, samples.position, attend, caches, unroll=unroll)
    return model.unembed_hidden(model.normalize(x)), (k, v)


@partial(jax.jit, static_argnames=("columns", "unroll"), donate_argnames="chunks")
def decode_chunk(
    model: Llama,
    prefix: Prefix,
    chunks: tuple[Chunk, ...],
    samples: Samples,
    controls: Controls,
    *,
    columns: int,
    unroll: bool,
) -> tuple[tuple[Chunk, ...], Samples, Array, Array]:
    """Makes up to `columns` tokens of every running sample.

    Returns:
      the chunks with the new columns stored, the samples, the ids made, int32 [B, T, columns] (NO_TOKEN:
      none), and the number of steps taken.
    """
    B, T = samples.token.shape
    rules = model.rules
    buffer = empty_chunk(model.cfg, rules, model.dtype, B, T, columns)
    made = jnp.full((B, T, columns), NO_TOKEN, jnp.int32, out_sharding=rules.spec("batch", None, None))

    def unfinished(carry):
        step, _, samples, _ = carry
        return (step < columns) & jnp.any(samples.status == RUNNING)

    def advance(carry):
        step, buffer, samples, made = carry
        logits, (k, v) = _step_logits(model, prefix, chunks, buffer, samples, unroll)
        logits = jax.sharding.reshard(logits, rules.spec("batch", None, None))
        choosing = samples.tail == len(controls.opening)
        excluded = choosing[..., None] & ~controls.is_choice[None, None]
        logits = jnp.where(excluded, -jnp.inf, logits)
        drawn = draw(logits, samples.keys, samples.position, controls.temperature, controls.top_p)
        column = (jnp.arange(columns) == step)[None, None]
        buffer = Chunk(
            k=jax.lax.dynamic_update_slice_in_dim(buffer.k, k[..., None].astype(buffer.k.dtype), step, 5),
            v=jax.lax.dynamic_update_slice_in_dim(
                buffer.v, v[:, :, :, :, None].astype(buffer.v.dtype), step, 4
            ),
            written=buffer.written | (column & (samples.status == RUNNING)[..., None]),
        )
        samples, ids = _advance(samples, drawn, controls)
        return step + 1, buffer, samples, jnp.where(column, ids[..., None], made)

    step, buffer, samples, made = jax.lax.while_loop(
        unfinished, advance, (jnp.int32(0), buffer, samples, made)
    )
    chunks = commit_chunk(chunks, buffer, samples.used)
    return chunks, dataclasses.replace(samples, used=samples.used + 1), made, step
