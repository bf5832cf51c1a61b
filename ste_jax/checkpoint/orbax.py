"""Everything written with Orbax: training states with exact resume, and the parameters of a model folder."""

import ctypes
import errno
import gc
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec

from ste_jax.distributed import process
from ste_jax.sharding import AnyMesh

PyTree = Any
# Orbax writes this file last, on every kind of file system; a folder without it was left half written.
_COMMIT = "commit_success.txt"
_TEMPORARY = ".orbax-checkpoint-tmp"
_LARGE = 2**28
_LIBC = ctypes.CDLL(None)
_COPY = "copy the whole model folder again"
_EARLIER = "delete this step to resume before it"


def _is_news(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR or "orbax" not in Path(record.pathname).parts


logging.getLogger("absl").addFilter(_is_news)


def on_mesh(abstract: PyTree, mesh: AnyMesh) -> PyTree:
    """Ties a `jax.eval_shape` tree to the devices of `mesh`, as `TrainCheckpoints.restore` wants it.

    Under an explicit mesh `eval_shape` says how each array is partitioned, but not over which devices.
    """

    def tie(leaf: Any) -> jax.ShapeDtypeStruct:
        spec = leaf.sharding.spec if leaf.sharding is not None else PartitionSpec()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(tie, abstract)


class TrainCheckpoints:
    """The training states of one run, by step; a step is there whole or not at all."""

    def __init__(self, folder: epath.PathLike, keep: int):
        """Opens or makes `folder`, in which the newest `keep` steps are kept."""
        self._folder = epath.Path(folder).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def steps(self) -> list[int]:
        """Returns the steps that are completely on disk, oldest first."""
        return sorted(int(f.name) for f in self._step_folders() if (f / _COMMIT).exists())

    def latest_step(self) -> int | None:
        """Returns the newest complete step, if there is one."""
        return max(self.steps(), default=None)

    def save(self, step: int, state: PyTree, meta: dict[str, Any]) -> None:
        """Writes `state` and JSON-ready `meta` as `step`; both are on disk when this returns.

        Raises:
          ValueError: the step, or a later one, was saved before.
          OSError: there is no room for it; nothing is written then.
        """
        self._clear_half_written()
        process.on_process_zero(lambda: self._require_room(state))
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        if not self._manager.save(step, args=items):
            raise ValueError(
                f"{self._folder}: step {step} does not come after the saved steps {self.steps()}; "
                "resume from the newest one, or train into another folder"
            )

    def restore(self, step: int, abstract_state: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Returns the state and meta of `step`, laid out as `abstract_state` says, on whatever mesh that is.

        Args:
          step: one of `steps()`.
          abstract_state: `jax.ShapeDtypeStruct`s with a `NamedSharding` each (see `on_mesh`).

        Raises:
          ValueError: there is no such step, it is damaged, or it holds a state of another shape.
        """
        if step not in self.steps():
            raise ValueError(f"{self._folder}: no step {step}, only {self.steps()}")
        folder = self._folder / str(step)
        with _reading(folder, _EARLIER):
            stored = _shapes(_metadata(folder / "state"))
        odd = sorted({name for name, _ in stored.items() ^ _shapes(abstract_state).items()})
        if odd:
            raise ValueError(
                f"{folder}: written by a run with another model or optimizer ({len(odd)} arrays differ, "
                f"{odd[0]} among them); resume with that run's settings, or train into another folder"
            )
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract_state), meta=ocp.args.JsonRestore()
        )
        with _reading(folder, _EARLIER):
            restored = self._manager.restore(step, args=items)
        return restored["state"], restored["meta"]

    def close(self) -> None:
        """Lets go of Orbax's threads."""
        self._manager.close()

    def _require_room(self, state: PyTree) -> None:
        # Orbax's threads would go on failing, aloud, after the one error that says what to do. It compresses,
        # but floats by less than a tenth.
        if sum(array.nbytes for array in jax.tree.leaves(state)) > shutil.disk_usage(self._folder).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._folder))

    def _step_folders(self) -> list[epath.Path]:
        return [f for f in self._folder.iterdir() if f.name.isdecimal()]

    def _clear_half_written(self) -> None:
        """Removes what a killed run left; a run has one writer, so nothing else is being written now."""

        def clear() -> None:
            for folder in list(self._folder.iterdir()):
                half_written = folder.name.isdecimal() and not (folder / _COMMIT).exists()
                if half_written or _TEMPORARY in folder.name:
                    folder.rmtree()

        process.on_process_zero(clear)
        self._manager.reload()


def save_parameter(folder: epath.Path, name: str, array: jax.Array) -> None:
    """Writes an array below `folder`, by itself: only one at a time is in this host's memory."""
    _release_host_memory(array)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        checkpointer.save(folder / name, args=ocp.args.StandardSave({name: array}))
    _release_host_memory(array)


def parameter_shapes(folder: epath.Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shape and dtype of every array in `folder`.

    Raises:
      ValueError: the folder is missing or damaged.
    """
    found = sorted(folder.iterdir()) if folder.exists() else []
    if not found or not all((array / _COMMIT).exists() for array in found):
        raise ValueError(f"{folder}: no weights, or only half of them; {_COPY}")
    with _reading(folder, _COPY):
        stored = {array.name: _metadata(array)[array.name] for array in found}
    return {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in stored.items()}


def load_parameter(folder: epath.Path, name: str, target: jax.ShapeDtypeStruct) -> jax.Array:
    """Returns an array of `folder` in the dtype and sharding of `target`.

    Raises:
      ValueError: the files are damaged.
    """
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer, _reading(folder, _COPY):
        array = checkpointer.restore(folder / name, args=ocp.args.StandardRestore({name: target}))[name]
    _release_host_memory(array)
    return array


def _release_host_memory(array: jax.Array) -> None:
    """Returns the memory that was freed around a large array to the system.

    JAX leaves the host's copy of a new array in a reference cycle, and malloc keeps what TensorStore encoded
    the last array into: without this, saving or reading one takes three times its size.
    """
    if array.nbytes >= _LARGE:
        array.block_until_ready()  # until then it is still copied from the host
        gc.collect()
        if hasattr(_LIBC, "malloc_trim"):  # glibc
            _LIBC.malloc_trim(0)


@contextmanager
def _reading(folder: epath.Path, hint: str) -> Iterator[None]:
    """Turns what Orbax raises, for damaged files a bare `Exception`, into an error that people can act on."""
    try:
        yield
    except jax.errors.JaxRuntimeError:  # out of device memory, say: not the files' fault
        raise
    except Exception as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ValueError(f"{folder}: damaged ({reason}); {hint}") from error


def _metadata(folder: epath.Path) -> PyTree:
    """Returns what the arrays of a folder are, by the names they were saved under."""
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        return checkpointer.metadata(folder).item_metadata.tree


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape) for path, leaf in leaves
    }
