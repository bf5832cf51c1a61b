"""Key/value caches of decoding: a prefix cache of prompts and a suffix cache of generated tokens.

Keys are laid out with their positions last, values with the head dim last, so that both contractions of
attention run along memory on CPU and on TPU. The prefix is divided into pages that end at the bucket lengths,
the suffix into segments, each as long as those before it together: pages and segments that no sample in
flight has reached are not read. The n-th token that a sample feeds always lies at position n of its suffix,
whenever it ran and whatever ran with it, so that its sums run in the same order.
Axes: L layers, B slots, M prompts of a slot, T samples of a slot, K kv heads, H head dim, P positions of a
page, S positions of a segment.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Float, Int32

from ste_jax.models.llama import Llama

Array = jax.Array
# Pages and segments differ in P and S, which the leading underscore excludes from the check of equal sizes.
Page: TypeAlias = tuple[Float[Array, "L B M K H _P"], Float[Array, "L B M K _P H"]]
SuffixSegment: TypeAlias = tuple[Float[Array, "L B K T H _S"], Float[Array, "L B K T _S H"]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prefix:
    """Keys and values of the prompts of all slots.

    Attributes:
      pages: Keys [L, B, M, K, H, P] and values [L, B, M, K, P, H] of each page; P differs between pages.
      length: Number of positions of each prompt, int32 [B, M].
    """

    pages: tuple[Page, ...]
    length: Int32[Array, "B M"]

    def upto(self, positions: int) -> "Prefix":
        """Returns the pages that hold the first positions."""
        starts = itertools.accumulate((v.shape[-2] for _, v in self.pages), initial=0)
        kept = tuple(page for page, start in zip(self.pages, starts, strict=False) if start < positions)
        return Prefix(kept, self.length)


def empty_prefix(model: Llama, slots: int, prompts_per_slot: int, pages: Sequence[int]) -> Prefix:
    """Returns a prefix cache of zeros with pages of the given numbers of positions."""
    K, H = model.cfg.num_kv_heads, model.cfg.head_dim
    axes, B, M = ("batch", None, "kv_heads", None, None), slots, prompts_per_slot
    return Prefix(
        pages=tuple(_zeros(model, [(B, M, K, H, P), (B, M, K, P, H)], axes) for P in pages),
        length=jnp.zeros((B, M), jnp.int32, out_sharding=model.rules.spec("batch", None)),
    )


def empty_segment(model: Llama, slots: int, samples_per_slot: int, positions: int) -> SuffixSegment:
    """Returns a segment of zeros: keys [L, B, K, T, H, S] and values [L, B, K, T, S, H]."""
    K, H = model.cfg.num_kv_heads, model.cfg.head_dim
    axes, B, T, S = ("batch", "kv_heads", None, None, None), slots, samples_per_slot, positions
    return _zeros(model, [(B, K, T, H, S), (B, K, T, S, H)], axes)


def _zeros(model: Llama, shapes: list[tuple[int, ...]], axes: tuple[str | None, ...]) -> tuple[Array, Array]:
    spec = model.rules.spec(None, *axes)
    L = model.cfg.num_layers
    keys, values = (jnp.zeros((L, *shape), model.dtype, out_sharding=spec) for shape in shapes)
    return keys, values


def insert_prompts(
    prefix: Prefix, keys: Array, values: Array, length: Array, slots: Array, prompt_index: Array
) -> Prefix:
    """Returns the prefix cache with b prompts written over others.

    Args:
      prefix: Cache of B slots.
      keys: Keys of the new prompts [L, b, K, H, P]; P is the end of one of the pages.
      values: Values of the new prompts [L, b, K, P, H].
      length: Number of positions of each new prompt, int32 [b].
      slots: Slot that each new prompt is written to, int32 [b]; B drops the prompt.
      prompt_index: Index of the prompt of that slot which is overwritten, int32 [b].
    """

    def insert(old: Array, new: Array) -> Array:
        at = old.at[:, slots, prompt_index]
        return at.set(new.astype(old.dtype), mode="drop", out_sharding=jax.typeof(old).sharding)

    pages, start = [], 0
    for k, v in prefix.pages:
        end = start + v.shape[-2]
        if end <= values.shape[-2]:
            k, v = insert(k, keys[..., start:end]), insert(v, values[..., start:end, :])
        pages.append((k, v))
        start = end
    at, spec = prefix.length.at[slots, prompt_index], jax.typeof(prefix.length).sharding
    return Prefix(tuple(pages), at.set(length, mode="drop", out_sharding=spec))


def write_suffix(
    suffix: Sequence[SuffixSegment], keys: Array, values: Array, positions: Array
) -> tuple[SuffixSegment, ...]:
    """Returns the suffix cache with the keys and values of a step written, each sample's at its own position.

    Args:
      suffix: Segments.
      keys: New keys [L, B, T, K, H].
      values: New values [L, B, T, K, H].
      positions: int32 [B, T], counted over all segments; one outside all segments is not written.
    """

    keys, values = jnp.einsum("LBTKH->LBKTH", keys), jnp.einsum("LBTKH->LBKTH", values)
    written, start = [], 0
    for k, v in suffix:
        size = v.shape[-2]
        inside = (positions >= start) & (positions < start + size)
        at = jnp.where(inside, positions - start, size)
        written.append(_write_segment(k, v, keys.astype(k.dtype), values.astype(v.dtype), at))
        start += size
    return tuple(written)


def _write_segment(k: Array, v: Array, keys: Array, values: Array, positions: Array) -> SuffixSegment:
    """Writes [L, B, K, T, H] at the positions [B, T] of a segment; position S is not written.

    Every device writes its samples one after the other: of one scatter, XLA would copy the segment on TPU.
    """

    def write(k: Array, v: Array, keys: Array, values: Array, positions: Array) -> SuffixSegment:
        L, B, K, T, H, S = k.shape

        def write_sample(i: Array, kv: SuffixSegment) -> SuffixSegment:
            b, t = i // T, i % T
            position = positions[b, t]

            def put(cache: Array, new: Array, axis: int) -> Array:
                start = [jnp.int32(0), b, jnp.int32(0), t, jnp.int32(0), jnp.int32(0)]
                start[axis] = jnp.minimum(position, S - 1)
                new = jnp.expand_dims(jax.lax.dynamic_slice(new, start[:5], (L, 1, K, 1, H)), axis)
                old = jax.lax.dynamic_slice(cache, start, new.shape)
                new = jax.lax.dynamic_update_slice(cache, jnp.where(position < S, new, old), start)
                return with_layout_constraint(new, Layout(tuple(range(6))))

            return put(kv[0], keys, 5), put(kv[1], values, 4)

        return jax.lax.fori_loop(0, B * T, write_sample, (k, v))

    arrays = (k, v, keys, values, positions)
    specs = tuple(jax.typeof(x).sharding.spec for x in arrays)
    return jax.shard_map(write, in_specs=specs, out_specs=specs[:2])(*arrays)
