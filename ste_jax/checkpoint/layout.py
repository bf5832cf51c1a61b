"""Converts between a stacked parameter and the tensors of a file, one per layer.

In Hugging Face files matrices are [out, in] and heads are folded into one of the two axes. Parameters are
[in, out], with an axis for each kind of head and a leading axis for the layers.
"""

import math
from collections.abc import Callable

import jax
import numpy as np

from ste_jax.models.llama import LlamaConfig, parameter_table


def is_stacked(parameter: str) -> bool:
    """Returns True if a parameter holds all layers."""
    return parameter.startswith("blocks.")


def tensor_names(cfg: LlamaConfig, parameter: str, pattern: str) -> list[str]:
    """Returns the names of a parameter's tensors, layer by layer; `pattern` has a field for the layer."""
    return [pattern.format(layer) for layer in range(cfg.num_layers if is_stacked(parameter) else 1)]


def tensor_shapes(cfg: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Returns the shape in the file of one tensor of each parameter."""
    return {name: _tensor_shape(name, p.shape) for name, p in parameter_table(cfg).items()}


def _tensor_shape(parameter: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if not is_stacked(parameter):
        return shape
    if len(shape) == 2:
        return shape[1:]
    if parameter == "blocks.wo":
        return (shape[-1], math.prod(shape[1:-1]))
    return (math.prod(shape[2:]), shape[1])


def stack(
    parameter: str, target: jax.ShapeDtypeStruct, names: list[str], read: Callable[[str], np.ndarray]
) -> np.ndarray:
    """Returns a parameter in the shape and dtype of `target`, host memory, reading one tensor at a time."""
    host = np.empty(target.shape, target.dtype)
    if not is_stacked(parameter):
        host[...] = read(names[0])
        return host
    for layer, name in enumerate(names):
        host[layer] = read(name).T.reshape(target.shape[1:])
    return host


def tensor_of(parameter: str, host: np.ndarray, layer: int, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the tensor [*shape] of a layer, as a view: the inverse of `stack`."""
    return host[layer].reshape(shape[::-1]).T if is_stacked(parameter) else host
