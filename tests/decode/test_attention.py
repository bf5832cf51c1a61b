import jax
import jax.numpy as jnp
import numpy as np

from ste_jax.decode.attention import KVSegment, attend_segments

B, M, T, K, G, H, P, S = 2, 2, 3, 2, 4, 8, 12, 5


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
    prompt_k, prompt_v = _random(B, M, K, P, H), _random(B, M, K, P, H) + 1
    own_k, own_v = _random(B, T, K, S, H), _random(B, T, K, S, H) - 1
    length, prompt_index = jnp.array([[7, 4], [12, 3]]), jnp.array([[0, 1, 1], [1, 0, 0]])
    written = jnp.asarray(np.random.default_rng(0).random((B, T, S)) < 0.6)
    in_prompts = jnp.arange(P)[None, None, None] < length[:, :, None, None]
    in_prompts &= prompt_index[:, None, :, None] == jnp.arange(M)[None, :, None, None]
    merged = attend_segments(
        q,
        [
            KVSegment(prompt_k.swapaxes(-1, -2), prompt_v, in_prompts),
            KVSegment(
                *(jnp.swapaxes(x, 1, 2) for x in (own_k.swapaxes(-1, -2), own_v)),
                written[:, None],
                is_suffix=True,
            ),
        ],
    )
    slot = jnp.arange(B)[:, None]
    visible = jnp.concatenate(
        [jnp.arange(P)[None, None] < length[slot, prompt_index][..., None], written], axis=-1
    )
    plain = _plain(
        q,
        jnp.concatenate([prompt_k[slot, prompt_index], own_k], axis=3),
        jnp.concatenate([prompt_v[slot, prompt_index], own_v], axis=3),
        visible,
    )
    np.testing.assert_allclose(merged, plain, atol=2e-6)


def test_a_part_without_visible_keys_changes_no_bit():
    q, k, v = _random(B, T, K, G, H), _random(B, M, K, H, P), _random(B, M, K, P, H)
    own = KVSegment(
        _random(B, K, T, H, S), _random(B, K, T, S, H), jnp.ones((B, 1, T, S), bool), is_suffix=True
    )
    nothing = KVSegment(k, v, jnp.zeros((B, M, T, P), bool))
    alone = attend_segments(q, [own])
    np.testing.assert_array_equal(attend_segments(q, [nothing, own]), alone)
    np.testing.assert_array_equal(attend_segments(q, [own, nothing]), alone)


def test_the_place_of_a_prompt_changes_no_bit():
    q, k, v = _random(B, T, K, G, H), _random(B, M, K, H, P), _random(B, M, K, P, H)
    seen = jnp.arange(M)[None, :, None, None] == 0
    first = jnp.broadcast_to(seen, (B, M, T, P)) & (jnp.arange(P) < 9)[None, None, None]
    moved = KVSegment(k[:, ::-1], v[:, ::-1], first[:, ::-1])
    np.testing.assert_array_equal(attend_segments(q, [moved]), attend_segments(q, [KVSegment(k, v, first)]))
