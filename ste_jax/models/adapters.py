"""Low-rank changes of the layers' matrices (LoRA, arXiv 2106.09685): what they add, and merging them in.

Ours and not qwix's: that library finds the weight in the right operand of a product that a module's own
method makes, and puts its adapters into that module. Here a function gets slices of stacked matrices from a
scan, and their products have gradients of their own: there is no such module and no such operand.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ste_jax.models.product import product

Array = jax.Array


class Adapters(nnx.Module):
    """For a matrix W of every layer, [L, inputs, outputs], an A [L, inputs, R] and a B [L, R, outputs].

    The layer multiplies with W + scale * A B, without making it. An attribute is called as the matrix in
    `Blocks`, followed by `_a` or `_b`; inputs and outputs may be several axes.
    """

    def __init__(self, scale: float, arrays: Mapping[str, Array]):
        self.scale = scale
        for name, array in arrays.items():
            setattr(self, name, nnx.Param(array))

    def change(self, name: str, spec: str, x: Array, *, narrow: Any, out_sharding: Any) -> Array:
        """Returns what is to be added to `product(spec, x, W, out_sharding)`.

        Args:
          name: of the matrix.
          spec: of the product with one layer's matrix.
          x: the activations; the change has their dtype.
          narrow: the sharding of [B, T, R].
          out_sharding: of the product.
        """
        operands, y_axes = spec.split("->")
        x_axes, w_axes = operands.split(",")
        inputs = "".join(axis for axis in w_axes if axis in x_axes)
        outputs = "".join(axis for axis in w_axes if axis not in x_axes)
        a, b = (getattr(self, f"{name}_{side}")[...].astype(x.dtype) for side in "ab")
        low = product(f"{x_axes},{inputs}R->BTR", x, a, narrow)
        # Not worth its memory: it is made again from `low` in no time.
        return self.scale * product(f"BTR,R{outputs}->{y_axes}", low, b, out_sharding, saved=False)

    def merge(self, name: str, matrices: Array) -> Array:
        """Returns the matrices [L, inputs, outputs] with their changes in them, in their dtype.

        A parameter that has no adapter is returned as it is.
        """
        if not hasattr(self, f"{name}_a"):
            return matrices
        a, b = (getattr(self, f"{name}_{side}")[...] for side in "ab")
        return _merge(matrices, a, b, scale=self.scale)


@partial(jax.jit, static_argnames="scale")
def _merge(matrices: Array, a: Array, b: Array, *, scale: float) -> Array:
    inputs, outputs = "abc"[: a.ndim - 2], "xyz"[: b.ndim - 2]
    sharding = jax.typeof(matrices).sharding
    out = sharding.update(spec=jax.P(*sharding.spec[1:]))

    def one(layer: tuple[Array, Array, Array]) -> Array:
        matrix, a, b = layer
        change = jnp.einsum(f"{inputs}R,R{outputs}->{inputs}{outputs}", a, b, out_sharding=out)
        return (matrix.astype(jnp.float32) + scale * change.astype(jnp.float32)).astype(matrix.dtype)

    # Layer by layer: all float32 changes at once would not fit beside a large model.
    return jax.lax.map(one, (matrices, a, b))
