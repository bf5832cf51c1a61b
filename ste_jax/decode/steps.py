"""The two device programs of decoding: the prefill of prompts, and some steps of all samples in flight.

Axes: B slots, M prompts of a slot, T samples of a slot, V vocabulary, C choices, E stop ids, O forced ids;
see `cache` and `packing` for the axes of their arrays.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt32

from ste_jax.decode.attention import KVSegment, attend_segments
from ste_jax.decode.cache import Prefix, SuffixSegment, insert_prompts, write_suffix
from ste_jax.decode.packing import Packed
from ste_jax.decode.sampling import draw, log_probs
from ste_jax.models.attention import causal_attention
from ste_jax.models.llama import Llama

Array = jax.Array
# The host passes NumPy arrays, the programs see JAX arrays.
HostOrDevice = np.ndarray | jax.Array

RUNNING, STOPPED, EXHAUSTED, CHOSEN = range(4)
NOT_FORCED = -1
NO_TOKEN = -1
NO_POSITION = -1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SamplingState:
    """State of every sample; small, and kept by the host between calls.

    Attributes:
      token: Id that is fed next, int32 [B, T].
      position: Its position in the sequence, int32 [B, T].
      budget: Number of tokens that the sample may still generate, int32 [B, T].
      forced: Number of generated tokens of the forced suffix, or NOT_FORCED, int32 [B, T].
      status: RUNNING, STOPPED (by a stop id), EXHAUSTED (budget) or CHOSEN (end of the forced suffix),
        int32 [B, T].
      keys: Raw threefry key of the sample, uint32 [B, T, 2].
      suffix_length: Number of tokens that the sample has fed, which are its suffix cache, int32 [B, T].
      prompt_index: Index of its prompt among those of its slot, int32 [B, T].
    """

    token: Int32[HostOrDevice, "B T"]
    position: Int32[HostOrDevice, "B T"]
    budget: Int32[HostOrDevice, "B T"]
    forced: Int32[HostOrDevice, "B T"]
    status: Int32[HostOrDevice, "B T"]
    keys: UInt32[HostOrDevice, "B T 2"]
    suffix_length: Int32[HostOrDevice, "B T"]
    prompt_index: Int32[HostOrDevice, "B T"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SamplingParams:
    """Sampling parameters of all requests of a call.

    Attributes:
      temperature: float32 [].
      top_p: float32 [].
      stop_ids: int32 [E].
      prefix_ids: int32 [O], the forced ids of a forced suffix; empty without one.
      is_allowed: bool [V], ids allowed after `prefix_ids`.
      choices: int32 [C], ids whose log-probabilities are recorded; their number is part of the program.
    """

    temperature: Float32[Array, ""]
    top_p: Float32[Array, ""]
    stop_ids: Int32[Array, " E"]
    prefix_ids: Int32[Array, " O"]
    is_allowed: Bool[Array, " V"]
    choices: Int32[Array, " C"]


class Generated(NamedTuple):
    """Output of some decoding steps.

    Attributes:
      tokens: Id that each sample generated in each step, or NO_TOKEN, int32 [B, T, steps].
      logprobs: Log-probabilities of the choices in each step in which the sample was running,
        float32 [B, T, steps, C]; None without choices.
      running: Number of steps in which each sample was running, the first ones, int32 [B, T].
      steps: Number of steps taken, int32 [].
    """

    tokens: Int32[HostOrDevice, "B T steps"]
    logprobs: Float32[HostOrDevice, "B T steps C"] | None
    running: Int32[HostOrDevice, "B T"]
    steps: Int32[HostOrDevice, ""]


@partial(jax.jit, donate_argnames="prefix")
def prefill(model: Llama, prefix: Prefix, packed: Packed) -> Prefix:
    """Computes the keys and values of prompts and returns the prefix cache that holds them.

    Everything in a layer but attention is computed once for each position of the rows; attention sees each
    prompt separately. P, the positions of a prompt in `packed`, is the end of one of the pages.
    """
    b, n, P = packed.gather_index.shape
    length, slots, prompt_index = (
        jax.lax.reshape(x, (b * n,)) for x in (packed.length, packed.slots, packed.prompt_index)
    )
    segments = (jnp.arange(P)[None] < length[:, None]).astype(jnp.int32)
    gather, scatter = cast(Array, packed.gather_index), cast(Array, packed.scatter_index)
    tokens, positions = cast(Array, packed.tokens), cast(Array, packed.positions)

    def attend(q: Array, k: Array, v: Array, _: Any) -> Array:
        q, k, v = (_take(x, gather) for x in (q, k, v))
        return _take(causal_attention(q, k, v, segments), scatter)

    _, layers = model.run_layers(model.embed_tokens(tokens), positions, attend)
    k, v = (jax.vmap(_take, (0, None))(x, gather) for x in layers)
    k, v = jnp.einsum("LBTKH->LBKHT", k), jnp.einsum("LBTKH->LBKTH", v)
    return insert_prompts(prefix, k, v, length, slots, prompt_index)


def _take(x: Array, index: Array) -> Array:
    """Returns the entries of each row at an index; each device takes from its own rows.

    From rows [b, R, ...] and an index [b, n, P] to prompts [b * n, P, ...], or from prompts and an index
    [b, R] to rows.
    """
    size = index.shape[-1]
    if x.shape[:2] == (index.size // size, size):  # each row holds one prompt
        return x

    def take(x: Array, index: Array) -> Array:
        rows, rest = len(index), x.shape[2:]
        x = jax.vmap(lambda row, index: row[index])(x.reshape(rows, -1, *rest), index)
        return x.reshape(-1, size, *rest)

    spec = jax.typeof(x).sharding.spec
    return jax.shard_map(take, in_specs=(spec, jax.typeof(index).sharding.spec), out_specs=spec)(x, index)


def _advance(state: SamplingState, drawn: Array, params: SamplingParams) -> tuple[SamplingState, Array]:
    """Returns the state after a step, and the ids generated in it, int32 [B, T] (NO_TOKEN: none)."""
    running = state.status == RUNNING
    in_suffix = state.forced >= 0
    in_prefix = in_suffix & (state.forced < len(params.prefix_ids))
    if len(params.prefix_ids):
        index = jnp.clip(state.forced, 0, len(params.prefix_ids) - 1)
        forced = params.prefix_ids.at[index].get(out_sharding=jax.typeof(index).sharding)
        drawn = jnp.where(in_prefix, forced, drawn)
    stop = jnp.any(drawn[..., None] == params.stop_ids[None, None], axis=-1) & ~in_suffix
    generated = running & ~stop
    budget = state.budget - (generated & ~in_suffix).astype(jnp.int32)
    status = jnp.where(stop, STOPPED, jnp.where(~in_suffix & (budget <= 0), EXHAUSTED, RUNNING))
    status = jnp.where(in_suffix & ~in_prefix, CHOSEN, status)
    after = dataclasses.replace(
        state,
        token=jnp.where(generated, drawn, state.token),
        position=state.position + running.astype(jnp.int32),
        suffix_length=state.suffix_length + running.astype(jnp.int32),
        budget=budget,
        forced=state.forced + (running & in_suffix).astype(jnp.int32),
        status=jnp.where(running, status, state.status),
    )
    return after, jnp.where(generated, drawn, NO_TOKEN)


def _visible_in_pages(prefix: Prefix, prompt_index: Array) -> list[Array]:
    """Returns which positions of each page samples [B, T] see: bool [B, M, T, P]."""
    M = prefix.length.shape[1]
    is_prompt = prompt_index[:, None, :, None] == jnp.arange(M)[None, :, None, None]
    visible, start = [], 0
    for _, values in prefix.pages:
        end = start + values.shape[-2]
        is_filled = jnp.arange(start, end)[None, None, None] < prefix.length[:, :, None, None]
        visible.append(is_prompt & is_filled)
        start = end
    return visible


def _visible_in_segments(suffix: tuple[SuffixSegment, ...], suffix_length: Array) -> list[Array]:
    """Returns which positions of each segment samples [B, T] see: bool [B, 1, T, S]."""
    visible, start = [], 0
    for _, values in suffix:
        end = start + values.shape[-2]
        visible.append(jnp.arange(start, end)[None, None, None] < suffix_length[:, None, :, None])
        start = end
    return visible


def _step_logits(
    model: Llama, prefix: Prefix, suffix: tuple[SuffixSegment, ...], state: SamplingState
) -> tuple[Array, tuple[Array, Array]]:
    """Returns float32 logits [B, T, V] after the next token, and its keys and values [L, B, T, K, H]."""
    token, position = cast(Array, state.token), cast(Array, state.position)
    in_pages = _visible_in_pages(prefix, cast(Array, state.prompt_index))
    in_segments = _visible_in_segments(suffix, cast(Array, state.suffix_length))
    new_key = jnp.ones_like(token, bool)[:, None, :, None]

    def attend(q: Array, k: Array, v: Array, caches: Any) -> Array:
        pages, segments = caches
        k, v = jnp.einsum("BTKH->BKTH", k)[..., None], jnp.einsum("BTKH->BKTH", v)[:, :, :, None]
        kv = [KVSegment(keys, values, seen) for (keys, values), seen in zip(pages, in_pages, strict=True)]
        for (keys, values), seen in zip([*segments, (k, v)], [*in_segments, new_key], strict=True):
            kv.append(KVSegment(keys, values, seen, is_suffix=True))
        scaled = (q.astype(jnp.float32) * q.shape[-1] ** -0.5).astype(q.dtype)
        return attend_segments(scaled, kv).astype(model.dtype)

    caches = (prefix.pages, suffix)
    x, layers = model.run_layers(model.embed_tokens(token), position, attend, caches)
    return model.unembed_hidden(model.normalize(x)), layers


@partial(jax.jit, static_argnames="steps", donate_argnames="suffix")
def decode(
    model: Llama,
    prefix: Prefix,
    suffix: tuple[SuffixSegment, ...],
    state: SamplingState,
    params: SamplingParams,
    steps: int,
) -> tuple[tuple[SuffixSegment, ...], SamplingState, Generated]:
    """Generates up to `steps` tokens of every running sample.

    Args:
      model: Model under decoding rules.
      prefix: Prefix cache of B slots, with at least the pages that the prompts in flight need.
      suffix: Suffix cache with room for `steps` more tokens of every sample.
      state: State of the samples.
      params: Sampling parameters of all samples.
      steps: Largest number of steps; fewer are taken if no sample is running any more.

    Returns:
      The suffix cache, the state, and the generated tokens.
    """
    B, T = state.token.shape
    tokens = jnp.full((B, T, steps), NO_TOKEN, jnp.int32, out_sharding=model.rules.spec("batch", None, None))
    logprobs = None
    if C := len(params.choices):
        spec = model.rules.spec("batch", None, None, None)
        logprobs = jnp.zeros((B, T, steps, C), jnp.float32, out_sharding=spec)

    def unfinished(carry):
        _, state, generated = carry
        return (generated.steps < steps) & jnp.any(state.status == RUNNING)

    def advance(carry):
        suffix, state, (tokens, logprobs, ran, step) = carry
        running = state.status == RUNNING
        logits, (keys, values) = _step_logits(model, prefix, suffix, state)
        is_step = (jnp.arange(steps) == step)[None, None]
        with jax.named_scope("sampling"):
            if logprobs is not None:
                new = log_probs(logits, params.choices)[:, :, None]
                logprobs = jnp.where(is_step[..., None], new, logprobs)
            if len(params.prefix_ids):
                is_last = state.forced == len(params.prefix_ids)
                logits = jnp.where(is_last[..., None] & ~params.is_allowed[None, None], -jnp.inf, logits)
            drawn = draw(logits, state.keys, state.position, params.temperature, params.top_p)
        with jax.named_scope("cache"):
            suffix = write_suffix(suffix, keys, values, jnp.where(running, state.suffix_length, NO_POSITION))
        state, ids = _advance(state, drawn, params)
        tokens = jnp.where(is_step, ids[..., None], tokens)
        return suffix, state, Generated(tokens, logprobs, ran + running.astype(jnp.int32), step + 1)

    start = Generated(tokens, logprobs, jnp.zeros_like(state.suffix_length), jnp.int32(0))
    return jax.lax.while_loop(unfinished, advance, (suffix, state, start))
