import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ste_jax.models.attention import causal_attention
from ste_jax.models.einsum import SAVED
from ste_jax.sharding import TRAIN, make_mesh, put_on_mesh

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


def _gradients(attend, inputs):
    *arrays, segments = inputs
    return jax.grad(lambda *x: jnp.sum(jnp.sin(attend(*x, segments))), argnums=(0, 1, 2))(*arrays)


@pytest.mark.parametrize("T", [1, 40, 600])
def test_gradients_equal_those_that_jax_derives_of_the_whole_matrix(T):
    inputs = _inputs(T)
    for found, plain in zip(_gradients(causal_attention, inputs), _gradients(_plain, inputs), strict=True):
        assert np.linalg.norm(found - plain) <= 1e-5 * np.linalg.norm(plain)
        np.testing.assert_allclose(found, plain, rtol=1e-5, atol=1e-5)


def test_gradients_of_bfloat16_are_within_its_rounding():
    *arrays, segments = _inputs(300)
    narrow = (*(jnp.asarray(x, jnp.bfloat16) for x in arrays), segments)
    wide = (*(x.astype(jnp.float32) for x in narrow[:3]), segments)
    for found, exact in zip(_gradients(causal_attention, narrow), _gradients(_plain, wide), strict=True):
        assert found.dtype == jnp.bfloat16
        assert np.linalg.norm(found.astype(np.float32) - exact) <= 0.01 * np.linalg.norm(exact)


def test_gradients_stay_on_the_devices_of_their_arrays():
    mesh = make_mesh((2, 1, 2), jax.devices()[:4])
    inputs = _inputs(300)
    expected = _gradients(causal_attention, inputs)
    names = [("batch", None, "kv_heads", *[None] * (x.ndim - 3)) for x in inputs[:3]] + [("batch", None)]
    placed = [put_on_mesh(x, mesh, TRAIN.spec(*n)) for x, n in zip(inputs, names, strict=True)]
    with jax.set_mesh(mesh):
        found = jax.jit(lambda *x: _gradients(causal_attention, x))(*placed)
    for gradient, whole, like in zip(found, expected, placed, strict=False):
        assert gradient.sharding.is_equivalent_to(like.sharding, like.ndim)
        np.testing.assert_allclose(gradient, whole, rtol=1e-5, atol=1e-6)


def test_a_policy_that_keeps_products_does_not_attend_again():
    q, k, v, segments = _inputs(40)

    def exponentials(policy):
        attend = jax.checkpoint(lambda *x: jnp.sum(causal_attention(*x, segments) ** 2), policy=policy)
        return str(jax.make_jaxpr(jax.grad(attend, (0, 1, 2)))(q, k, v)).count(" exp ")

    keep = jax.checkpoint_policies.save_only_these_names(SAVED)
    assert (exponentials(keep), exponentials(None)) == (2, 3)
