"""Drawing the next token: temperature, then top-p, without sorting the vocabulary or gathering it.

Nucleus sampling is Holtzman et al. 2019 (arXiv 1904.09751): the smallest set of most likely tokens whose
mass reaches top_p. It is done by rejection: a token is drawn in proportion to its mass and accepted if the
tokens likelier than it weigh less than top_p; if not, it and all that are not likelier are out, and the next
round draws among the rest. What is accepted follows the nucleus exactly; a round costs two passes.
A vocabulary that lies on several devices stays there: only sums of blocks and one block a sample leave them.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
_BLOCK = 256


def _pick(mass: Array, target: Array) -> tuple[Array, Array]:
    """Returns the first index of [..., n] at which the running sum passes `target`, and the sum before it."""
    running = jnp.cumsum(mass, axis=-1)
    n = mass.shape[-1]
    passed = running > target[..., None]
    last = (
        n - 1 - jnp.argmax(jnp.flip(mass, axis=-1) > 0, axis=-1)
    )  # where rounding leaves nothing that passes
    index = jnp.where(jnp.any(passed, axis=-1), jnp.argmax(passed, axis=-1), last)
    here = jnp.arange(n).reshape((1,) * (mass.ndim - 1) + (n,)) == index[..., None]
    return index, jnp.sum(jnp.where(here, running - mass, 0.0), axis=-1)


def _in_blocks(mass: Array) -> tuple[Array, Array]:
    """Returns mass [B, T, V] as blocks [B, T, n, _BLOCK], and the first id of each, int32 [n].

    Each device's share of the vocabulary is padded by itself, so that no id changes its device.
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
    """State of the rejection: what is drawn among is heavier than `floor` [B, T]; `sums` [B, T, n] are the
    blocks' masses of it.
    """

    number: Array
    floor: Array
    sums: Array
    index: Array
    accepted: Array


def draw_nucleus(mass: Array, seeds: Array, top_p: Array) -> Array:
    """Draws from the nucleus: int32 [B, T].

    Args:
      mass: unnormalised, float32 [B, T, V].
      seeds: threefry keys [B, T]; round r draws with r folded in.
      top_p: scalar in (0, 1].
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
        # The heaviest is always in. Masses that are not numbers have nothing above them: they end the loop.
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
    """Returns the first id of the highest logit, int32 [B, T], of float32 [B, T, V]."""
    ids = jax.lax.broadcasted_iota(jnp.int32, (1, 1, logits.shape[-1]), 2)
    highest = logits == jnp.max(logits, axis=-1, keepdims=True)
    return jnp.min(jnp.where(highest, ids, logits.shape[-1]), axis=-1)


def log_probs(logits: Array, ids: Array) -> Array:
    """Returns the log-probabilities of some tokens, float32 [B, T, C].

    They are taken from the softmax over the whole vocabulary, wherever its parts lie.

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
      keys: raw threefry keys of the samples, uint32 [B, T, 2].
      positions: int32 [B, T], folded into the keys: every position draws anew.
      temperature: scalar; 0 takes the most likely token.
      top_p: scalar in (0, 1].
    """

    def sample() -> Array:
        mass = jnp.exp((logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature)
        fold = jax.vmap(jax.vmap(lambda key, at: jax.random.fold_in(jax.random.wrap_key_data(key), at)))
        return draw_nucleus(mass, fold(keys, positions), top_p)

    return jax.lax.cond(temperature > 0.0, sample, lambda: most_likely(logits))
