"""Drawing the next token: temperature, then top-p without sorting the vocabulary, one uniform number a token.

Nucleus sampling is Holtzman et al. 2019 (arXiv 1904.09751): the smallest set of most likely tokens whose
mass reaches top_p. Its threshold is found by bisection over the bits of the probabilities: non-negative
floats order like their bits.
"""

import jax
import jax.numpy as jnp

Array = jax.Array

_ONE_BITS = 0x3F800000
# From one down to (1 - top_p) / V there are fewer than 2**29 floats for any vocabulary and top_p in use.
_BISECTIONS = 29
_BLOCK = 256


def nucleus_threshold(mass: Array, top_p: Array) -> Array:
    """Returns the smallest mass that is kept, [B, T], of unnormalised masses [B, T, V] whose maximum is one.

    Tokens of equal mass stay or go together.
    """
    total = jnp.sum(mass, axis=-1)
    target = top_p * total
    # Tokens below this floor weigh less than 1 - top_p all together, so that the threshold cannot lie under
    # it.
    floor = (1.0 - top_p) * total / mass.shape[-1]
    low = jax.lax.bitcast_convert_type(jnp.minimum(floor, 1.0), jnp.int32)
    high = jnp.full_like(low, _ONE_BITS) + 1

    def halve(_, bounds):
        low, high = bounds
        middle = low + (high - low) // 2
        threshold = jax.lax.bitcast_convert_type(middle, jnp.float32)
        kept = jnp.sum(jnp.where(mass >= threshold[..., None], mass, 0.0), axis=-1)
        enough = kept >= target
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    low, _ = jax.lax.fori_loop(0, _BISECTIONS, halve, (low, high))
    return jax.lax.bitcast_convert_type(low, jnp.float32)


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


def draw_from_mass(mass: Array, uniform: Array) -> Array:
    """Draws an index, int32 [B, T], in proportion to mass [B, T, V] with one number in [0, 1) each, [B,
    T].
    """
    B, T, V = mass.shape
    padding = -V % _BLOCK
    padded = jnp.pad(mass, ((0, 0), (0, 0), (0, padding)))
    axes = jax.typeof(mass).sharding.spec
    blocks = jnp.reshape(padded, (B, T, -1, _BLOCK), out_sharding=jax.P(*axes[:2], None, None))
    sums = jnp.sum(blocks, axis=-1)
    target = uniform * jnp.sum(sums, axis=-1)
    block, before = _pick(sums, target)
    chosen = jnp.arange(blocks.shape[2])[None, None, :, None] == block[..., None, None]
    inside = jnp.sum(jnp.where(chosen, blocks, 0.0), axis=2)
    offset, _ = _pick(inside, target - before)
    return (block * _BLOCK + offset).astype(jnp.int32)


def draw(logits: Array, keys: Array, positions: Array, temperature: Array, top_p: Array) -> Array:
    """Draws the next ids, int32 [B, T].

    Args:
      logits: float32 [B, T, V]; -inf excludes a token.
      keys: raw threefry keys of the samples, uint32 [B, T, 2].
      positions: int32 [B, T], folded into the keys: every position draws anew.
      temperature: scalar; 0 takes the most likely token.
      top_p: scalar in (0, 1].
    """
    greedy = jnp.argmax(logits, axis=-1).astype(jnp.int32)

    def uniform(key: Array, position: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.wrap_key_data(key), position))

    def sample() -> Array:
        mass = jnp.exp((logits - jnp.max(logits, axis=-1, keepdims=True)) / temperature)
        kept = jnp.where(mass >= nucleus_threshold(mass, top_p)[..., None], mass, 0.0)
        return draw_from_mass(kept, jax.vmap(jax.vmap(uniform))(keys, positions))

    return jax.lax.cond(temperature > 0.0, sample, lambda: greedy)
