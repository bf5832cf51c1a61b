"""The products of activations and weights, with gradients in the order that is cheapest to read."""

from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

Array = jax.Array
# What a rematerialisation policy calls these products, and attention; by primitive it would not see them.
PRODUCT = "product"


def product(spec: str, x: Array, w: Array, out_sharding: Any = None, *, saved: bool = True) -> Array:
    """Returns `jnp.einsum(spec, x, w, out_sharding=...)` of activations and a weight.

    The gradient of `w` contracts all rows of x and of the output's gradient, and XLA on CPU copies the left
    one of the two transposed, with whatever elementwise work made it: for the feed-forward layers that took
    longer than the products. Here the left one is the narrower, which is of the model's width and plain.
    Rematerialisation policies see it where it is `saved`.
    """
    y = cast(Array, _product(spec, x, w, out_sharding))
    return checkpoint_name(y, PRODUCT) if saved else y


@partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def _product(spec: str, x: Array, w: Array, out_sharding: Any) -> Array:
    return jnp.einsum(spec, x, w, out_sharding=out_sharding)


def _forward(spec: str, x: Array, w: Array, out_sharding: Any) -> tuple[Array, tuple[Array, Array]]:
    return _product(spec, x, w, out_sharding), (x, w)


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
        # XLA on CPU would turn the product round to save this transposition, and copy the wide operand.
        dw = jax.lax.platform_dependent(dw, cpu=jax.lax.optimization_barrier, default=lambda dw: dw)
        dw = jnp.einsum(f"{order}->{w_axes}", dw)
    return dx, dw


_product.defvjp(_forward, _backward)
