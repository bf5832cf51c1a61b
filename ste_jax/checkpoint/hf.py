"""Hugging Face folders of Llamas: config.json and safetensors, whole or in shards.

Reading is here; `export` writes such folders.
"""

import dataclasses
import logging
import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from ste_jax.errors import SteError
from ste_jax.models.llama import LlamaConfig
from ste_jax.models.rope import LinearScaling, RopeScaling, Scaling
from ste_jax.storage.files import read_json

_log = logging.getLogger(__name__)
INDEX = "model.safetensors.index.json"
NAMES = {
    "embed": "model.embed_tokens.weight",
    "final_norm": "model.norm.weight",
    "unembed": "lm_head.weight",
    "blocks.attention_norm": "model.layers.{}.input_layernorm.weight",
    "blocks.wq": "model.layers.{}.self_attn.q_proj.weight",
    "blocks.wk": "model.layers.{}.self_attn.k_proj.weight",
    "blocks.wv": "model.layers.{}.self_attn.v_proj.weight",
    "blocks.wo": "model.layers.{}.self_attn.o_proj.weight",
    "blocks.mlp_norm": "model.layers.{}.post_attention_layernorm.weight",
    "blocks.w_gate": "model.layers.{}.mlp.gate_proj.weight",
    "blocks.w_up": "model.layers.{}.mlp.up_proj.weight",
    "blocks.w_down": "model.layers.{}.mlp.down_proj.weight",
}
# Early exports hold the rotary frequencies; a tied model may hold its embeddings twice (see `_tie`).
_IGNORED = ("rotary_emb.inv_freq", "lm_head.weight")
_WHOLE = "model.safetensors"
ADAPTER = "adapter_config.json"
# Heads of reward models and classifiers, which write no text.
_OTHER_HEADS = ("score.", "v_head.", "value_head.", "reward_head.", "regression_layer.", "classifier.")
_ROWS = 4096  # of two matrices that are compared at once
_HINT = "download the file again"
# What transformers takes where a field is absent and the kinds of models differ.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {"max_position_embeddings": 2048, "sliding_window": None},
    "mistral": {"max_position_embeddings": 131072, "sliding_window": 4096, "num_key_value_heads": 8},
}
DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


class HfWeights:
    """The tensors of a Hugging Face folder.

    Attributes:
      path: Folder.
      files: Weight files.
      names: Name of the tensor of each parameter, with a format field for the layer.
      ignored: Suffixes of tensors that are not parameters.
      shapes: Shape of every tensor.
      dtypes: Dtype of every tensor.
      architecture: Architecture that config.json describes.
    """

    def __init__(self, folder: Path):
        """Opens the folder and reads the headers of its weight files.

        Raises:
          SteError: A file is missing or truncated, or the model is no supported Llama.
        """
        self.path = folder
        self.names = NAMES
        self.ignored = _IGNORED
        architecture = read_architecture(folder / "config.json")
        self.files = weight_files(folder)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype] = {}
        self._file_of: dict[str, Path] = {}
        for file in self.files:
            self._read_header(file)
        self._refuse_other_heads()
        self.architecture = self._tied(architecture)

    def _refuse_other_heads(self) -> None:
        for name in self.shapes:
            if name.startswith(_OTHER_HEADS):
                raise SteError(
                    "model_unsupported",
                    f"{self._file_of[name]}: tensor {name} is the head of a reward model or classifier, "
                    "which writes no verdicts; give a chat model",
                )

    def _tied(self, architecture: LlamaConfig) -> LlamaConfig:
        """Returns the architecture with tied embeddings only if the files hold no other head.

        `transformers` does the same: what config.json says about a head that is there does not count.
        """
        head, embed = NAMES["unembed"], NAMES["embed"]
        if not architecture.tie_embeddings or head not in self.shapes:
            return architecture
        if embed not in self.shapes:
            self.names = NAMES | {"embed": head}
            return architecture
        if self._equal(head, embed):
            return architecture
        _log.warning(
            "%s: tie_word_embeddings is true, but %s differs from the embeddings: it is used", self.path, head
        )
        return dataclasses.replace(architecture, tie_embeddings=False)

    def _equal(self, left: str, right: str) -> bool:
        """Returns True if two matrices have the same values; reads a few rows at a time."""
        if self.shapes[left] != self.shapes[right]:
            return False
        with (
            safe_open(self._file_of[left], framework="np") as first,
            safe_open(self._file_of[right], framework="np") as second,
        ):
            a, b = first.get_slice(left), second.get_slice(right)
            rows = self.shapes[left][0] if self.shapes[left] else 0
            blocks = (slice(i, min(i + _ROWS, rows)) for i in range(0, rows, _ROWS))
            return all(np.array_equal(a[block], b[block]) for block in blocks)

    def read(self, name: str) -> np.ndarray:
        """Returns the tensor `name` in the shape and dtype of the file."""
        # Opened for each tensor: what stays mapped counts as this process's memory.
        with safe_open(self._file_of[name], framework="np") as file:
            return file.get_tensor(name)

    def _read_header(self, path: Path) -> None:
        try:
            file = safe_open(path, framework="np")
        except SafetensorError as error:
            raise SteError(
                "model_damaged", f"{path}: truncated, or no safetensors file ({error}); download it again"
            ) from error
        with file:
            for name in file.keys():  # noqa: SIM118  (no mapping)
                header = file.get_slice(name)
                if header.get_dtype() not in DTYPES:
                    raise SteError(
                        "model_unsupported",
                        f"{path}: {name} is of type {header.get_dtype()}; quantised weights are "
                        f"not supported, save the model in one of {', '.join(DTYPES)}",
                    )
                if name in self._file_of:
                    raise SteError(
                        "model_damaged",
                        f"{path}: {name} is in {self._file_of[name].name} too; remove one of the files",
                    )
                self.shapes[name] = tuple(header.get_shape())
                self.dtypes[name] = DTYPES[header.get_dtype()]
                self._file_of[name] = path


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Returns the safetensors files of the model in a folder; as `transformers`, one file before shards.

    Other safetensors files (adapters, the consolidated weights of other programs) are no part of the model.

    Raises:
      SteError: "model_damaged" if there are none, or one in the index is missing; "model_unsupported" for an
        adapter.
    """
    files = _model_files(folder)
    for file in files:
        if not file.is_file():
            raise SteError("model_damaged", f"{file}: missing, though {INDEX} names it; download it again")
    if ignored := sorted(file.name for file in set(folder.glob("*.safetensors")) - set(files)):
        _log.warning("%s: not part of the model, and not read: %s", folder, ", ".join(ignored))
    return files


def _model_files(folder: Path) -> tuple[Path, ...]:
    if (folder / _WHOLE).is_file():
        return (folder / _WHOLE,)
    index = folder / INDEX
    if index.is_file():
        shards = read_json(index, _HINT).get("weight_map")
        if not (isinstance(shards, dict) and shards and all(isinstance(s, str) for s in shards.values())):
            raise SteError(
                "model_damaged", f"{index}: field weight_map does not map tensors to files; download it again"
            )
        return tuple(sorted({folder / Path(shard).name for shard in shards.values()}))
    if shards := tuple(sorted(folder.glob("model-*-of-*.safetensors"))):
        return shards
    if (folder / ADAPTER).is_file():
        raise adapter_error(folder)
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    hint = f"; {', '.join(others)} goes by other names" if others else ""
    if any(folder.glob("*.bin")) or any(folder.glob("*.pth")):
        hint += "; its pickled weights (.bin, .pth) are not read: save it as safetensors"
    raise SteError("model_damaged", f"{folder}: no weights ({_WHOLE} or {INDEX} with its shards){hint}")


def adapter_error(folder: Path) -> SteError:
    """Returns the refusal of a folder that holds an adapter of PEFT and no model."""
    base = (
        read_json(folder / ADAPTER, _HINT).get("base_model_name_or_path") or "a model that it does not name"
    )
    return SteError(
        "model_unsupported",
        f"{folder}: an adapter of {base}, not a model; merge both (merge_and_unload of PEFT), save the "
        "result by save_pretrained, and give that folder",
    )


def read_architecture(path: Path) -> LlamaConfig:
    """Returns the architecture that a `config.json` describes, with transformers' defaults for absent fields.

    Raises:
      SteError: Names the field that is missing, ill-typed or not supported.
    """
    fields = read_json(path, _HINT)
    try:
        return _architecture(path, fields)
    except SteError as error:
        # Errors of values that do not fit together do not know the file.
        if str(path) in str(error):
            raise
        raise SteError(error.code, f"{path}: {error}") from error


def _architecture(path: Path, fields: dict[str, Any]) -> LlamaConfig:
    kind = fields.get("model_type")
    if not isinstance(kind, str) or kind not in _DEFAULTS:
        raise _unsupported(path, "model_type", kind, " or ".join(map(repr, _DEFAULTS)))
    _check_supported(path, fields)
    fields = _DEFAULTS[kind] | fields
    heads, hidden = (
        _number(path, fields, "num_attention_heads", int),
        _number(path, fields, "hidden_size", int),
    )
    context_length = _number(path, fields, "max_position_embeddings", int)
    window = fields["sliding_window"]
    if kind == "mistral" and window is not None and not (type(window) is int and window >= context_length):
        raise _unsupported(path, "sliding_window", window, "null")
    # transformers 5 keeps all of rope in one field; before, theta was outside of rope_scaling.
    rope_field = "rope_scaling" if fields.get("rope_scaling") else "rope_parameters"
    rope = fields.get(rope_field) or {}
    if not isinstance(rope, dict):
        raise SteError("model_damaged", f"{path}: {rope_field} is {rope!r}; an object must stand there")
    theta_from = rope if "rope_theta" in rope else fields
    return LlamaConfig(
        vocab_size=_number(path, fields, "vocab_size", int),
        hidden_size=hidden,
        intermediate_size=_number(path, fields, "intermediate_size", int),
        num_layers=_number(path, fields, "num_hidden_layers", int),
        num_heads=heads,
        num_kv_heads=_number(path, fields, "num_key_value_heads", int, heads),
        head_dim=_number(path, fields, "head_dim", int, hidden // heads),
        context_length=context_length,
        rope_theta=_number(path, theta_from, "rope_theta", float, 10_000.0),
        rope_scaling=_rope_scaling(path, rope_field, rope),
        rms_norm_eps=_number(path, fields, "rms_norm_eps", float, 1e-6),
        tie_embeddings=fields.get("tie_word_embeddings") is True,
    )


def _check_supported(path: Path, fields: dict[str, Any]) -> None:
    """Refuses what would compute other results than a Llama; null and {} are the same as absent."""
    architectures = fields.get("architectures")
    if architectures and not isinstance(architectures, list):
        raise _unsupported(path, "architectures", architectures, "a list of names")
    if architectures and not any(str(name).endswith("ForCausalLM") for name in architectures):
        raise SteError(
            "model_unsupported",
            f"{path}: architectures is {architectures!r}: not a language model (a reward model writes no "
            "verdicts); give a chat model, whose architecture is LlamaForCausalLM",
        )
    for name in ("attention_bias", "mlp_bias", "quantization_config"):
        if fields.get(name):
            raise _unsupported(path, name, fields[name], "false" if name.endswith("bias") else "null")
    if fields.get("hidden_act", "silu") not in ("silu", "swish"):
        raise _unsupported(path, "hidden_act", fields["hidden_act"], "'silu'")


def _unsupported(path: Path, field: str, value: Any, supported: str) -> SteError:
    return SteError("model_unsupported", f"{path}: {field} is {value!r}; only {supported} is supported")


def _rope_scaling(path: Path, field: str, rope: dict[str, Any]) -> Scaling | None:
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise SteError(
            "model_unsupported",
            f"{path}: {field}.partial_rotary_factor is not 1; partial rotation is not supported",
        )
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        if rope.get("factor", 1.0) != 1.0:
            raise SteError(
                "model_damaged", f"{path}: {field}.factor is set without a rope_type; add the rope_type"
            )
        return None
    if kind == "dynamic":  # scales only texts longer than max_position_embeddings, which are not read
        return None
    if kind == "linear":
        factor = _number(path, rope, "factor", float)
        return LinearScaling(factor) if factor != 1.0 else None
    if kind != "llama3":
        raise _unsupported(path, f"{field}.rope_type", kind, "one of default, linear, dynamic and llama3")
    return RopeScaling(
        factor=_number(path, rope, "factor", float),
        low_freq_factor=_number(path, rope, "low_freq_factor", float),
        high_freq_factor=_number(path, rope, "high_freq_factor", float),
        original_context=_number(path, rope, "original_max_position_embeddings", int),
    )


def _number(path: Path, fields: dict[str, Any], name: str, kind: type, default: Any = None) -> Any:
    value = fields.get(name)
    value = default if value is None else value
    allowed = (int, float) if kind is float else (int,)
    valid = isinstance(value, allowed) and not isinstance(value, bool) and 0 < value < math.inf
    if not valid or (isinstance(value, int) and value >= 2**31):
        raise SteError(
            "model_damaged", f"{path}: {name} is {value!r}; a positive {kind.__name__} must stand there"
        )
    return kind(value)
