"""Selects what of a model is trained: all parameters, or low-rank adapters (LoRA) of frozen matrices."""

import math

import jax

from ste_jax.models.adapters import Adapters
from ste_jax.models.llama import Llama, LlamaConfig, Parameter, parameter_table, random_parameter
from ste_jax.training.settings import TrainSettings

# Number of input axes of the matrices that have several; input axes come first.
_INPUTS = {"wo": 3}


def adapter_table(cfg: LlamaConfig, rank: int) -> dict[str, Parameter]:
    """Returns the two adapters of each matrix by name: a [L, *inputs, rank] and b [L, rank, *outputs]."""
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
        table[f"{name}_b"] = Parameter((layers, rank, *outputs), (None, None, *axes[cut:]), 0.0)
    return table


def add_lora(model: Llama, settings: TrainSettings, key: jax.Array) -> Llama:
    """Returns the model with new adapters of `settings.lora_rank`, or the model itself if that is 0.

    The adapters have `settings.param_dtype` and the sharding rules of the model; b is zero, so that the first
    step starts from the model itself.
    """
    if not settings.lora_rank:
        return model
    table = adapter_table(model.cfg, settings.lora_rank)
    keys = dict(zip(table, jax.random.split(key, len(table)), strict=True))
    arrays = {
        name: random_parameter(keys[name], p, model.rules, settings.param_dtype) for name, p in table.items()
    }
    return replace_trainable(model, Adapters(settings.lora_alpha / settings.lora_rank, arrays))


def trainable(model: Llama) -> Llama | Adapters:
    """Returns the part of a model that has gradients and optimizer state and is stored in checkpoints."""
    return model if model.blocks.adapters is None else model.blocks.adapters


def replace_trainable(model: Llama, part: Llama | Adapters) -> Llama:
    """Returns the model with another trainable part; no array is copied."""
    return part if isinstance(part, Llama) else model.with_adapters(part)
