"""Reads Llamas from GGUF files (the format of llama.cpp), quantised ones included."""

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ste_jax.errors import SteError
from ste_jax.models.llama import LlamaConfig
from ste_jax.models.presets import PRESETS
from ste_jax.models.rope import LinearScaling, Scaling, rope_frequencies
from ste_jax.storage.gguf_file import GgufFile

_ROPE_FACTORS = "rope_freqs.weight"
_NAMES = {
    "embed": "token_embd.weight",
    "final_norm": "output_norm.weight",
    "unembed": "output.weight",
    "blocks.attention_norm": "blk.{}.attn_norm.weight",
    "blocks.wq": "blk.{}.attn_q.weight",
    "blocks.wk": "blk.{}.attn_k.weight",
    "blocks.wv": "blk.{}.attn_v.weight",
    "blocks.wo": "blk.{}.attn_output.weight",
    "blocks.mlp_norm": "blk.{}.ffn_norm.weight",
    "blocks.w_gate": "blk.{}.ffn_gate.weight",
    "blocks.w_up": "blk.{}.ffn_up.weight",
    "blocks.w_down": "blk.{}.ffn_down.weight",
}
_ROTATED = ("attn_q.weight", "attn_k.weight")
_LINEAR_FACTORS = ("rope.scaling.factor", "rope.scale_linear")
_ATTENTION_FACTORS = ("rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor")
# Keys of "llama." that are read here, or state what the tensors show or what has no effect without yarn.
_READ = frozenset(
    (
        *("attention.head_count", "attention.head_count_kv", "attention.key_length"),
        *("attention.value_length", "attention.layer_norm_rms_epsilon", "attention.causal"),
        *("block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size"),
        *("expert_used_count", "tensor_data_layout", "rope.dimension_count", "rope.freq_base"),
        *("rope.scaling.type", "rope.scaling.original_context_length", "rope.scaling.finetuned"),
        *("rope.scaling.yarn_ext_factor", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"),
        *("rope.scaling.yarn_log_multiplier", *_LINEAR_FACTORS, *_ATTENTION_FACTORS),
    )
)


class GgufWeights:
    """Tensors of a GGUF file, in the layout of Hugging Face.

    Attributes:
      path: File.
      files: The file, as a tuple.
      names: Name of the tensor of each parameter, with a format field for the layer.
      ignored: Suffixes of tensors that are not parameters.
      shapes: Shape of every tensor.
      dtypes: Dtype that `read` returns for every tensor.
    """

    def __init__(self, path: Path):
        """Opens the file.

        Raises:
          SteError: The file is truncated, no GGUF, split, or no supported Llama.
        """
        self.path = path
        self.files = (path,)
        self.names = _NAMES
        self.ignored = (_ROPE_FACTORS,)
        self._file = GgufFile(path)
        if self._field("split.count", 1) not in (0, 1):
            raise self._unsupported("one part of several; merge them with llama.cpp's gguf-split")
        self.shapes = {name: tensor.shape for name, tensor in self._file.tensors.items()}
        self.dtypes = dict.fromkeys(self.shapes, np.dtype(np.float32))

    def read(self, name: str) -> np.ndarray:
        """Returns the tensor `name`, dequantized to float32, in the layout of Hugging Face."""
        array = self._file.read(name)
        return _halves_first(array, self.architecture.head_dim) if name.endswith(_ROTATED) else array

    @cached_property
    def architecture(self) -> LlamaConfig:
        """The architecture that the metadata describes.

        Raises:
          SteError: "model_unsupported" or "model_damaged", naming the key.
        """
        self._check_kind()
        heads, hidden = self._size("attention.head_count"), self._size("embedding_length")
        head_dim = self._head_dim(hidden // heads)
        theta = self._decimal("rope.freq_base", 10_000.0)
        return LlamaConfig(
            vocab_size=self.shapes["token_embd.weight"][0],
            hidden_size=hidden,
            intermediate_size=self._size("feed_forward_length"),
            num_layers=self._size("block_count"),
            num_heads=heads,
            num_kv_heads=self._size("attention.head_count_kv", heads),
            head_dim=head_dim,
            context_length=self._size("context_length"),
            rope_theta=theta,
            rope_scaling=self._rope_scaling(head_dim, theta),
            rms_norm_eps=self._decimal("attention.layer_norm_rms_epsilon"),
            tie_embeddings="output.weight" not in self.shapes,
        )

    def _check_kind(self) -> None:
        """Refuses what is no language model of the Llama architecture, or has a setting that is not read."""
        kind = self._field("general.type", "model")
        if kind != "model":
            raise self._unsupported(
                f"general.type is {kind!r}; merge an adapter into its model first, and give the GGUF file of "
                "the model"
            )
        architecture = self._field("general.architecture", None)
        if architecture != "llama":
            raise self._unsupported(
                f"general.architecture is {architecture!r}; only llama models are supported"
            )
        if self._field("llama.pooling_type", 0):
            raise self._unsupported(
                "llama.pooling_type is set: a reward or embedding model writes no verdicts; give a chat model"
            )
        if not self._field("llama.attention.causal", True):
            raise self._unsupported("llama.attention.causal is false: an embedding model; give a chat model")
        if "token_embd.weight" not in self.shapes:
            hint = "; download or convert it again" if self.shapes else ", nor any other: only a vocabulary"
            raise SteError("model_damaged", f"{self.path}: tensor token_embd.weight is missing{hint}")
        for key, value in self._file.fields.items():
            if key.startswith("llama.") and key.removeprefix("llama.") not in _READ and value:
                raise self._unsupported(f"{key} is {value!r}, which is not supported")

    def _unsupported(self, reason: str) -> SteError:
        return SteError("model_unsupported", f"{self.path}: {reason}")

    def _head_dim(self, default: int) -> int:
        head_dim = self._size("attention.key_length", default)
        for key in ("attention.value_length", "rope.dimension_count"):
            if self._size(key, head_dim) != head_dim:
                raise self._unsupported(f"llama.{key} is not the head size {head_dim}: not supported")
        return head_dim

    def _rope_scaling(self, head_dim: int, theta: float) -> Scaling | None:
        # As llama.cpp: linear if the type is absent, and the older key for the factor.
        kind = self._field("llama.rope.scaling.type", "linear")
        if kind not in ("none", "linear"):
            raise self._unsupported(
                f"llama.rope.scaling.type is {kind!r}; only linear scaling and Llama 3.1's are supported"
            )
        for key in _ATTENTION_FACTORS:
            if self._field(f"llama.{key}", 1.0) != 1.0:
                raise self._unsupported(f"llama.{key} is {self._field(f'llama.{key}', 1.0)!r}, not 1")
        key = next((key for key in _LINEAR_FACTORS if f"llama.{key}" in self._file.fields), None)
        # A factor of 0 is none.
        is_set = kind == "linear" and key is not None and self._field(f"llama.{key}", 0.0)
        factor = self._decimal(key) if is_set and key else 1.0
        if _ROPE_FACTORS not in self.shapes:
            return LinearScaling(factor) if factor != 1.0 else None
        if factor != 1.0:
            raise self._unsupported(f"both llama.{key} and {_ROPE_FACTORS} scale the positions")
        return self._llama_3_scaling(head_dim, theta)

    def _llama_3_scaling(self, head_dim: int, theta: float) -> Scaling:
        factors = self.read(_ROPE_FACTORS)
        plain = rope_frequencies(head_dim, theta, None)
        known = {preset.rope_scaling for preset in PRESETS.values()} - {None}
        for scaling in sorted(known, key=str):
            ours = rope_frequencies(head_dim, theta, scaling)
            if factors.shape == plain.shape and np.allclose(plain, ours * factors, rtol=1e-4, atol=0.0):
                assert scaling is not None
                return scaling
        raise self._unsupported(
            f"{_ROPE_FACTORS} holds none of the rope scalings of Llama 3.1 and 3.2; use the model's Hugging "
            "Face folder, whose config.json states its scaling"
        )

    def _field(self, key: str, default: Any) -> Any:
        return self._file.fields.get(key, default)

    def _size(self, key: str, default: int | None = None) -> int:
        value = self._field(f"llama.{key}", default)
        # One number for each layer, as some converters write it, if all are equal.
        if isinstance(value, list) and len(set(map(repr, value))) == 1:
            value = value[0]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise SteError(
                "model_damaged",
                f"{self.path}: llama.{key} is {value!r}, not a positive number; convert the model again",
            )
        return value

    def _decimal(self, key: str, default: float | None = None) -> float:
        value = self._field(f"llama.{key}", default)
        if not isinstance(value, float) or not 0.0 < value < math.inf:
            raise SteError(
                "model_damaged",
                f"{self.path}: llama.{key} is {value!r}, not a positive decimal; convert the model again",
            )
        # The file holds float32: 1e-5 was meant where it reads 9.99999975e-06.
        return float(str(np.float32(value)))


def _halves_first(matrix: np.ndarray, head_dim: int) -> np.ndarray:
    """Returns the rows [heads * H, D] of a query or key matrix in the order that `apply_rope` expects.

    llama.cpp rotates neighbouring rows of a head against each other; we rotate its first half against its
    second.
    """
    pairs = matrix.reshape(-1, head_dim // 2, 2, matrix.shape[1])
    return pairs.swapaxes(1, 2).reshape(matrix.shape)
