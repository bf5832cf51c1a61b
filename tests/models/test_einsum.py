import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import print_saved_residuals

from ste_jax.models.einsum import SAVED, einsum_vjp
from ste_jax.sharding import TRAIN, make_mesh

B, T, D, F, K, G, H = 8, 3, 16, 32, 2, 2, 4
SIZES = {"B": B, "T": T, "D": D, "F": F, "K": K, "G": G, "H": H}
NAMES = {"B": "batch", "D": "embed", "F": "mlp", "K": "kv_heads"}


@pytest.mark.parametrize("mesh_shape", [(1, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("spec", ["BTD,DKGH->BTKGH", "BTD,DKH->BTKH", "BTKGH,KGHD->BTD", "BTF,FD->BTD"])
def test_gradients_are_those_of_einsum(spec, mesh_shape):
    mesh = make_mesh(mesh_shape, jax.devices()[: np.prod(mesh_shape)])
    (x_axes, w_axes), y_axes = spec.split("->")[0].split(","), spec.split("->")[1]
    random = np.random.default_rng(0)

    def put(axes: str, weight: bool) -> jax.Array:
        # Activations carry no mesh axis along D.
        names = [NAMES.get(a) if weight or a != "D" else None for a in axes]
        values = random.normal(size=[SIZES[a] for a in axes]).astype(np.float32)
        return jax.device_put(values, jax.NamedSharding(mesh, TRAIN.spec(*names)))

    x, w = put(x_axes, False), put(w_axes, True)
    factor, out = put(y_axes, False), None if x_axes[-1] == "D" else TRAIN.spec("batch", None, None)

    def gradients(multiply):
        return jax.grad(lambda x, w: jnp.sum(factor * multiply(x, w)), (0, 1))(x, w)

    with jax.set_mesh(mesh):
        found = jax.jit(gradients, static_argnums=0)(lambda x, w: einsum_vjp(spec, x, w, out))
        expected = jax.jit(gradients, static_argnums=0)(lambda x, w: jnp.einsum(spec, x, w, out_sharding=out))
    for gradient, plain, value in zip(found, expected, (x, w), strict=True):
        np.testing.assert_allclose(gradient, plain, rtol=1e-5, atol=1e-5)
        assert gradient.sharding.is_equivalent_to(value.sharding, value.ndim)


def test_a_policy_can_keep_products_and_nothing_else(capsys):
    def layer(x, w):
        return einsum_vjp("BTF,FD->BTD", jnp.sin(jnp.cos(einsum_vjp("BTD,DF->BTF", x, w))), w.T)

    keep = jax.checkpoint_policies.save_only_these_names(SAVED)
    x, w = jnp.ones((B, T, D)), jnp.ones((D, F))
    print_saved_residuals(lambda x, w: jnp.sum(jax.checkpoint(layer, policy=keep)(x, w)), x, w)
    shapes = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert sorted(shapes) == sorted([f"f32[{B},{T},{D}]", f"f32[{D},{F}]", f"f32[{B},{T},{F}]"])


def test_no_gradient_on_cpu_copies_a_wide_operand_transposed():
    x, w = jnp.ones((B, T, F)), jnp.ones((F, D))
    gradients = jax.jit(
        jax.grad(lambda x, w: jnp.sum(jnp.sin(einsum_vjp("BTF,FD->BTD", jnp.cos(x), w))), (0, 1))
    )
    assert f"f32[{F},{B * T}]" not in str(gradients.lower(x, w).compile().as_text())
