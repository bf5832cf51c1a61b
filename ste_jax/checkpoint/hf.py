"""Hugging Face folders of Llamas: config.json and safetensors, whole or in shards.

Reading is here; `export` writes such folders.
"""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from ste_jax.errors import SteError
from ste_jax.models.llama import LlamaConfig
from ste_jax.models.rope import RopeScaling
from ste_jax.storage.files import read_json

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
# Early exports hold the rotary frequencies; a tied model may hold its embeddings twice.
_IGNORED = ("rotary_emb.inv_freq", "lm_head.weight")
_HINT = "download the file again"
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
        self.architecture = read_architecture(folder / "config.json")
        self.files = weight_files(folder)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, np.dtype] = {}
        self._file_of: dict[str, Path] = {}
        for file in self.files:
            self._read_header(file)

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
    """Returns the safetensors files of a folder: those of its index, or all.

    Raises:
      SteError: "model_damaged" if there are none, or one in the index is missing.
    """
    index = folder / INDEX
    if index.is_file():
        shards = read_json(index, _HINT).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(s, str) for s in shards.values()):
            raise SteError(
                "model_damaged", f"{index}: field weight_map does not map tensors to files; download it again"
            )
        files = sorted({folder / Path(shard).name for shard in shards.values()})
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pth"))
        hint = "; its pickled ones (.bin, .pth) are not read: save it as safetensors" if pickled else ""
        raise SteError("model_damaged", f"{folder}: no weights (*.safetensors){hint}")
    for file in files:
        if not file.is_file():
            raise SteError("model_damaged", f"{file}: missing, though {INDEX} names it; download it again")
    return tuple(files)


def read_architecture(path: Path) -> LlamaConfig:
    """Returns the architecture that a `config.json` describes, with transformers' defaults for absent fields.

    Raises:
      SteError: Names the field that is missing, ill-typed or not supported.
    """
    fields = read_json(path, _HINT)
    for name, wanted, default in (
        ("model_type", "llama", None),
        ("hidden_act", "silu", "silu"),
        ("attention_bias", False, False),
        ("mlp_bias", False, False),
        ("quantization_config", None, None),
    ):
        if fields.get(name, default) != wanted:
            raise SteError(
                "model_unsupported", f"{path}: {name} is {fields.get(name)!r}; only {wanted!r} is supported"
            )
    heads, hidden = (
        _number(path, fields, "num_attention_heads", int),
        _number(path, fields, "hidden_size", int),
    )
    # transformers 5 keeps all of rope in one field; before, theta was outside of rope_scaling.
    rope_field = "rope_parameters" if fields.get("rope_parameters") else "rope_scaling"
    rope = fields.get(rope_field) or {}
    theta_from = rope if "rope_theta" in rope else fields
    return LlamaConfig(
        vocab_size=_number(path, fields, "vocab_size", int),
        hidden_size=hidden,
        intermediate_size=_number(path, fields, "intermediate_size", int),
        num_layers=_number(path, fields, "num_hidden_layers", int),
        num_heads=heads,
        num_kv_heads=_number(path, fields, "num_key_value_heads", int, heads),
        head_dim=_number(path, fields, "head_dim", int, hidden // heads),
        context_length=_number(path, fields, "max_position_embeddings", int, 2048),
        rope_theta=_number(path, theta_from, "rope_theta", float, 10_000.0),
        rope_scaling=_rope_scaling(path, rope_field, rope),
        rms_norm_eps=_number(path, fields, "rms_norm_eps", float, 1e-6),
        tie_embeddings=fields.get("tie_word_embeddings") is True,
    )


def _rope_scaling(path: Path, field: str, rope: dict[str, Any]) -> RopeScaling | None:
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        raise SteError(
            "model_unsupported",
            f"{path}: {field}.partial_rotary_factor is not 1; partial rotation is not supported",
        )
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    if kind != "llama3":
        raise SteError(
            "model_unsupported",
            f"{path}: {field}.rope_type is {kind!r}; only 'default' and 'llama3' are supported",
        )
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
    if not isinstance(value, allowed) or isinstance(value, bool) or value <= 0:
        raise SteError(
            "model_damaged", f"{path}: {name} is {value!r}; a positive {kind.__name__} must stand there"
        )
    return kind(value)
