"""Writes own model folders: `model.json` (the card), the parameters (Orbax) and the files of the tokenizer.

A folder is written under a temporary name and renamed once it is complete. The parts of a conversion that was
killed are kept, and the next start of the same conversion resumes after them.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from etils import epath

from ste_jax.checkpoint.card import ModelCard
from ste_jax.checkpoint.fingerprint import combine, parameter_hash
from ste_jax.checkpoint.orbax import save_parameter
from ste_jax.checkpoint.source import CARD, PARAMETERS, ModelSource
from ste_jax.distributed import preemption, process
from ste_jax.errors import SteError
from ste_jax.models.llama import Llama, check_divisible, parameter_table
from ste_jax.sharding import TRAIN
from ste_jax.storage.files import read_json, remove, write_atomically
from ste_jax.storage.lock import hold_lock
from ste_jax.text.tokenizer import Tokenizer

_ORIGIN = "conversion.json"


class PartialModelFolder:
    """A model folder that is not complete yet.

    Attributes:
      path: Temporary path of the folder.
      written: Names of the parts that are on disk, with a note each; those of earlier starts included.
    """

    def __init__(self, folder: str | Path, origin: str = ""):
        """Starts a folder, or resumes one of the same `origin` ("": always starts).

        Raises:
          SteError: "folder_in_use": `folder` exists and is no model folder, or, for a conversion, holds
            another model; "output_locked": another process writes it.
        """
        self._final = epath.Path(folder).absolute()
        self.path = self._final.parent / f"{self._final.name}.partial"
        self._origin = origin
        self._unlock = lambda: None
        self._check()
        process.on_process_zero(self._begin)
        self.written: dict[str, str] = _written(self.path, origin) or {}

    def _check(self) -> None:
        """Refuses a folder that holds something else."""
        if self._final.exists() and not (self._final / CARD).exists() and any(self._final.iterdir()):
            raise SteError(
                "folder_in_use",
                f"{self._final}: not empty, and no model folder; choose another folder for the model",
            )
        if self._origin and (self._final / CARD).exists() and not self.is_finished:
            raise SteError(
                "folder_in_use",
                f"{self._final}: holds another model already; choose another folder, or delete it",
            )

    def _begin(self) -> None:
        """Locks the folder until it is finished or this object ends, and starts it unless it is resumed."""
        if self.is_finished:
            return
        lock = Path(self._final.parent) / f".{self._final.name}.lock"
        self._unlock = hold_lock(self, lock, str(self._final))
        self._check()  # another process may have finished the folder before the lock was held
        if not self.is_finished and not _written(self.path, self._origin):
            remove(self.path)
            self.path.mkdir(parents=True)

    @property
    def is_finished(self) -> bool:
        """True if the folder exists under its final name, made from the same origin."""
        return _written(self._final, self._origin) is not None

    def record(self, name: str, note: str) -> None:
        """Records that `name` is on disk."""
        self.written[name] = note
        if self._origin:
            state = json.dumps({"origin": self._origin, "done": self.written}, indent=1)
            process.on_process_zero(lambda: write_atomically(self.path / _ORIGIN, state))

    def finish(self, card: ModelCard, tokenizer: Tokenizer) -> None:
        """Writes the card and the tokenizer, and renames the folder to its final name."""

        def rename() -> None:
            tokenizer.save(Path(self.path))
            _write_card(self.path / CARD, card)
            remove(self._final)
            self.path.rename(self._final)

        process.on_process_zero(rename)

    def close(self) -> None:
        """Lets others write the folder; what is written so far is kept."""
        self._unlock()


class ModelWriter:
    """Writes an own model folder, one parameter after the other."""

    def __init__(self, folder: str | Path, origin: str = ""):
        """See `PartialModelFolder`."""
        self._folder = PartialModelFolder(folder, origin)
        self._parameters = self._folder.path / PARAMETERS
        # A killed start may have left a parameter that was not recorded.
        process.on_process_zero(self._remove_unrecorded)

    @property
    def is_finished(self) -> bool:
        """True if the folder exists, made from the same origin."""
        return self._folder.is_finished

    @property
    def written(self) -> dict[str, str]:
        """The `parameter_hash` of every parameter that is on disk, by name."""
        return self._folder.written

    def add(self, name: str, array: jax.Array) -> None:
        """Writes a parameter."""
        save_parameter(self._parameters, name, array)
        self._folder.record(name, parameter_hash(array))

    def finish(self, card: ModelCard, tokenizer: Tokenizer) -> ModelCard:
        """Completes the folder and returns the card with its hashes filled in."""
        card = dataclasses.replace(
            card, weights_hash=combine(self.written), tokenizer_hash=tokenizer.fingerprint()
        )
        self._folder.finish(card, tokenizer)
        return card

    def close(self) -> None:
        """Lets others write the folder; what is written so far is kept."""
        self._folder.close()

    def _remove_unrecorded(self) -> None:
        for folder in _children(self._parameters):
            if folder.name not in self.written:
                folder.rmtree()


def save_model(
    folder: str | Path,
    model: Llama,
    card: ModelCard,
    tokenizer: Tokenizer,
    dtype: str | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> ModelCard:
    """Writes a model folder, replacing an older model of this name.

    Args:
      folder: Final name; the folder appears there complete or not at all.
      model: Model whose parameters are written.
      card: Card of the model; its architecture and its hashes are filled in here.
      tokenizer: Tokenizer to write into the folder.
      dtype: Dtype of the parameters on disk (None: unchanged).
      stop_requested: Called before every parameter, in all processes alike.

    Returns:
      The card as written.

    Raises:
      SteError: "folder_in_use": `folder` exists and is no model folder.
      StopRequested: `stop_requested` returned True; an older model of this name is still there.
    """
    with contextlib.closing(ModelWriter(folder)) as writer:
        for name in parameter_table(model.cfg):
            if stop_requested():
                raise preemption.StopRequested
            array = model.parameter(name)
            writer.add(name, array if dtype is None else array.astype(dtype))
        return writer.finish(dataclasses.replace(card, architecture=model.cfg), tokenizer)


# Fields of a card that describe how to use the weights, not which weights they are.
CHANGEABLE_FIELDS = frozenset(
    ("name", "judge_prompt", "parser", "max_new_tokens", "force_verdict", "dtype", "calibration", "shortcuts")
)


def update_card(folder: str | Path, **changes: Any) -> ModelCard:
    """Rewrites `model.json` of a model folder with other values of some fields, atomically.

    The weights, the tokenizer and their hashes stay as they are, so that the folder remains valid.

    Args:
      folder: A model folder of a run, or a folder exported from one.
      **changes: New values of fields of `ModelCard`.

    Returns:
      The card as written.

    Raises:
      SteError: The folder has no valid card, or a field is unknown, ill-formed or belongs to the weights.
    """
    path = epath.Path(folder) / CARD
    if fixed := sorted(changes.keys() - CHANGEABLE_FIELDS):
        raise SteError(
            "card_invalid", f"{path}: fields {fixed} cannot be changed; train or convert the model"
        )
    try:
        card = ModelCard.from_json(read_json(path, "give a model folder of a run") | changes)
    except SteError as error:
        raise SteError(error.code, f"{path}: {error}") from error
    process.on_process_zero(lambda: _write_card(path, card))
    return card


def _write_card(path: epath.Path, card: ModelCard) -> None:
    write_atomically(path, json.dumps(card.to_json(), indent=1) + "\n")


def import_model(source: ModelSource, folder: str | Path, mesh: jax.sharding.Mesh, dtype: str = "") -> bool:
    """Converts a foreign model to an own model folder, in the shards that training on `mesh` reads.

    Args:
      source: A GGUF file or a Hugging Face folder.
      folder: Folder to write; a conversion that was killed resumes in it.
      mesh: Devices; they hold one parameter at a time.
      dtype: Dtype of the parameters ("": unchanged).

    Returns:
      False if the folder was complete already.

    Raises:
      SteError: The files are damaged, `folder` is in use, or the mesh does not divide the parameters.
    """
    check_divisible(source.architecture, TRAIN, mesh.shape)
    tokenizer = source.tokenizer
    card = source.card or ModelCard(source.name, source.architecture, "", tokenizer.stop_ids)
    with contextlib.closing(ModelWriter(folder, f"{source.origin()} {dtype}")) as writer:
        if writer.is_finished:
            return False
        _copy_parameters(source, writer, mesh, dtype)
        writer.finish(card, tokenizer)
    return True


def _copy_parameters(source: ModelSource, writer: ModelWriter, mesh: jax.sharding.Mesh, dtype: str) -> None:
    """Writes the parameters of a source that are not on disk yet."""
    for name, stored in source.dtypes.items():
        if not dtype and stored.itemsize > 4:
            raise SteError(
                "dtype_unsupported",
                f"{source.path}: {name} is {stored}; give --dtype=float32 or --dtype=bfloat16",
            )
        if name not in writer.written:
            # No variable holds the array, so that its memory is free before the next one is read.
            writer.add(name, source.read(name, TRAIN, mesh, dtype or stored))
    if source.card is not None and not dtype:
        source.verify(writer.written)


def _written(folder: epath.Path, origin: str) -> dict[str, str] | None:
    """Returns the parts that a conversion from `origin` wrote into a folder, or None if there was none."""
    if not origin or not (folder / _ORIGIN).exists():
        return None
    path, hint = folder / _ORIGIN, f"delete {folder} to convert again"
    state = read_json(path, hint)
    done = state.get("done")
    if not isinstance(done, dict) or not all(isinstance(note, str) for note in done.values()):
        raise SteError("data_invalid", f"{path}: the field done is no record of parts; {hint}")
    return done if state.get("origin") == origin else None


def _children(folder: epath.Path) -> list[epath.Path]:
    return list(folder.iterdir()) if folder.exists() else []
