"""Everything written with Orbax: training states with exact resume, and the parameters of a model folder."""

import ctypes
import errno
import gc
import logging
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import NamedSharding, PartitionSpec

from ste_jax.checkpoint.literal import literal
from ste_jax.distributed import process
from ste_jax.errors import SteError
from ste_jax.sharding import AnyMesh

_log = logging.getLogger(__name__)

PyTree = Any
# Orbax writes this file last, on every kind of file system; a folder without it is incomplete.
_COMMIT = "commit_success.txt"
_TEMPORARY = ".orbax-checkpoint-tmp"
_LARGE = 2**28
_LIBC = ctypes.CDLL(None, use_errno=True)
_COPY_AGAIN = "copy the whole model folder again"
_DELETE_STEP = "delete this step to resume before it"
_FULL = (errno.ENOSPC, errno.EDQUOT)
# A missing file, or a folder in place of a file, is damage: no later attempt reads it.
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
# How TensorStore, which raises a bare ValueError, states the errno of a failed system call, and the status
# codes that the same files may not give again.
_OS_ERROR = re.compile(r"os_error_code='(\d+)'")
_TRANSIENT = re.compile(
    r"(UNAVAILABLE|DEADLINE_EXCEEDED|ABORTED|CANCELLED|RESOURCE_EXHAUSTED|PERMISSION_DENIED|UNAUTHENTICATED|"
    r"UNKNOWN|INTERNAL): "
)


def is_relevant(record: logging.LogRecord) -> bool:
    """Returns True for the log records of Orbax that are errors which no exception reports."""
    return record.levelno >= logging.ERROR and _os_errno_of(record.getMessage()) not in _FULL


def on_mesh(abstract: PyTree, mesh: AnyMesh) -> PyTree:
    """Assigns the arrays of a `jax.eval_shape` tree to the devices of `mesh`, for `TrainCheckpoints.restore`.

    Under an explicit mesh `eval_shape` returns the partition of each array, but not its devices.
    """

    def assign(leaf: Any) -> jax.ShapeDtypeStruct:
        spec = leaf.sharding.spec if leaf.sharding is not None else PartitionSpec()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(assign, abstract)


class TrainCheckpoints:
    """Training states of one run, by step. A step exists completely or not at all."""

    def __init__(self, folder: epath.PathLike, keep: int):
        """Opens or creates `folder`, in which the newest `keep` steps are kept."""
        self._folder = epath.Path(folder).absolute()
        self._folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(literal(self._folder), options=options)

    def steps(self) -> list[int]:
        """Returns the complete steps, oldest first."""
        return sorted(int(f.name) for f in self._step_folders() if (f / _COMMIT).exists())

    def latest_step(self) -> int | None:
        """Returns the newest complete step, or None."""
        return max(self.steps(), default=None)

    def save(self, step: int, state: PyTree, meta: dict[str, Any]) -> None:
        """Writes `state` and JSON-ready `meta` as `step`; both are on disk when this returns.

        Raises:
          SteError: "checkpoint_exists": this step, or a later one, was saved before.
          OSError: The file system or a quota is full. The steps saved before remain complete.
        """
        self._remove_incomplete()
        process.on_process_zero(lambda: self._try_space(state))
        items = ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
        begin = time.monotonic()
        with _writing(self._folder):
            saved = self._manager.save(step, args=items)
        if not saved:
            raise SteError(
                "checkpoint_exists",
                f"{self._folder}: step {step} does not come after the saved steps {self.steps()}; "
                "resume from the newest one, or train into another folder",
            )
        _log.info("saved step %d in %.1f s", step, time.monotonic() - begin)

    def restore(self, step: int, abstract_state: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Returns the state and meta of `step`, placed as `abstract_state` specifies, on any mesh.

        Args:
          step: One of `steps()`.
          abstract_state: `jax.ShapeDtypeStruct`s with a `NamedSharding` each (see `on_mesh`).

        Raises:
          SteError: "checkpoint_missing", "checkpoint_damaged", "checkpoint_mismatch" (a state of another
            shape), or "read_failed" if the files could not be read this time.
        """
        if step not in self.steps():
            raise SteError("checkpoint_missing", f"{self._folder}: no step {step}, only {self.steps()}")
        folder = self._folder / str(step)
        with _reading(folder, _DELETE_STEP):
            stored = _shapes(_metadata(folder / "state"))
        different = sorted({name for name, _ in stored.items() ^ _shapes(abstract_state).items()})
        if different:
            raise SteError(
                "checkpoint_mismatch",
                f"{folder}: written by a run with another model or optimizer ({len(different)} arrays "
                f"differ, {different[0]} among them); resume with the settings of that run, or train into "
                "another folder",
            )
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(abstract_state), meta=ocp.args.JsonRestore()
        )
        with _reading(folder, _DELETE_STEP):
            restored = self._manager.restore(step, args=items)
        return restored["state"], restored["meta"]

    def close(self) -> None:
        """Stops the threads of Orbax."""
        self._manager.close()

    def _try_space(self, state: PyTree) -> None:
        """Allocates the space of a state in a file and gives it back, so that a full disk is seen at once.

        The threads of Orbax print further errors after the first one. The free space that the file system
        reports is no substitute: with quotas and thin provisioning it is wrong in both directions. Where the
        file system cannot allocate without writing, only the write itself shows that there is no space.

        Raises:
          OSError: The file system or a quota is full.
        """
        if not hasattr(_LIBC, "fallocate"):
            return
        # Orbax compresses, but floats by less than a tenth.
        size = sum(array.nbytes for array in jax.tree.leaves(state)) * 9 // 10
        with tempfile.TemporaryFile(dir=self._folder) as file:
            failed = _LIBC.fallocate(file.fileno(), 0, ctypes.c_long(0), ctypes.c_long(size))
            number = ctypes.get_errno()
        if failed and number in _FULL:
            raise OSError(number, os.strerror(number), str(self._folder))

    def _step_folders(self) -> list[epath.Path]:
        return [f for f in self._folder.iterdir() if f.name.isdecimal()]

    def _remove_incomplete(self) -> None:
        """Removes what a killed run left; a run has one writer, so nothing else is being written now."""

        def remove() -> None:
            for folder in list(self._folder.iterdir()):
                incomplete = folder.name.isdecimal() and not (folder / _COMMIT).exists()
                if incomplete or _TEMPORARY in folder.name:
                    folder.rmtree()

        process.on_process_zero(remove)
        self._manager.reload()


def save_parameter(folder: epath.Path, name: str, array: jax.Array) -> None:
    """Writes an array of any shape, dtype and sharding into `folder / name`.

    Only one array at a time is in host memory.

    Raises:
      OSError: The file system or a quota is full.
    """
    _release_host_memory(array)
    folder.mkdir(parents=True, exist_ok=True)
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer, _writing(folder):
        checkpointer.save(literal(folder) / name, args=ocp.args.StandardSave({name: array}))
    _release_host_memory(array)


def parameter_shapes(folder: epath.Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shape and dtype of every array in `folder`, by name.

    Raises:
      SteError: "model_damaged" if the folder is missing or incomplete, "read_failed" if it could not be
        read this time.
    """
    found = sorted(folder.iterdir()) if folder.exists() else []
    if not found or not all((array / _COMMIT).exists() for array in found):
        raise SteError("model_damaged", f"{folder}: weights are missing or incomplete; {_COPY_AGAIN}")
    with _reading(folder, _COPY_AGAIN, "model_damaged"):
        stored = {array.name: _metadata(array)[array.name] for array in found}
    return {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in stored.items()}


def load_parameter(folder: epath.Path, name: str, target: jax.ShapeDtypeStruct) -> jax.Array:
    """Returns the array `name` of `folder` in the shape, dtype and sharding of `target`.

    Raises:
      SteError: "model_damaged", or "read_failed" if the files could not be read this time.
    """
    with (
        ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer,
        _reading(folder, _COPY_AGAIN, "model_damaged"),
    ):
        restore = ocp.args.StandardRestore({name: target})
        array = checkpointer.restore(literal(folder) / name, args=restore)[name]
    _release_host_memory(array)
    return array


def _release_host_memory(array: jax.Array) -> None:
    """Returns the memory that was freed around a large array to the system.

    JAX leaves the host copy of a new array in a reference cycle, and malloc keeps the buffer into which
    TensorStore encoded the last array: without this, saving or reading an array takes three times its size.
    """
    if array.nbytes >= _LARGE:
        array.block_until_ready()  # until then it is still copied from the host
        gc.collect()
        if hasattr(_LIBC, "malloc_trim"):  # glibc
            _LIBC.malloc_trim(0)


@contextmanager
def _reading(folder: epath.Path, hint: str, code: str = "checkpoint_damaged") -> Iterator[None]:
    """Turns exceptions of Orbax into user errors: damage with a hint, or a read that may succeed later."""
    try:
        yield
    except (jax.errors.JaxRuntimeError, MemoryError):  # not the fault of the files
        raise
    except Exception as error:
        # TensorStore appends the whole specification of the array.
        reason = str(error.__cause__ or error).splitlines()[0].partition(" [tensorstore_spec")[0]
        if _is_transient(error):
            raise SteError(
                "read_failed",
                f"{folder}: could not be read ({reason}); the files may be intact: keep them, check the "
                "storage and its permissions, and start again",
            ) from error
        raise SteError(code, f"{folder}: damaged ({reason}); {hint}") from error


@contextmanager
def _writing(folder: epath.Path) -> Iterator[None]:
    """Turns the exceptions that Orbax raises for a full file system or quota into an `OSError`."""
    try:
        yield
    except Exception as error:
        for link in _chain(error):
            number = link.errno if isinstance(link, OSError) else _os_errno_of(str(link))
            if number in _FULL:
                raise OSError(number, os.strerror(number), str(folder)) from error
        raise


def _is_transient(error: BaseException) -> bool:
    """Returns True if nothing shows that the files are damaged, so that a later attempt may read them."""
    for link in _chain(error):
        number = link.errno if isinstance(link, OSError) else _os_errno_of(str(link))
        if number is not None:
            return number not in _MISSING
        if isinstance(link, TimeoutError | OSError) or _TRANSIENT.match(str(link)):
            return True
    return False


def _os_errno_of(message: str) -> int | None:
    """Returns the errno in a message of TensorStore, or None."""
    found = _OS_ERROR.search(message)
    return int(found[1]) if found else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yields an exception and those that it was raised from or during, outermost first."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _metadata(folder: epath.Path) -> PyTree:
    """Returns the metadata of the arrays in a folder, as a tree with the names they were saved under."""
    # Not `Checkpointer.metadata`: it logs any ValueError and returns None, whatever the reason.
    handler = ocp.StandardCheckpointHandler()
    try:
        return handler.metadata(literal(folder)).tree
    finally:
        handler.close()


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): tuple(leaf.shape) for path, leaf in leaves
    }
