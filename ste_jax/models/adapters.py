"""Low-rank adapters of the layers' matrices (LoRA, arXiv 2106.09685).

qwix is not used: it finds the weight in the right operand of a product that a method of a module computes,
and stores its adapters in that module. Here a function gets slices of stacked matrices from a scan, and their
products have a custom gradient, so there is neither such a module nor such an operand.
Axes: L layers, R rank; see `llama` for the others.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ste_jax.models.einsum import einsum_vjp

Array = jax.Array


class Adapters(nnx.Module):
    """Adapters A [L, inputs, R] and B [L, R, outputs] of stacked matrices W [L, inputs, outputs].

    A layer multiplies by W + scale * A B without computing that matrix. The attributes are named after the
    matrix in `Blocks` with the suffix `_a` or `_b`; inputs and outputs may be several axes.
    """

    def __init__(self, scale: float, arrays: Mapping[str, Array]):
        self.scale = scale
        for name, array in arrays.items():
            setattr(self, name, nnx.Param(array))

    def lora_delta(
        self, name: str, spec: str, x: Array, *, low_rank_sharding: Any, out_sharding: Any
    ) -> Array:
        """Returns the term added to `einsum_vjp(spec, x, W, out_sharding)`, of the same shape and dtype.

        Args:
          name: Name of the matrix.
          spec: Einsum with the matrix of one layer.
          x: Activations [B, T, inputs].
          low_rank_sharding: Sharding of the intermediate result [B, T, R].
          out_sharding: Sharding of the result.
        """
        operands, y_axes = spec.split("->")
        x_axes, w_axes = operands.split(",")
        inputs = "".join(axis for axis in w_axes if axis in x_axes)
        outputs = "".join(axis for axis in w_axes if axis not in x_axes)
        a, b = (getattr(self, f"{name}_{side}")[...].astype(x.dtype) for side in "ab")
        low_rank = einsum_vjp(f"{x_axes},{inputs}R->BTR", x, a, low_rank_sharding)
        # Not saved: recomputing the result from `low_rank` costs little.
        return self.scale * einsum_vjp(f"BTR,R{outputs}->{y_axes}", low_rank, b, out_sharding, saved=False)

    def merge(self, name: str, matrices: Array) -> Array:
        """Returns the matrices [L, inputs, outputs] with the adapters added, in their dtype.

        A parameter without adapters is returned unchanged.
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

    def merge_layer(layer: tuple[Array, Array, Array]) -> Array:
        matrix, a, b = layer
        delta = jnp.einsum(f"{inputs}R,R{outputs}->{inputs}{outputs}", a, b, out_sharding=out)
        return (matrix.astype(jnp.float32) + scale * delta.astype(jnp.float32)).astype(matrix.dtype)

    # One layer at a time, since the float32 products of all layers may not fit into memory next to the model.
    return jax.lax.map(merge_layer, (matrices, a, b))
