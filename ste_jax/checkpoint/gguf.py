"""Reads Llamas from GGUF files (the format of llama.cpp), quantised ones included."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

from ste_jax.errors import SteError
from ste_jax.models.llama import LlamaConfig
from ste_jax.models.presets import PRESETS
from ste_jax.models.rope import RopeScaling, rope_frequencies

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
        try:
            self._reader = GGUFReader(path)
        except (ValueError, IndexError, KeyError, OverflowError, RecursionError) as error:
            raise SteError(
                "model_damaged", f"{path}: truncated, or no GGUF file ({error}); download it again"
            ) from error
        if self._field("split.count", 1) > 1:
            raise SteError(
                "model_unsupported", f"{path}: one part of several; merge them with llama.cpp's gguf-split"
            )
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self.shapes = {
            name: tuple(int(n) for n in reversed(tensor.shape)) for name, tensor in self._tensors.items()
        }
        self.dtypes = dict.fromkeys(self.shapes, np.dtype(np.float32))

    def read(self, name: str) -> np.ndarray:
        """Returns the tensor `name`, dequantized to float32, in the layout of Hugging Face."""
        tensor = self._tensors[name]
        try:
            array = dequantize(tensor.data, tensor.tensor_type).reshape(self.shapes[name])
        except NotImplementedError as error:
            kind = tensor.tensor_type.name
            raise SteError(
                "model_unsupported",
                f"{self.path}: {name} is of type {kind}, which the gguf package cannot read",
            ) from error
        if name.endswith(_ROTATED):
            return _halves_first(array, self.architecture.head_dim)
        return array

    @cached_property
    def architecture(self) -> LlamaConfig:
        """The architecture that the metadata describes.

        Raises:
          SteError: "model_unsupported" or "model_damaged", naming the key.
        """
        kind = self._field("general.architecture", None)
        if kind != "llama":
            raise SteError(
                "model_unsupported",
                f"{self.path}: general.architecture is {kind!r}; only llama models are supported",
            )
        if self._field("llama.expert_count", 0):
            raise SteError(
                "model_unsupported",
                f"{self.path}: llama.expert_count is set; mixtures of experts are not supported",
            )
        embed = self.shapes.get("token_embd.weight")
        if embed is None:
            raise SteError(
                "model_damaged",
                f"{self.path}: tensor token_embd.weight is missing; download or convert it again",
            )
        heads, hidden = self._size("attention.head_count"), self._size("embedding_length")
        head_dim = self._head_dim(hidden // heads)
        theta = self._decimal("rope.freq_base", 10_000.0)
        return LlamaConfig(
            vocab_size=embed[0],
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
            tie_embeddings="output.weight" not in self._tensors,
        )

    def _head_dim(self, default: int) -> int:
        head_dim = self._size("attention.key_length", default)
        for key in ("attention.value_length", "rope.dimension_count"):
            if self._size(key, head_dim) != head_dim:
                raise SteError(
                    "model_unsupported",
                    f"{self.path}: llama.{key} is not the head size {head_dim}: not supported",
                )
        return head_dim

    def _rope_scaling(self, head_dim: int, theta: float) -> RopeScaling | None:
        kind = self._field("llama.rope.scaling.type", "none")
        if kind != "none":
            raise SteError(
                "model_unsupported",
                f"{self.path}: llama.rope.scaling.type is {kind!r}; only Llama 3.1's is supported",
            )
        if _ROPE_FACTORS not in self._tensors:
            return None
        factors = self.read(_ROPE_FACTORS)
        plain = rope_frequencies(head_dim, theta, None)
        known = {preset.rope_scaling for preset in PRESETS.values()}
        for scaling in sorted(known, key=str):
            ours = rope_frequencies(head_dim, theta, scaling)
            if factors.shape == plain.shape and np.allclose(plain / factors, ours, rtol=1e-4, atol=0.0):
                return scaling
        raise SteError(
            "model_unsupported",
            f"{self.path}: {_ROPE_FACTORS} holds none of the rope scalings of Llama 3.1 and 3.2; "
            "use the model's Hugging Face folder, whose config.json states its scaling",
        )

    def _field(self, key: str, default: Any) -> Any:
        field = self._reader.get_field(key)
        return default if field is None else field.contents()

    def _size(self, key: str, default: int | None = None) -> int:
        value = self._field(f"llama.{key}", default)
        if not isinstance(value, int) or value < 1:
            raise SteError(
                "model_damaged",
                f"{self.path}: llama.{key} is {value!r}, not a positive number; convert the model again",
            )
        return value

    def _decimal(self, key: str, default: float | None = None) -> float:
        value = self._field(f"llama.{key}", default)
        if not isinstance(value, float):
            raise SteError(
                "model_damaged",
                f"{self.path}: llama.{key} is {value!r}, not a number; convert the model again",
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
