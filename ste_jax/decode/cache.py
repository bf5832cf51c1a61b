"""Key/value caches of decoding: one prefix a group, and chunks of a fixed number of columns for its samples.

Keys are laid out with their positions last, values with the head dim last: both products of attention then
run along memory, on CPU and on TPU. All samples write the same column of the newest chunk at the same time;
which chunks a sample sees follows from the time that it entered.
Axes: L layers, B groups, T samples, K kv heads, H head dim, P prefix positions, S columns of a chunk.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ste_jax.models.llama import Llama

Array = jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prefix:
    """Keys [B,K,H,P] and values [B,K,P,H] of the prompts, and the number of real positions, int32 [B].

    `layers` is a pair of arrays with a leading axis L, or, of an unrolled model, a list of L pairs.
    """

    layers: Any
    length: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Chunk:
    """Keys [B,K,T,H,S] and values [B,K,T,S,H] of the samples, and which columns were written, bool [B,T,S].

    `layers` is as in `Prefix`.
    """

    layers: Any
    written: Array


def empty_prefix(model: Llama, groups: int, length: int) -> Prefix:
    """Returns a prefix cache of zeros for `groups` prompts of up to `length` tokens."""
    K, H = model.cfg.num_kv_heads, model.cfg.head_dim
    axes = ("batch", "kv_heads", None, None)
    return Prefix(
        layers=_zeros(model, [(groups, K, H, length), (groups, K, length, H)], axes),
        length=jnp.zeros((groups,), jnp.int32, out_sharding=model.rules.spec("batch")),
    )


def empty_chunk(model: Llama, groups: int, samples: int, columns: int) -> Chunk:
    """Returns an unwritten chunk for `samples` samples of each of `groups` groups."""
    K, H = model.cfg.num_kv_heads, model.cfg.head_dim
    axes = ("batch", "kv_heads", None, None, None)
    written = jnp.zeros((groups, samples, columns), bool, out_sharding=model.rules.spec("batch", None, None))
    shapes = [(groups, K, samples, H, columns), (groups, K, samples, columns, H)]
    return Chunk(layers=_zeros(model, shapes, axes), written=written)


def _zeros(model: Llama, shapes: list[tuple[int, ...]], axes: tuple[str | None, ...]) -> Any:
    L = model.cfg.num_layers

    def pair(lead: tuple[int, ...]) -> tuple[Array, ...]:
        spec = model.rules.spec(*[None] * len(lead), *axes)
        return tuple(jnp.zeros((*lead, *shape), model.dtype, out_sharding=spec) for shape in shapes)

    return [pair(()) for _ in range(L)] if model.unrolled else pair((L,))


def by_layer(*layers: Any) -> Any:
    """Returns the `layers` of several caches together, as `layer_inputs` of `Llama.run_layers`."""
    return map_layers(lambda *pairs: pairs, *layers)


def insert_prefixes(prefix: Prefix, layers: Any, length: Array, groups: Array) -> Prefix:
    """Replaces prefixes by new ones.

    Args:
      prefix: of B groups.
      layers: new keys and values in the layout of `prefix.layers`, of b groups.
      length: int32 [b].
      groups: int32 [b], where each goes; B drops it.
    """

    def insert(old: Array, new: Array) -> Array:
        at = old.at[..., groups, :, :, :]
        return at.set(new.astype(old.dtype), mode="drop", out_sharding=jax.typeof(old).sharding)

    spec = jax.typeof(prefix.length).sharding
    return Prefix(
        layers=jax.tree.map(insert, prefix.layers, layers),
        length=prefix.length.at[groups].set(length, mode="drop", out_sharding=spec),
    )


def write_column(chunk: Chunk, layers: Any, column: Array, running: Array) -> Chunk:
    """Writes a step's keys and values, as `Llama.run_layers` returns them, into one column.

    Args:
      chunk: of S columns.
      layers: keys and values [B,T,K,H].
      column: scalar, below S.
      running: bool [B,T], whose column counts.
    """

    def write(cache: tuple[Array, Array], new: tuple[Array, Array]) -> tuple[Array, Array]:
        k, v = (jnp.einsum("...TKH->...KTH", x).astype(c.dtype) for x, c in zip(new, cache, strict=True))
        at = jax.lax.dynamic_update_slice_in_dim
        return at(cache[0], k[..., None], column, axis=-1), at(cache[1], v[..., None, :], column, axis=-2)

    here = (jnp.arange(chunk.written.shape[-1]) == column)[None, None]
    return Chunk(map_layers(write, chunk.layers, layers), chunk.written | (here & running[..., None]))


def map_layers(function: Callable, *layers: Any) -> Any:
    """Applies a function of (keys, values) pairs to stacked layers, or to each layer of a list."""
    if isinstance(layers[0], list):
        return [function(*pairs) for pairs in zip(*layers, strict=True)]
    return function(*layers)
