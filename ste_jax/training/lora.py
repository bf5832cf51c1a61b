"""What of a model is trained: everything, or low-rank adapters of its layers beside frozen weights."""

import math

import jax

from ste_jax.models.adapters import Adapters
from ste_jax.models.llama import Llama, LlamaConfig, Parameter, parameter_table, random_parameter
from ste_jax.training.settings import TrainSettings

# Axes of a layer's matrix that a product sums over, where they are several: they stand in front.
_INPUTS = {"wo": 3}


def adapter_table(cfg: LlamaConfig, rank: int) -> dict[str, Parameter]:
    """Returns the two adapters of each matrix by name: together they have the axes of the matrix."""
    table = {}
    for path, matrix in parameter_table(cfg).items():
        blocks, _, name = path.rpartition(".")
        if not blocks or matrix.std is None:
            continue
        cut = 1 + _INPUTS.get(name, 1)
        (layers, *inputs), outputs = matrix.shape[:cut], matrix.shape[cut:]
        axes = matrix.axes
        std = math.prod(inputs) ** -0.5
        table[f"{name}_a"] = Parameter((layers, *inputs, rank), (*axes[:cut], None), std)
        # Zero: the first step starts from the model itself.
        table[f"{name}_b"] = Parameter((layers, rank, *outputs), (None, None, *axes[cut:]), 0.0)
    return table


def add_lora(model: Llama, settings: TrainSettings, key: jax.Array) -> Llama:
    """Returns the model as `settings` train it: with new adapters where they ask for them."""
    if not settings.lora_rank:
        return model
    table = adapter_table(model.cfg, settings.lora_rank)
    keys = dict(zip(table, jax.random.split(key, len(table)), strict=True))
    arrays = {
        name: random_parameter(keys[name], p, model.rules, settings.param_dtype) for name, p in table.items()
    }
    return replace_trainable(model, Adapters(settings.lora_alpha / settings.lora_rank, arrays))


def trainable(model: Llama) -> Llama | Adapters:
    """Returns the part of a model that has gradients, an optimizer's state and a place in checkpoints."""
    return model if model.blocks.adapters is None else model.blocks.adapters


def replace_trainable(model: Llama, part: Llama | Adapters) -> Llama:
    """Returns the model with another such part; nothing is copied."""
    return part if isinstance(part, Llama) else model.with_adapters(part)
