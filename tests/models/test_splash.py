import functools

import jax
import jax.numpy as jnp
import numpy as np

from ste_jax.models.attention import causal_attention
from ste_jax.models.splash import splash_attention
from ste_jax.sharding import TRAIN, make_mesh

B, T, K, G, H = 2, 256, 2, 2, 128


def attend_and_differentiate(attend, shape):
    """The values of packed rows and the gradients of queries, keys and values."""
    rng = np.random.default_rng(0)
    mesh = make_mesh(shape, jax.devices()[: np.prod(shape)])
    # Three packed examples and padding in the first row, two in the second.
    segments = np.ones((B, T), np.int32)
    segments[0, 100:], segments[0, 150:], segments[0, 220:] = 2, 3, 0
    segments[1, 13:] = 2

    def put(array, *axes):
        return jax.device_put(array, jax.NamedSharding(mesh, TRAIN.spec("batch", None, *axes)))

    q = put(rng.normal(size=(B, T, K, G, H)).astype(np.float32), "kv_heads", None, None)
    k, v = (put(rng.normal(size=(B, T, K, H)).astype(np.float32), "kv_heads", None) for _ in range(2))
    weights = rng.normal(size=q.shape).astype(np.float32)

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1, 2), has_aux=True)
    def differentiate(q, k, v, segments):
        values = attend(q, k, v, segments)
        return jnp.sum(weights * values), values

    with jax.set_mesh(mesh):
        gradients, values = differentiate(q, k, v, put(segments))
    assert values.sharding.spec == q.sharding.spec
    return values, *gradients


def test_the_kernel_shared_by_devices_equals_ours_in_values_and_gradients():
    attend = functools.partial(splash_attention, rules=TRAIN, interpret=True)
    expected = attend_and_differentiate(causal_attention, (1, 1, 1))
    for reference, found in zip(attend_and_differentiate(attend, (1, 2, 2)), expected, strict=True):
        np.testing.assert_allclose(reference, found, rtol=1e-4, atol=2e-5)
