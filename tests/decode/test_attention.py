import jax
import jax.numpy as jnp
import numpy as np

from ste_jax.decode.attention import Part, attend_parts

B, T, K, G, H, P, S = 2, 3, 2, 4, 8, 12, 5


def _random(*shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).normal(size=shape), jnp.float32)


def _plain(q, keys, values, visible):
    """Softmax attention over all keys at once: q [B,T,K,G,H], keys and values [B,T,K,S,H], visible
    [B,T,S].
    """
    scores = jnp.einsum("BTKGH,BTKSH->BTKGS", q, keys)
    scores = jnp.where(visible[:, :, None, None, :], scores, -jnp.inf)
    return jnp.einsum("BTKGS,BTKSH->BTKGH", jax.nn.softmax(scores, axis=-1), values)


def test_merged_attention_equals_plain_attention():
    q = _random(B, T, K, G, H) * 3
    prefix_k, prefix_v = _random(B, K, P, H), _random(B, K, P, H) + 1
    own_k, own_v = _random(B, T, K, S, H), _random(B, T, K, S, H) - 1
    in_prefix = jnp.arange(P)[None] < jnp.array([7, 12])[:, None]
    written = jnp.asarray(np.random.default_rng(0).random((B, T, S)) < 0.6)
    merged = attend_parts(
        q,
        [
            Part(prefix_k.swapaxes(-1, -2), prefix_v, in_prefix),
            Part(*(jnp.swapaxes(x, 1, 2) for x in (own_k.swapaxes(-1, -2), own_v)), written),
        ],
    )
    spread = lambda x: jnp.broadcast_to(x[:, None], (B, T, K, P, H))  # noqa: E731
    visible = jnp.concatenate([jnp.broadcast_to(in_prefix[:, None], (B, T, P)), written], axis=-1)
    plain = _plain(
        q,
        jnp.concatenate([spread(prefix_k), own_k], axis=3),
        jnp.concatenate([spread(prefix_v), own_v], axis=3),
        visible,
    )
    np.testing.assert_allclose(merged, plain, atol=2e-6)


def test_a_part_without_visible_keys_changes_no_bit():
    q, k, v = _random(B, T, K, G, H), _random(B, K, H, P), _random(B, K, P, H)
    own = Part(_random(B, K, T, H, S), _random(B, K, T, S, H), jnp.ones((B, T, S), bool))
    nothing = Part(k, v, jnp.zeros((B, P), bool))
    alone = attend_parts(q, [own])
    np.testing.assert_array_equal(attend_parts(q, [nothing, own]), alone)
    np.testing.assert_array_equal(attend_parts(q, [own, nothing]), alone)
