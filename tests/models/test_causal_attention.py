import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ste_jax.models.attention import causal_attention

B, K, G, H = 2, 2, 3, 8


def _inputs(T: int):
    rng = np.random.default_rng(T)
    q, k, v = (rng.normal(size=(B, T, K, *n, H)).astype(np.float32) for n in ((G,), (), ()))
    # Two packed examples and padding in the first row; one example in the second.
    segments = np.ones((B, T), np.int32)
    segments[0, T // 3 :] = 2
    segments[0, -T // 5 :] = 0
    return q, k, v, segments


def _plain(q, k, v, segments):
    """Softmax attention with the whole matrix of scores, in numpy-like steps."""
    T = q.shape[1]
    scores = jnp.einsum("BTKGH,BSKH->BKGTS", q, k) / H**0.5
    visible = (segments[:, :, None] == segments[:, None]) & np.tri(T, dtype=bool)
    weights = jax.nn.softmax(jnp.where(visible[:, None, None], scores, -jnp.inf), axis=-1)
    return jnp.einsum("BKGTS,BSKH->BTKGH", weights, v)


@pytest.mark.parametrize("T", [1, 40, 256, 700])
def test_blocks_equal_the_whole_matrix(T):
    inputs = _inputs(T)
    np.testing.assert_allclose(causal_attention(*inputs), _plain(*inputs), atol=5e-6)


def test_gradients_equal_those_of_the_whole_matrix():
    *inputs, segments = _inputs(600)

    def gradients(attend):
        return jax.grad(lambda *x: jnp.sum(jnp.sin(attend(*x, segments))), argnums=(0, 1, 2))(*inputs)

    for ours, plain in zip(gradients(causal_attention), gradients(_plain), strict=True):
        np.testing.assert_allclose(ours, plain, atol=2e-5)
