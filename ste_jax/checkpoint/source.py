"""Opens models of every supported format behind one interface and reads them parameter by parameter.

Whatever can be checked without reading the weights is checked when a model is opened.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property, partial
from pathlib import Path

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh, NamedSharding

from ste_jax.checkpoint import layout, small_model
from ste_jax.checkpoint.card import ModelCard
from ste_jax.checkpoint.fingerprint import combine, parameter_hash
from ste_jax.checkpoint.gguf import GgufWeights
from ste_jax.checkpoint.hf import ADAPTER, HfWeights, adapter_error
from ste_jax.checkpoint.location import is_hub_name
from ste_jax.checkpoint.orbax import load_parameter, parameter_shapes
from ste_jax.distributed import process
from ste_jax.errors import SteError
from ste_jax.models.llama import Llama, LlamaConfig, check_divisible, parameter_table
from ste_jax.paths import local_path
from ste_jax.sharding import Rules
from ste_jax.storage.files import read_json
from ste_jax.text.template import ChatSettings
from ste_jax.text.tokenizer import Tokenizer, load_tokenizer

CARD = "model.json"
PARAMETERS = "parameters"
_SMALL = 1_000_000_000  # parameters
_HUB_FILES = ("*.json", "model*.safetensors", "tokenizer.model", "*.jinja")
Weights = GgufWeights | HfWeights


@dataclasses.dataclass(eq=False)
class ModelSource:
    """A model on disk, opened but not loaded; created by `open_model`.

    Attributes:
      path: File or folder.
      name: Name for people.
      architecture: Architecture of the weights.
      card: Card of an own or exported model folder (None: a foreign model).
      dtypes: Dtype of each parameter on disk.
      weights: Weights of a foreign format (None: an own folder, written with Orbax).
      chat: What replaces the chat template of the model, or a part of it.
    """

    path: Path
    name: str
    architecture: LlamaConfig
    card: ModelCard | None
    dtypes: Mapping[str, np.dtype]
    weights: Weights | None
    _read: Callable[[str, jax.ShapeDtypeStruct], jax.Array]
    chat: ChatSettings = ChatSettings()

    @property
    def is_small(self) -> bool:
        """True below one billion parameters: such models follow no judge format by themselves."""
        return self.architecture.parameter_count < _SMALL

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model.

        Raises:
          SteError: It is missing or broken, or belongs to another model ("model_mismatch").
        """
        embedded = self.architecture.vocab_size
        tokenizer = load_tokenizer(self.path, self.chat if self.card is None else None, embedded)
        if self.card is not None:
            tokenizer = self._checked(self.card, tokenizer)
        if missing := tokenizer.reachable(embedded):
            raise SteError(
                "model_mismatch",
                f"{self.path}: the tokenizer has {tokenizer.vocab_size} ids, the model embeds {embedded} "
                f"(not {', '.join(missing[:3])}); use the model's own tokenizer files",
            )
        return tokenizer

    def _checked(self, card: ModelCard, own: Tokenizer) -> Tokenizer:
        """Returns the tokenizer with the given chat template, if it is the one that the card allows."""
        if card.tokenizer_hash != own.fingerprint():
            raise SteError(
                "model_mismatch",
                f"{self.path}: the tokenizer is not the one that {CARD} names; copy the model folder again",
            )
        if not self.chat.is_set:
            return own
        tokenizer = load_tokenizer(self.path, self.chat, self.architecture.vocab_size)
        if card.judge_prompt is not None and card.tokenizer_hash != tokenizer.fingerprint():
            raise SteError(
                "untrained_prompt",
                f"{self.path}: this judge was trained with another chat template or date; leave "
                "chat_template and chat_date out",
            )
        return tokenizer

    @cached_property
    def _digest(self) -> str:
        if self.card is not None:
            return self.card.weights_hash
        assert self.weights is not None
        files = self.weights.files
        # Hosts that share the files see the same names, sizes and times: one of them hashes for all.
        return process.compute_once(f"weights/{self.origin()}", lambda: _hash_files(files))

    def digest(self) -> str:
        """Returns the hash that identifies the weights, in hex.

        For own folders it is the `weights_hash` of the card, a checksum that is not cryptographic. For
        foreign files it is a sha256, which takes about a second per gigabyte, once per file and process.
        """
        return self._digest

    def origin(self) -> str:
        """Returns a hash of the names, sizes and times of foreign weight files; it does not read them."""
        assert self.weights is not None
        files = [(str(f.absolute()), f.stat().st_size, f.stat().st_mtime_ns) for f in self.weights.files]
        return hashlib.sha256(json.dumps([files, self.architecture.to_json()]).encode()).hexdigest()

    def read(self, name: str, rules: Rules, mesh: Mesh, dtype: str | np.dtype) -> jax.Array:
        """Returns a parameter in the shape of `parameter_table`, in `dtype`, sharded over `mesh` by `rules`.

        Host memory holds one copy of the parameter at a time.

        Raises:
          SteError: The files are damaged.
        """
        parameter = parameter_table(self.architecture)[name]
        sharding = NamedSharding(mesh, rules.spec(*parameter.axes))
        return self._read(name, jax.ShapeDtypeStruct(parameter.shape, jnp.dtype(dtype), sharding=sharding))

    def verify(self, hashes: Mapping[str, str]) -> None:
        """Compares the `parameter_hash` of every parameter, in the stored dtype, with the card.

        Raises:
          SteError: "model_mismatch".
        """
        if self.card is not None and combine(hashes) != self.card.weights_hash:
            raise SteError(
                "model_mismatch",
                f"{self.path}: not the weights that {CARD} names; copy the model folder again"
                + (f", or delete {CARD} if they were trained further elsewhere" if self.weights else ""),
            )

    def load(self, rules: Rules, mesh: Mesh, *, param_dtype: str, dtype: str) -> Llama:
        """Reads the weights, parameter by parameter, onto the devices of `mesh`.

        Args:
          rules: Sharding rules.
          mesh: Devices.
          param_dtype: Dtype of the loaded parameters, whatever the files hold.
          dtype: Dtype of the computation.

        Raises:
          SteError: The mesh does not divide the parameters, the files are damaged, or weights are not finite
            ("model_damaged").
        """
        check_divisible(self.architecture, rules, mesh.shape)
        arrays = {
            name: self.read(name, rules, mesh, param_dtype) for name in parameter_table(self.architecture)
        }
        _refuse_not_finite(self.path, arrays)
        if self.card is not None and all(array.dtype == self.dtypes[name] for name, array in arrays.items()):
            self.verify({name: parameter_hash(array) for name, array in arrays.items()})
        return Llama(self.architecture, rules, dtype, arrays)


def _refuse_not_finite(path: Path, arrays: Mapping[str, jax.Array]) -> None:
    """Refuses weights of a training that diverged: one step makes all of them NaN.

    The vectors are looked at, which takes no time whatever the size of the model.
    """
    for name, array in arrays.items():
        if array.ndim == 1 and not np.isfinite(np.asarray(array.addressable_data(0), np.float32)).all():
            raise SteError("model_damaged", f"{path}: {name} has values that are not finite; train again")


def open_model(source: str | Path, chat: ChatSettings | None = None) -> ModelSource:
    """Opens a GGUF file, a Hugging Face folder, an own model folder, or a model of the Hugging Face hub.

    Args:
      source: The file, folder or hub name.
      chat: What replaces the chat template of the model, or a part of it.

    Raises:
      SteError: "file_not_found", "model_not_found", "model_damaged", "model_mismatch", "model_unsupported",
        or an error of the card (see `ModelCard.from_json`).
    """
    try:
        opened = _open(source)
    except SteError as error:
        # Errors of the values, such as of `LlamaConfig`, do not know their file.
        if str(source) in str(error) or str(local_path(source, "model")) in str(error):
            raise
        raise SteError(error.code, f"{source}: {error}") from error
    return opened if chat is None else dataclasses.replace(opened, chat=chat)


def _open(source: str | Path) -> ModelSource:
    path = local_path(source, "model")
    name = path.name
    if name == small_model.NAME and not path.exists():
        path = small_model.ensure_model()
    elif is_hub_name(str(source)):
        _refuse_hub_on_many_hosts(str(source))
        path = download(str(source))
    if path.is_file():
        if path.suffix in (".safetensors", ".json", ".bin"):
            raise SteError("model_not_found", f"{path}: a file of a model; give the folder {path.parent}")
        _refuse_pointers([path])
        return _open_foreign(GgufWeights(path), path.stem, None)
    if (path / "config.json").is_file():
        _refuse_pointers(path.glob("*.safetensors"))
        return _open_foreign(HfWeights(path), name, read_card(path))
    if (path / CARD).is_file():
        return _open_own(path)
    if (path / ADAPTER).is_file():
        raise adapter_error(path)
    raise SteError(
        "model_not_found",
        f"{path}: holds neither {CARD} nor config.json; give a GGUF file, a Hugging Face folder, "
        "a model folder of a run, or a hub name",
    )


def read_card(folder: Path) -> ModelCard | None:
    """Returns the card in a model folder, or None if there is none.

    Raises:
      SteError: The card is broken, or of a newer version than this program.
    """
    if not (folder / CARD).is_file():
        return None
    value = read_json(folder / CARD, "copy the model folder again")
    try:
        return ModelCard.from_json(value)
    except SteError as error:
        raise SteError(error.code, f"{folder / CARD}: {error}") from error


def _open_own(path: Path) -> ModelSource:
    card = read_card(path)
    assert card is not None
    folder = epath.Path(path) / PARAMETERS
    stored = parameter_shapes(folder)
    found = {name: array.shape for name, array in stored.items()}
    wanted = {name: parameter.shape for name, parameter in parameter_table(card.architecture).items()}
    _check_shapes(folder, found, wanted, ignored=())
    dtypes = {name: np.dtype(array.dtype) for name, array in stored.items()}
    return ModelSource(
        path, card.name, card.architecture, card, dtypes, None, partial(load_parameter, folder)
    )


def _open_foreign(weights: Weights, name: str, card: ModelCard | None) -> ModelSource:
    cfg = weights.architecture
    if card is not None and card.architecture != cfg:
        raise SteError(
            "model_mismatch",
            f"{weights.path}: config.json and {CARD} describe different models; copy the folder again, or "
            f"delete {CARD} if the model was changed elsewhere",
        )
    if cfg.num_layers > len(weights.shapes):  # before a name is made for each tensor of each layer
        missing = weights.names["blocks.wq"].format(cfg.num_layers - 1)
        raise SteError(
            "model_damaged", f"{weights.path}: tensor {missing} is missing; copy or convert the model again"
        )
    wanted, dtypes = {}, {}
    for parameter, shape in layout.tensor_shapes(cfg).items():
        tensors = layout.tensor_names(cfg, parameter, weights.names[parameter])
        wanted |= dict.fromkeys(tensors, shape)
        dtypes[parameter] = _common_dtype({weights.dtypes.get(tensor) for tensor in tensors})
    _check_shapes(weights.path, weights.shapes, wanted, weights.ignored)
    return ModelSource(
        weights.path, card.name if card else name, cfg, card, dtypes, weights, partial(_read_foreign, weights)
    )


def _common_dtype(dtypes: set) -> np.dtype:
    """Returns the dtype of a parameter whose layers have these dtypes: float32 if they differ."""
    return dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)


def _check_shapes(
    path: Path | epath.Path,
    found: Mapping[str, tuple[int, ...]],
    wanted: Mapping[str, tuple[int, ...]],
    ignored: tuple[str, ...],
) -> None:
    for name, shape in wanted.items():
        if name not in found:
            hint = ", or set tie_word_embeddings in config.json if it is tied" if "lm_head" in name else ""
            raise SteError(
                "model_damaged", f"{path}: tensor {name} is missing; copy or convert the model again{hint}"
            )
        if found[name] != shape:
            raise SteError(
                "model_mismatch",
                f"{path}: tensor {name} has shape {found[name]}, the architecture needs {shape}; "
                "weights and configuration belong to different models",
            )
    for name in found:
        if name not in wanted and not name.endswith(ignored):
            raise SteError(
                "model_unsupported",
                f"{path}: tensor {name} does not belong to a Llama; only Llamas are supported",
            )


def _read_foreign(weights: Weights, parameter: str, target: jax.ShapeDtypeStruct) -> jax.Array:
    names = layout.tensor_names(weights.architecture, parameter, weights.names[parameter])
    # The host holds the whole parameter; each device copies its shard.
    host = layout.stack(parameter, target, names, weights.read)
    return jax.make_array_from_callback(target.shape, target.sharding, lambda index: host[index])


def _hash_files(files: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for path in files:
        status = path.stat()
        digest.update(_hash_file(path.resolve(), status.st_size, status.st_mtime_ns, status.st_ino))
    return digest.hexdigest()


@cache
def _hash_file(path: Path, size: int, mtime_ns: int, inode: int) -> bytes:
    """Returns the sha256 of a file; it is read once per process, unless its size, time or inode change."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def download(name: str, folder: Path | None = None) -> Path:
    """Returns the folder with the files of a model of the hub, which are downloaded unless they are there.

    Args:
      name: Hub name.
      folder: Folder to download to; None: the cache of the hub on this host.

    Raises:
      SteError: The hub does not deliver the files.
    """
    try:
        return Path(
            huggingface_hub.snapshot_download(name, allow_patterns=list(_HUB_FILES), local_dir=folder)
        )
    except (OSError, ValueError) as error:
        raise SteError(
            "download_failed",
            f"{name}: no such file or folder, and the download from the Hugging Face hub failed ({error}); "
            "check the spelling, the network, and for gated models `hf auth login`",
        ) from error


def _refuse_hub_on_many_hosts(name: str) -> None:
    if process.count() > 1:
        raise SteError(
            "hub_name_on_many_hosts",
            f"{name}: each of the {process.count()} hosts would download and hash this model of the hub; run "
            f"`ste convert {name} FOLDER` with a folder that all hosts share, and give that folder",
        )


def _refuse_pointers(files: Iterable[Path]) -> None:
    for path in files:
        with path.open("rb") as file:
            if file.read(24) == b"version https://git-lfs.":
                raise SteError(
                    "model_damaged",
                    f"{path}: a git-lfs pointer, not the weights; run `git lfs pull` in its repository",
                )
