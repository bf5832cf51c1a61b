"""Opens any kind of model under one roof, and writes our own model folders.

A model folder of ours holds `model.json` (the card), the parameters (Orbax) and the tokenizer's files; it is
written under a temporary name and renamed. What is wrong with a model and can be seen without reading its
weights is refused when it is opened.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from pathlib import Path

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from ste_jax.checkpoint.card import ModelCard
from ste_jax.checkpoint.gguf import GgufWeights
from ste_jax.checkpoint.hf import HfWeights, read_json
from ste_jax.checkpoint.orbax import load_parameters, parameter_shapes, save_parameters
from ste_jax.models.llama import Llama, LlamaConfig, check_divisible, parameter_table
from ste_jax.sharding import Rules
from ste_jax.text.tokenizer import Tokenizer, load_tokenizer

CARD = "model.json"
_PARAMETERS = "parameters"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_HUB_FILES = ("*.json", "*.safetensors", "tokenizer.model", "chat_template.jinja")
Targets = Mapping[str, jax.ShapeDtypeStruct]
Weights = GgufWeights | HfWeights


@dataclasses.dataclass(eq=False)
class ModelSource:
    """A model on disk, opened but not loaded; made by `open_model`.

    Attributes:
      path: the file or folder.
      name: for people.
      architecture: of the weights.
      card: what our own model folders say of themselves; None for everybody else's.
    """

    path: Path
    name: str
    architecture: LlamaConfig
    card: ModelCard | None
    _read: Callable[[Targets], dict[str, jax.Array]]
    _hash: Callable[[], str]

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer beside the weights.

        Raises:
          ValueError: it is missing or broken, or belongs to another model.
        """
        tokenizer = load_tokenizer(self.path)
        if tokenizer.vocab_size > self.architecture.vocab_size:
            raise ValueError(
                f"{self.path}: the tokenizer has {tokenizer.vocab_size} ids, the model embeds only "
                f"{self.architecture.vocab_size}; put the model's own tokenizer files in place"
            )
        if self.card is not None and self.card.tokenizer_hash != tokenizer.fingerprint():
            raise ValueError(
                f"{self.path}: the tokenizer is not the one that {CARD} names; copy the model folder again"
            )
        return tokenizer

    @cached_property
    def _digest(self) -> str:
        return self._hash()

    def digest(self) -> str:
        """Returns the sha256 that names the weights; of other people's files it takes a second a gigabyte."""
        return self._digest

    def load(self, rules: Rules, mesh: Mesh, *, param_dtype: str, dtype: str) -> Llama:
        """Reads the weights, parameter by parameter, to where `rules` put them on `mesh`.

        Args:
          rules: the table of logical axes.
          mesh: the devices.
          param_dtype: of the parameters, whatever the file holds.
          dtype: that the model computes in.

        Raises:
          ValueError: the mesh cannot carry the parameters evenly, or the files are damaged.
        """
        check_divisible(self.architecture, rules, mesh.shape)
        targets = {
            name: jax.ShapeDtypeStruct(
                p.shape, jnp.dtype(param_dtype), sharding=NamedSharding(mesh, rules.spec(*p.axes))
            )
            for name, p in parameter_table(self.architecture).items()
        }
        return Llama(self.architecture, rules, dtype, self._read(targets))


def open_model(source: str | Path) -> ModelSource:
    """Opens a GGUF file, a Hugging Face folder, one of our model folders, or a model of the Hugging Face hub.

    Raises:
      ValueError: there is nothing, or something is wrong with it; the text says what and how to mend it.
    """
    path, name = Path(source), Path(source).name
    if not path.exists():
        path = _download(str(source))
    if path.is_file():
        _refuse_pointers([path])
        return _open_foreign(GgufWeights(path), path.stem)
    if (path / CARD).is_file():
        return _open_own(path)
    if (path / "config.json").is_file():
        _refuse_pointers(path.glob("*.safetensors"))
        return _open_foreign(HfWeights(path), name)
    raise ValueError(
        f"{path}: holds neither {CARD} nor config.json; give a GGUF file, a Hugging Face folder, "
        "a model folder of a run, or a hub name"
    )


def save_model(folder: str | Path, model: Llama, card: ModelCard, tokenizer: Tokenizer) -> ModelCard:
    """Writes a model folder, in the place of an older model if there is one.

    Args:
      folder: its name; it appears there complete or not at all.
      model: of which the parameters are written, in their own dtype.
      card: its hashes of weights and tokenizer are filled in here.
      tokenizer: written beside the weights.

    Returns:
      The card as it was written.

    Raises:
      ValueError: `folder` is there and is no model folder.
    """
    final = epath.Path(folder).absolute()
    if final.exists() and not (final / CARD).exists() and any(final.iterdir()):
        raise ValueError(f"{final}: not empty, and no model folder; choose another folder for the model")
    card = dataclasses.replace(
        card,
        architecture=model.cfg,
        weights_hash=fingerprint(parameters(model)),
        tokenizer_hash=tokenizer.fingerprint(),
    )
    partial_ = final.parent / f"{final.name}.partial"
    _on_one_host(lambda: (_remove(partial_), partial_.mkdir(parents=True)))
    save_parameters(partial_ / _PARAMETERS, parameters(model))

    def finish() -> None:
        tokenizer.save(Path(partial_))
        (partial_ / CARD).write_text(json.dumps(card.to_json(), indent=1) + "\n")
        _remove(final)
        partial_.rename(final)

    _on_one_host(finish)
    return card


def parameters(model: Llama) -> dict[str, jax.Array]:
    """Returns the parameters of a model by the names of `parameter_table`."""
    return {name: model.parameter(name) for name in parameter_table(model.cfg)}


def fingerprint(arrays: Mapping[str, jax.Array]) -> str:
    """Returns a hash of a model's parameters that depends on no mesh, layout or file format.

    Each device hashes its own elements with their places and sums the hashes up in integers: order cannot
    change the sum, and no parameter leaves its devices.
    """
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sums = [int(n) for n in jax.device_get(_hash_sums(array))]
        digest.update(f"{name} {array.dtype} {array.shape} {sums}\n".encode())
    return digest.hexdigest()


@jax.jit
def _hash_sums(array: jax.Array) -> list[jax.Array]:
    """Returns two sums, modulo 2**32, of different hashes of each element's bits and place."""
    width = {2: jnp.uint16, 4: jnp.uint32}[array.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(array, width).astype(jnp.uint32)
    place = jnp.zeros_like(bits)
    for axis in range(array.ndim):
        out = jax.typeof(array).sharding
        place = _mix(place ^ jax.lax.broadcasted_iota(jnp.uint32, array.shape, axis, out_sharding=out))
    hashes = (_mix(_mix(place ^ jnp.uint32(seed)) ^ bits) for seed in (0x243F6A88, 0x85A308D3))
    return [jnp.sum(hash_, dtype=jnp.uint32) for hash_ in hashes]


def _mix(x: jax.Array) -> jax.Array:
    """Spreads every bit of uint32 `x` over all of them, one to one."""
    for factor in (0x9E3779B1, 0x85EBCA6B):
        x = (x ^ (x >> 16)) * jnp.uint32(factor) + jnp.uint32(0x7F4A7C15)
    return x ^ (x >> 16)


def _open_own(path: Path) -> ModelSource:
    try:
        card = ModelCard.from_json(read_json(path / CARD))
    except ValueError as error:
        raise ValueError(f"{path / CARD}: {error}") from error
    folder = epath.Path(path).absolute() / _PARAMETERS
    stored = parameter_shapes(folder)
    found = {name: array.shape for name, array in stored.items()}
    wanted = {name: parameter.shape for name, parameter in parameter_table(card.architecture).items()}
    _check_shapes(folder, found, wanted, ignored=())

    def read(targets: Targets) -> dict[str, jax.Array]:
        arrays = load_parameters(folder, targets)
        as_stored = all(array.dtype == stored[name].dtype for name, array in arrays.items())
        if as_stored and fingerprint(arrays) != card.weights_hash:
            raise ValueError(f"{folder}: not the weights that {CARD} names; copy the model folder again")
        return arrays

    return ModelSource(path, card.name, card.architecture, card, read, lambda: card.weights_hash)


def _open_foreign(weights: Weights, name: str) -> ModelSource:
    cfg = weights.architecture
    wanted = {}
    for parameter, value in parameter_table(cfg).items():
        shape = _source_shape(parameter, value.shape)
        layers = range(cfg.num_layers) if parameter.startswith("blocks.") else (0,)
        wanted |= {weights.names[parameter].format(layer): shape for layer in layers}
    _check_shapes(weights.path, weights.shapes, wanted, weights.ignored)
    return ModelSource(
        weights.path, name, cfg, None, partial(_read_foreign, weights), partial(_hash_files, weights.files)
    )


def _check_shapes(
    path: Path | epath.Path,
    found: Mapping[str, tuple[int, ...]],
    wanted: Mapping[str, tuple[int, ...]],
    ignored: tuple[str, ...],
) -> None:
    for name, shape in wanted.items():
        if name not in found:
            raise ValueError(f"{path}: tensor {name} is missing; copy or convert the model again")
        if found[name] != shape:
            raise ValueError(
                f"{path}: tensor {name} has shape {found[name]}, the architecture wants {shape}; "
                "weights and configuration belong to different models"
            )
    for name in found:
        if name not in wanted and not name.endswith(ignored):
            raise ValueError(
                f"{path}: tensor {name} is no part of a Llama; this model needs other code than ours"
            )


def _source_shape(parameter: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape of one layer's tensor in the file: matrices are [out, in] there, heads are folded."""
    if not parameter.startswith("blocks."):
        return shape
    if len(shape) == 2:
        return shape[1:]
    if parameter == "blocks.wo":
        return (shape[-1], math.prod(shape[1:-1]))
    return (math.prod(shape[2:]), shape[1])


def _read_foreign(weights: Weights, targets: Targets) -> dict[str, jax.Array]:
    arrays = {}
    for parameter, target in targets.items():
        # One parameter at a time is whole on the host; the devices take their parts of it.
        host = _stack(weights, parameter, target)
        arrays[parameter] = jax.make_array_from_callback(
            target.shape, target.sharding, lambda index, host=host: host[index]
        )
    return arrays


def _stack(weights: Weights, parameter: str, target: jax.ShapeDtypeStruct) -> np.ndarray:
    host = np.empty(target.shape, target.dtype)
    if not parameter.startswith("blocks."):
        host[...] = weights.read(weights.names[parameter])
        return host
    for layer in range(target.shape[0]):
        tensor = weights.read(weights.names[parameter].format(layer))
        host[layer] = tensor.T.reshape(target.shape[1:])
    return host


def _hash_files(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _download(name: str) -> Path:
    if not _HUB_NAME.fullmatch(name):
        raise ValueError(f"{name}: no such file or folder, and no hub name (organisation/model)")
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_HUB_FILES)))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name}: no such file or folder here, and the Hugging Face hub did not give it ({error}); check "
            "the spelling, the network, and for gated models `hf auth login`"
        ) from error


def _refuse_pointers(files: Iterable[Path]) -> None:
    for path in files:
        with path.open("rb") as file:
            if file.read(24) == b"version https://git-lfs.":
                raise ValueError(
                    f"{path}: a git-lfs pointer, not the weights; run `git lfs pull` in its repository"
                )


def _on_one_host(action: Callable[[], object]) -> None:
    if jax.process_index() == 0:
        action()
    multihost_utils.sync_global_devices("model folder")


def _remove(folder: epath.Path) -> None:
    if folder.exists():
        folder.rmtree()
