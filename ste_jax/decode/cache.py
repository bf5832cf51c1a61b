"""Key/value caches of decoding: one prefix a group, and chunks of a fixed number of columns for its samples.

Keys are laid out with their positions last, values with the head dim last: both products of attention then
run along memory. Chunks are aligned to a group's own start, so that a sample's arithmetic does not depend on
its neighbours.
Axes: L layers, B groups, T samples, K kv heads, H head dim, P prefix positions, S columns of a chunk.
"""

import dataclasses

import jax
import jax.numpy as jnp

from ste_jax.models.llama import LlamaConfig
from ste_jax.sharding import Rules

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prefix:
    """Keys [L,B,K,H,P] and values [L,B,K,P,H] of the prompts, and the number of real positions, int32 [B]."""

    k: Array
    v: Array
    length: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Chunk:
    """Keys [L,B,T,K,H,S] and values [L,B,T,K,S,H] of the samples, and which columns were written, bool
    [B,T,S].
    """

    k: Array
    v: Array
    written: Array


def empty_prefix(cfg: LlamaConfig, rules: Rules, dtype: str, groups: int, length: int) -> Prefix:
    """Returns a prefix cache of zeros for `groups` prompts of up to `length` tokens."""
    L, K, H = cfg.num_layers, cfg.num_kv_heads, cfg.head_dim
    cache = rules.spec(None, "batch", "kv_heads", None, None)
    return Prefix(
        k=jnp.zeros((L, groups, K, H, length), dtype, out_sharding=cache),
        v=jnp.zeros((L, groups, K, length, H), dtype, out_sharding=cache),
        length=jnp.zeros((groups,), jnp.int32, out_sharding=rules.spec("batch")),
    )


def empty_chunk(cfg: LlamaConfig, rules: Rules, dtype: str, groups: int, samples: int, columns: int) -> Chunk:
    """Returns an unwritten chunk for `samples` samples of each of `groups` groups."""
    L, K, H = cfg.num_layers, cfg.num_kv_heads, cfg.head_dim
    cache = rules.spec(None, "batch", None, "kv_heads", None, None)
    return Chunk(
        k=jnp.zeros((L, groups, samples, K, H, columns), dtype, out_sharding=cache),
        v=jnp.zeros((L, groups, samples, K, columns, H), dtype, out_sharding=cache),
        written=jnp.zeros((groups, samples, columns), bool, out_sharding=rules.spec("batch", None, None)),
    )


def insert_prefixes(prefix: Prefix, new: Prefix, source: Array, rules: Rules) -> Prefix:
    """Replaces the groups b with `source[b]` >= 0 by that row of `new`; int32 [B], -1 keeps the group."""
    taken = source >= 0
    rows = jnp.maximum(source, 0)
    cache = rules.spec(None, "batch", "kv_heads", None, None)

    def replace(old: Array, rows_of: Array) -> Array:
        picked = rows_of.at[:, rows].get(out_sharding=cache)
        return jnp.where(taken[None, :, None, None, None], picked, old)

    length = new.length.at[rows].get(out_sharding=rules.spec("batch"))
    return Prefix(
        k=replace(prefix.k, new.k), v=replace(prefix.v, new.v), length=jnp.where(taken, length, prefix.length)
    )


def commit_chunk(chunks: tuple[Chunk, ...], buffer: Chunk, used: Array) -> tuple[Chunk, ...]:
    """Stores `buffer` as chunk number `used[b]` of each group b, int32 [B]."""

    def store(number: int, chunk: Chunk) -> Chunk:
        here = used == number
        wide = here[None, :, None, None, None, None]
        return Chunk(
            k=jnp.where(wide, buffer.k, chunk.k),
            v=jnp.where(wide, buffer.v, chunk.v),
            written=jnp.where(here[:, None, None], buffer.written, chunk.written),
        )

    return tuple(store(number, chunk) for number, chunk in enumerate(chunks))
