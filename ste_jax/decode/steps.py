"""The two device programs of decoding: prefill of prompts, and some steps of all samples in flight."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ste_jax.decode.attention import Part, attend_parts
from ste_jax.decode.cache import Prefix, Segment, insert_prompts, write_columns
from ste_jax.decode.packing import Packed
from ste_jax.decode.sampling import draw, log_probs
from ste_jax.models.attention import causal_attention
from ste_jax.models.llama import Llama

Array = jax.Array

RUNNING, STOPPED, EXHAUSTED, CHOSEN = range(4)
NOT_FORCED = -1
NO_TOKEN = -1
NO_COLUMN = -1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Samples:
    """State of every sample [B, T]; small, and owned by the host between calls.

    `token` is fed next, at `position`; `budget` counts the tokens that it may still make. `forced` is
    NOT_FORCED, or the number of tokens of the forced suffix that were generated already. `status` is RUNNING,
    STOPPED (stop id), EXHAUSTED (budget) or CHOSEN (end of the forced suffix). `own` counts the tokens that
    it fed, `place` says which of the prompts of its slot it goes on from.
    """

    token: Any
    position: Any
    budget: Any
    forced: Any
    status: Any
    keys: Any
    own: Any
    place: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Controls:
    """Sampling parameters of all requests of a call.

    Attributes:
      temperature: float32 [].
      top_p: float32 [].
      stop_ids: int32 [E].
      prefix_ids: int32 [O], the forced ids of a forced suffix; empty without one.
      is_allowed: bool [V], ids allowed after `prefix_ids`.
      choices: int32 [C], ids whose log-probabilities are recorded; their number is part of the program.
    """

    temperature: Array
    top_p: Array
    stop_ids: Array
    prefix_ids: Array
    is_allowed: Array
    choices: Array


class Generated(NamedTuple):
    """Output of some decoding steps.

    Attributes:
      tokens: int32 [B, T, steps], the id that each sample generated in each step, or NO_TOKEN.
      logprobs: float32 [B, T, steps, C], log-probabilities of the choices in each step in which the sample
        was running; None without choices.
      running: int32 [B, T], number of steps in which each sample was running; they come first.
      steps: int32 [], number of steps taken.
    """

    tokens: Array
    logprobs: Array | None
    running: Array
    steps: Array


@partial(jax.jit, donate_argnames="prefix")
def prefill(model: Llama, prefix: Prefix, packed: Packed) -> Prefix:
    """Reads prompts into their slots and places.

    All of a layer but attention is computed once for each position of the rows; attention sees every prompt
    by itself. The positions of a prompt are as many as where a page of the prefix ends.
    """
    b, n, P = packed.at.shape
    length, slots, places = (
        jax.lax.reshape(x, (b * n,)) for x in (packed.length, packed.slots, packed.places)
    )
    segments = (jnp.arange(P)[None] < length[:, None]).astype(jnp.int32)

    def attend(q: Array, k: Array, v: Array, _: Any) -> Array:
        q, k, v = (_taken(x, packed.at) for x in (q, k, v))
        return _taken(causal_attention(q, k, v, segments), packed.back)

    _, layers = model.run_layers(model.embed_tokens(packed.tokens), packed.positions, attend)
    k, v = (jax.vmap(_taken, (0, None))(x, packed.at) for x in layers)
    k, v = jnp.einsum("LBTKH->LBKHT", k), jnp.einsum("LBTKH->LBKTH", v)
    return insert_prompts(prefix, k, v, length, slots, places)


def _taken(x: Array, index: Array) -> Array:
    """Returns what lies at an index of each row: each device takes from its own rows.

    From rows [b, R, ...] at [b, n, P] to prompts [b * n, P, ...], or from those at [b, R] back to rows.
    """
    size = index.shape[-1]
    if x.shape[:2] == (index.size // size, size):  # a row is a prompt
        return x

    def take(x: Array, index: Array) -> Array:
        rows, tail = len(index), x.shape[2:]
        x = jax.vmap(lambda row, index: row[index])(x.reshape(rows, -1, *tail), index)
        return x.reshape(-1, size, *tail)

    spec = jax.typeof(x).sharding.spec
    return jax.shard_map(take, in_specs=(spec, jax.typeof(index).sharding.spec), out_specs=spec)(x, index)


def _advance(samples: Samples, drawn: Array, controls: Controls) -> tuple[Samples, Array]:
    """Returns the samples after a step, and the ids that they made in it (NO_TOKEN: none), [B, T]."""
    running = samples.status == RUNNING
    in_suffix = samples.forced >= 0
    in_prefix = in_suffix & (samples.forced < len(controls.prefix_ids))
    if len(controls.prefix_ids):
        index = jnp.clip(samples.forced, 0, len(controls.prefix_ids) - 1)
        forced = controls.prefix_ids.at[index].get(out_sharding=jax.typeof(index).sharding)
        drawn = jnp.where(in_prefix, forced, drawn)
    stop = jnp.any(drawn[..., None] == controls.stop_ids[None, None], axis=-1) & ~in_suffix
    made = running & ~stop
    budget = samples.budget - (made & ~in_suffix).astype(jnp.int32)
    status = jnp.where(stop, STOPPED, jnp.where(~in_suffix & (budget <= 0), EXHAUSTED, RUNNING))
    status = jnp.where(in_suffix & ~in_prefix, CHOSEN, status)
    after = dataclasses.replace(
        samples,
        token=jnp.where(made, drawn, samples.token),
        position=samples.position + running.astype(jnp.int32),
        own=samples.own + running.astype(jnp.int32),
        budget=budget,
        forced=samples.forced + (running & in_suffix).astype(jnp.int32),
        status=jnp.where(running, status, samples.status),
    )
    return after, jnp.where(made, drawn, NO_TOKEN)


def _visible_in_pages(prefix: Prefix, place: Array) -> list[Array]:
    """Returns what samples [B, T] see of each page: bool [B, M, T, P]."""
    M = prefix.length.shape[1]
    its_own = place[:, None, :, None] == jnp.arange(M)[None, :, None, None]
    visible, start = [], 0
    for _, values in prefix.pages:
        end = start + values.shape[-2]
        real = jnp.arange(start, end)[None, None, None] < prefix.length[:, :, None, None]
        visible.append(its_own & real)
        start = end
    return visible


def _visible_in_segments(suffix: tuple[Segment, ...], own: Array) -> list[Array]:
    """Returns what samples [B, T] see of each segment: bool [B, 1, T, S]."""
    visible, start = [], 0
    for _, values in suffix:
        end = start + values.shape[-2]
        visible.append(jnp.arange(start, end)[None, None, None] < own[:, None, :, None])
        start = end
    return visible


def _step_logits(
    model: Llama, prefix: Prefix, suffix: tuple[Segment, ...], samples: Samples
) -> tuple[Array, tuple[Array, Array]]:
    """Feeds each sample's token: float32 logits [B, T, V], and the new keys and values [L, B, T, K, H]."""
    in_pages = _visible_in_pages(prefix, samples.place)
    in_segments = _visible_in_segments(suffix, samples.own)
    itself = jnp.ones_like(samples.token, bool)[:, None, :, None]

    def attend(q: Array, k: Array, v: Array, caches: Any) -> Array:
        pages, segments = caches
        k, v = jnp.einsum("BTKH->BKTH", k)[..., None], jnp.einsum("BTKH->BKTH", v)[:, :, :, None]
        parts = [Part(keys, values, seen) for (keys, values), seen in zip(pages, in_pages, strict=True)]
        for (keys, values), seen in zip([*segments, (k, v)], [*in_segments, itself], strict=True):
            parts.append(Part(keys, values, seen, own=True))
        scaled = (q.astype(jnp.float32) * q.shape[-1] ** -0.5).astype(q.dtype)
        return attend_parts(scaled, parts).astype(model.dtype)

    caches = (prefix.pages, suffix)
    x, layers = model.run_layers(model.embed_tokens(samples.token), samples.position, attend, caches)
    return model.unembed_hidden(model.normalize(x)), layers


@partial(jax.jit, static_argnames="steps", donate_argnames="suffix")
def decode(
    model: Llama,
    prefix: Prefix,
    suffix: tuple[Segment, ...],
    samples: Samples,
    controls: Controls,
    steps: int,
) -> tuple[tuple[Segment, ...], Samples, Generated]:
    """Makes up to `steps` tokens of every running sample.

    Args:
      model: under decoding rules.
      prefix: of B slots; the pages that the prompts in flight need are enough.
      suffix: segments of the samples' own tokens, enough for `steps` more.
      samples: where the samples stand.
      controls: what holds for all of them.
      steps: after which the host looks.

    Returns:
      The suffix, the samples, and what they generated.
    """
    B, T = samples.token.shape
    tokens = jnp.full((B, T, steps), NO_TOKEN, jnp.int32, out_sharding=model.rules.spec("batch", None, None))
    logprobs = None
    if C := len(controls.choices):
        spec = model.rules.spec("batch", None, None, None)
        logprobs = jnp.zeros((B, T, steps, C), jnp.float32, out_sharding=spec)

    def unfinished(carry):
        _, samples, generated = carry
        return (generated.steps < steps) & jnp.any(samples.status == RUNNING)

    def advance(carry):
        suffix, samples, (tokens, logprobs, ran, step) = carry
        running = samples.status == RUNNING
        logits, (keys, values) = _step_logits(model, prefix, suffix, samples)
        now = (jnp.arange(steps) == step)[None, None]
        if logprobs is not None:
            logprobs = jnp.where(now[..., None], log_probs(logits, controls.choices)[:, :, None], logprobs)
        if len(controls.prefix_ids):
            is_last = samples.forced == len(controls.prefix_ids)
            logits = jnp.where(is_last[..., None] & ~controls.is_allowed[None, None], -jnp.inf, logits)
        drawn = draw(logits, samples.keys, samples.position, controls.temperature, controls.top_p)
        suffix = write_columns(suffix, keys, values, jnp.where(running, samples.own, NO_COLUMN))
        samples, ids = _advance(samples, drawn, controls)
        tokens = jnp.where(now, ids[..., None], tokens)
        return suffix, samples, Generated(tokens, logprobs, ran + running.astype(jnp.int32), step + 1)

    start = Generated(tokens, logprobs, jnp.zeros_like(samples.own), jnp.int32(0))
    return jax.lax.while_loop(unfinished, advance, (suffix, samples, start))
