"""Sampling of the next token with temperature and top-p, without sorting or gathering the vocabulary.

Nucleus sampling follows Holtzman et al. 2019 (arXiv 1904.09751): it draws from the smallest set of most
likely tokens whose probability reaches top_p. Here it is done by rejection. A round draws a token in
proportion to its probability and accepts it if the likelier tokens together stay below top_p; otherwise this
token and all that are not likelier are excluded from the next round. Accepted tokens follow the nucleus
distribution exactly; a round takes two passes over the vocabulary.
A vocabulary that is sharded over devices stays there: only sums over blocks and one block per sample are
communicated.
Axes: B slots, T samples of a slot, V vocabulary, C choices.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
_BLOCK = 256


def _pick(mass: Array, target: Array) -> tuple[Array, Array]:
    """Returns the first index at which the running sum of the mass exceeds a target, and the sum before it.

    Args:
      mass: float32 [..., n].
      target: float32 [...].

    Returns:
      int32 [...] and float32 [...].
    """
    running = jnp.cumsum(mass, axis=-1)
    n = mass.shape[-1]
    passed = running > target[..., None]
    # The last index with mass is taken if rounding leaves no sum above the target.
    last = n - 1 - jnp.argmax(jnp.flip(mass, axis=-1) > 0, axis=-1)
    index = jnp.where(jnp.any(passed, axis=-1), jnp.argmax(passed, axis=-1), last)
    is_index = jnp.arange(n).reshape((1,) * (mass.ndim - 1) + (n,)) == index[..., None]
    return index, jnp.sum(jnp.where(is_index, running - mass, 0.0), axis=-1)


def _in_blocks(mass: Array) -> tuple[Array, Array]:
    """Returns mass [B, T, V] as n blocks [B, T, n, _BLOCK], and the first id of each block, int32 [n].

    The part of the vocabulary on each device is padded separately, so that no id moves to another device.
    """
    B, T, V = mass.shape
    sharding = jax.typeof(mass).sharding
    batch, samples, vocab = sharding.spec
    names = (vocab,) if isinstance(vocab, str) else vocab or ()
    shares = math.prod(sharding.mesh.shape[name] for name in names)
    share, count = V // shares, -(-(V // shares) // _BLOCK)
    split = jnp.reshape(mass, (B, T, shares, share), out_sharding=jax.P(batch, samples, vocab, None))
    padded = jnp.pad(split, ((0, 0), (0, 0), (0, 0), (0, count * _BLOCK - share)))
    shape = (B, T, shares * count, _BLOCK)
    blocks = jnp.reshape(padded, shape, out_sharding=jax.P(batch, samples, vocab, None))
    starts = np.arange(shares)[:, None] * share + np.arange(count) * _BLOCK
    return blocks, jnp.asarray(starts.reshape(-1), jnp.int32)


class _Round(NamedTuple):
    """State of the rejection sampling.

    Attributes:
      number: Number of the round, int32 [].
      floor: Only tokens with a larger mass are still drawn, float32 [B, T].
      sums: Mass of these tokens in each block, float32 [B, T, n].
      index: Id drawn last, int32 [B, T].
      accepted: True where the id was accepted, bool [B, T].
    """

    number: Array
    floor: Array
    sums: Array
    index: Array
    accepted: Array


def draw_nucleus(mass: Array, seeds: Array, top_p: Array) -> Array:
    """Draws ids from the nucleus, int32 [B, T].

    Args:
      mass: Unnormalised probabilities, float32 [B, T, V].
      seeds: Threefry keys [B, T]; round r folds r into them.
      top_p: float32 [] in (0, 1].
    """
    blocks, starts = _in_blocks(mass)
    rows = jax.typeof(blocks).sharding.spec[:2]
    nothing = jnp.full(mass.shape[:2], -1.0, out_sharding=jax.P(*rows))

    def sums_above(floor: Array) -> Array:
        kept = jnp.where(blocks > floor[..., None, None], blocks, 0.0)
        return jax.sharding.reshard(jnp.sum(kept, axis=-1), jax.P(*rows, None))

    everything = sums_above(nothing)
    limit = top_p * jnp.sum(everything, axis=-1)

    def attempt(state: _Round) -> _Round:
        fold = jax.vmap(jax.vmap(lambda seed: jax.random.uniform(jax.random.fold_in(seed, state.number))))
        target = fold(seeds) * jnp.sum(state.sums, axis=-1)
        block, before = _pick(state.sums, target)
        chosen = jnp.arange(len(starts))[None, None] == block[..., None]
        first = jnp.sum(jnp.where(chosen, starts[None, None], 0), axis=-1)
        inside = jnp.sum(
            jnp.where(chosen[..., None] & (blocks > state.floor[..., None, None]), blocks, 0.0), axis=2
        )
        offset, _ = _pick(inside, target - before)
        drawn = jnp.sum(jnp.where(jnp.arange(_BLOCK)[None, None] == offset[..., None], inside, 0.0), axis=-1)
        sums = sums_above(drawn)
        above = jnp.sum(sums, axis=-1)
        # The token with the largest mass is always accepted. NaN compares false, so it ends the loop, too.
        accepted = state.accepted | (above < limit) | ~(above > 0.0)
        return _Round(
            number=state.number + 1,
            floor=jnp.where(accepted, state.floor, drawn),
            sums=jnp.where(accepted[..., None], state.sums, sums),
            index=jnp.where(state.accepted, state.index, first + offset),
            accepted=accepted,
        )

    start = _Round(
        number=jnp.int32(0),
        floor=nothing,
        sums=everything,
        index=jnp.zeros_like(limit, jnp.int32),
        accepted=jnp.zeros_like(limit, bool),
    )
    return jax.lax.while_loop(lambda state: ~jnp.all(state.accepted), attempt, start).index


def most_likely(logits: Array) -> Array:
    """Returns the id of the largest logit, the first of equal ones, int32 [B, T], of float32 [B, T, V]."""
    ids = jax.lax.broadcasted_iota(jnp.int32, (1, 1, logits.shape[-1]), 2)
    highest = logits == jnp.max(logits, axis=-1, keepdims=True)
    return jnp.min(jnp.where(highest, ids, logits.shape[-1]), axis=-1)


def log_probs(logits: Array, ids: Array) -> Array:
    """Returns the log-probabilities of some tokens, float32 [B, T, C].

    The softmax runs over the whole vocabulary, which may be sharded over devices.

    Args:
      logits: float32 [B, T, V].
      ids: int32 [C].
    """
    vocabulary = jax.lax.broadcasted_iota(jnp.int32, (1, 1, logits.shape[-1]), 2)
    # A sum with one term that is not zero instead of a gather, which a sharded vocabulary does not allow.
    picked = [jnp.sum(jnp.where(vocabulary == ids[c], logits, 0.0), axis=-1) for c in range(len(ids))]
    maximum = jnp.max(logits, axis=-1, keepdims=True)
    total = jnp.sum(jnp.exp(logits - maximum), axis=-1, keepdims=True)
    return jnp.stack(picked, axis=-1) - maximum - jnp.log(total)


def draw(logits: Array, keys: Array, positions: Array, temperature: Array, top_p: Array) -> Array:
    """Draws the next ids, int32 [B, T].

    Args:
      logits: float32 [B, T, V]; -inf excludes a token.
      keys: Raw threefry keys of the samples, uint32 [B, T, 2].
      positions: int32 [B, T], folded into the keys, so that draws differ between positions.
      temperature: float32 []; 0 takes the most likely token.
      top_p: float32 [] in (0, 1].
    """

    def sample() -> Array:
        mass = jnp.exp((logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature)
        fold = jax.vmap(jax.vmap(lambda key, at: jax.random.fold_in(jax.random.wrap_key_data(key), at)))
        return draw_nucleus(mass, fold(keys, positions), top_p)

    return jax.lax.cond(temperature > 0.0, sample, lambda: most_likely(logits))
