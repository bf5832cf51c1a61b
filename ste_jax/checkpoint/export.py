"""Writes Hugging Face folders: config.json and safetensors in shards, one parameter in memory at a time."""

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from ste_jax.checkpoint import layout
from ste_jax.checkpoint.card import ModelCard
from ste_jax.checkpoint.fingerprint import parameter_hash
from ste_jax.checkpoint.folder import CHANGEABLE_FIELDS, PartialModelFolder, update_card
from ste_jax.checkpoint.hf import DTYPES, INDEX, NAMES
from ste_jax.checkpoint.source import ModelSource, read_card
from ste_jax.distributed import process
from ste_jax.errors import SteError
from ste_jax.models.llama import LlamaConfig
from ste_jax.models.rope import LinearScaling, Scaling
from ste_jax.sharding import DECODE, make_mesh
from ste_jax.storage.files import write_atomically
from ste_jax.text.tokenizer import Tokenizer

_SHARD_BYTES = 5 * 10**9
_CODES = {dtype: code for code, dtype in DTYPES.items()}


@dataclasses.dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def export_model(source: ModelSource, folder: str | Path, texts: Mapping[str, str] = {}) -> bool:
    """Writes an own model as a Hugging Face folder that contains the card; dtypes stay the same.

    Args:
      source: An own model.
      folder: The folder to write.
      texts: Further files of the folder: their texts by name.

    Returns:
      False if the folder was complete already.

    Raises:
      SteError: The weights are damaged, `folder` is in use, or several processes run.
    """
    if source.card is None or source.weights is not None:
        raise SteError(
            "model_unsupported", f"{source.path}: not an own model folder; only those are exported"
        )
    if process.count() > 1:
        raise SteError(
            "processes_unsupported", "convert: one process exports a model; start it on one host only"
        )
    origin = f"{source.card.name} {source.digest()}"
    with contextlib.closing(PartialModelFolder(folder, origin)) as partial_folder:
        if partial_folder.is_finished:
            return _update_export(source.card, Path(folder), texts)
        _export_into(partial_folder, source)
        _write_texts(Path(partial_folder.path), texts)
        partial_folder.finish(source.card, source.tokenizer)
    return True


def _export_into(partial_folder: PartialModelFolder, source: ModelSource) -> None:
    """Writes the weights and config.json."""
    path, hashes = Path(partial_folder.path), {}
    shards, values = _shards(source), _values(source, hashes)
    for file, tensors in shards.items():
        if file in partial_folder.written:
            for _ in tensors:
                next(values)
        else:
            _write_safetensors(path / file, tensors, values)
            partial_folder.record(file, "")
    source.verify(hashes)
    if len(shards) > 1:
        _write_json(path / INDEX, _index(shards))
    _write_json(
        path / "config.json", config_fields(source.architecture, source.dtypes["embed"], source.tokenizer)
    )


def _update_export(card: ModelCard, folder: Path, texts: Mapping[str, str]) -> bool:
    """Writes what changed in the card and the texts since the model was exported, such as a calibration.

    Returns:
      True if anything changed.
    """
    exported = read_card(folder)
    changes = {
        name: getattr(card, name)
        for name in CHANGEABLE_FIELDS
        if getattr(card, name) != getattr(exported, name, None)
    }
    if changes:
        update_card(folder, **changes)
    return _write_texts(folder, texts) or bool(changes)


def _write_texts(folder: Path, texts: Mapping[str, str]) -> bool:
    """Writes the texts that differ from their files; returns True if any does."""
    changed = False
    for name, text in texts.items():
        file = folder / name
        if not file.exists() or file.read_text("utf-8") != text:
            write_atomically(epath.Path(file), text)
            changed = True
    return changed


def _tensors(source: ModelSource) -> list[_Tensor]:
    """Returns the tensors of all files in the order of `_values`."""
    cfg = source.architecture
    return [
        _Tensor(name, shape, source.dtypes[parameter])
        for parameter, shape in layout.tensor_shapes(cfg).items()
        for name in layout.tensor_names(cfg, parameter, NAMES[parameter])
    ]


def _values(source: ModelSource, hashes: dict[str, str]) -> Iterator[np.ndarray]:
    """Yields the values of `_tensors`, and puts the hash of each parameter into `hashes`."""
    cfg = source.architecture
    # In host memory even if there are TPUs or GPUs: none could hold the largest parameters.
    mesh = make_mesh((1, 1, 1), _host_devices()[:1])
    for parameter, shape in layout.tensor_shapes(cfg).items():
        array = source.read(parameter, DECODE, mesh, source.dtypes[parameter])
        hashes[parameter] = parameter_hash(array)
        host = np.asarray(array)
        for layer in range(len(layout.tensor_names(cfg, parameter, ""))):
            yield layout.tensor_of(parameter, host, layer, shape)
        del array, host  # before the next is read


def _host_devices() -> list[Any]:
    try:
        return jax.local_devices(backend="cpu")
    except RuntimeError as error:
        raise SteError(
            "devices_unavailable",
            "convert: an export reads the weights into host memory, but JAX_PLATFORMS is "
            f"{os.environ.get('JAX_PLATFORMS', '')!r}; add cpu to it, as in JAX_PLATFORMS=cuda,cpu",
        ) from error


def _shards(source: ModelSource) -> dict[str, list[_Tensor]]:
    """Returns the tensors of each file."""
    shards: list[list[_Tensor]] = [[]]
    room = _SHARD_BYTES
    for tensor in _tensors(source):
        if tensor.bytes > room and shards[-1]:
            shards.append([])
            room = _SHARD_BYTES
        shards[-1].append(tensor)
        room -= tensor.bytes
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    return {f"model-{i:05d}-of-{len(shards):05d}.safetensors": shard for i, shard in enumerate(shards, 1)}


def _write_safetensors(path: Path, tensors: list[_Tensor], values: Iterator[np.ndarray]) -> None:
    """Writes a safetensors file one tensor at a time; the library's own writer needs all of them at once.

    The format, as the library documents it: the length of the header as a little-endian u64, the header in
    JSON, padded with spaces to 8 bytes, and the values in C order.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for tensor in tensors:
        begin, end = end, end + tensor.bytes
        code = _CODES[tensor.dtype]
        header[tensor.name] = {"dtype": code, "shape": tensor.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _ in tensors:
            file.write(np.ascontiguousarray(next(values)).view(np.uint8).data)


def _index(shards: dict[str, list[_Tensor]]) -> dict[str, Any]:
    files = {tensor.name: file for file, tensors in shards.items() for tensor in tensors}
    total = sum(tensor.bytes for tensors in shards.values() for tensor in tensors)
    return {"metadata": {"total_size": total}, "weight_map": files}


def config_fields(cfg: LlamaConfig, dtype: np.dtype, tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns the fields of config.json, rope as all versions of transformers read it."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": str(dtype),
        "vocab_size": cfg.vocab_size,
        "hidden_size": cfg.hidden_size,
        "intermediate_size": cfg.intermediate_size,
        "num_hidden_layers": cfg.num_layers,
        "num_attention_heads": cfg.num_heads,
        "num_key_value_heads": cfg.num_kv_heads,
        "head_dim": cfg.head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "max_position_embeddings": cfg.context_length,
        "rms_norm_eps": cfg.rms_norm_eps,
        "rope_theta": cfg.rope_theta,
        "rope_scaling": _rope_scaling(cfg.rope_scaling),
        "tie_word_embeddings": cfg.tie_embeddings,
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": list(tokenizer.stop_ids),
    }


def _rope_scaling(scaling: Scaling | None) -> dict[str, Any] | None:
    if scaling is None:
        return None
    if isinstance(scaling, LinearScaling):
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_context,
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
