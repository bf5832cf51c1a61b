"""Einsums of activations and weights with a gradient whose operand order is fast on CPU."""

from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

Array = jax.Array
# Name of the results of `einsum_vjp` and of attention in rematerialization policies, which do not look
# inside functions with a custom gradient.
SAVED = "saved"


def einsum_vjp(spec: str, x: Array, w: Array, out_sharding: Any = None, *, saved: bool = True) -> Array:
    """Returns `jnp.einsum(spec, x, w, out_sharding=...)` of activations and a weight, in their dtype.

    The gradient of `w` contracts all rows of `x` with those of the output's gradient. XLA on CPU makes a
    transposed copy of the left operand, together with the elementwise operations that compute it; in the
    feed-forward layers this took longer than the matrix products. Here the left operand is the smaller of the
    two, which has the width of the model and comes from no elementwise operation.

    Args:
      spec: Einsum of two operands, such as "BTD,DF->BTF".
      x: Activations.
      w: Weight of the same dtype.
      out_sharding: Sharding of the result; None infers it.
      saved: Names the result `SAVED` for rematerialization policies.
    """
    y = cast(Array, _einsum(spec, x, w, out_sharding))
    return checkpoint_name(y, SAVED) if saved else y


@partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def _einsum(spec: str, x: Array, w: Array, out_sharding: Any) -> Array:
    return jnp.einsum(spec, x, w, out_sharding=out_sharding)


def _forward(spec: str, x: Array, w: Array, out_sharding: Any) -> tuple[Array, tuple[Array, Array]]:
    return _einsum(spec, x, w, out_sharding), (x, w)


def _backward(
    spec: str, out_sharding: Any, kept: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    x, w = kept
    operands, y_axes = spec.split("->")
    x_axes, w_axes = operands.split(",")
    dx = jnp.einsum(f"{y_axes},{w_axes}->{x_axes}", gradient, w, out_sharding=jax.typeof(x).sharding)
    left, right = (x_axes, x), (y_axes, gradient)
    if x.size > gradient.size:
        left, right = right, left
    order, sharding = "".join(a for a in left[0] + right[0] if a in w_axes), jax.typeof(w).sharding
    out = sharding.update(spec=jax.P(*(sharding.spec[w_axes.index(a)] for a in order)))
    dw = jnp.einsum(f"{left[0]},{right[0]}->{order}", left[1], right[1], out_sharding=out)
    if order != w_axes:
        # Without the barrier, XLA on CPU would swap the operands to save this transposition.
        dw = jax.lax.platform_dependent(dw, cpu=jax.lax.optimization_barrier, default=lambda dw: dw)
        dw = jnp.einsum(f"{order}->{w_axes}", dw)
    return dx, dw


_einsum.defvjp(_forward, _backward)
