"""The log files of the command line: one file for each process, in WORKDIR/logs/.

Modules log to `logging.getLogger(__name__)`, below the logger "ste_jax". Only the command line installs
handlers; a program that imports the package decides itself what is shown. Lines are kept in memory until the
folder and the index of the process are known: a command that ends before it does anything writes nothing.
"""

import logging
import logging.handlers
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ste_jax.visible import visible, visible_message

if TYPE_CHECKING:
    import jax

_ROOT = logging.getLogger("ste_jax")
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_CAPACITY = 10_000  # lines in memory
_COMPILE_EVENT = "/jax/core/compile/backend_compile_duration"
_COMPILE_SECONDS = 0.5  # shorter compilations are not logged


class _VisibleFormatter(logging.Formatter):
    """Escapes control characters: people read logs in a terminal, and lines may quote files."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - name of the base class
        return visible_message(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - name of the base class
        return visible(super().formatException(ei))


class _QuietFileHandler(logging.FileHandler):
    """A log file that a full disk does not turn into tracebacks on the terminal."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - name of the base class
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _Once(logging.Filter):
    """Lets every message pass once: a command opens the same model several times."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        is_new = message not in self._seen
        self._seen.add(message)
        return is_new


_memory = logging.handlers.MemoryHandler(_CAPACITY, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
_file: logging.FileHandler | None = None


def start() -> None:
    """Keeps log lines in memory until `open_file`.

    Downloads, damage, hostile texts and warnings about models and data also go to stderr.
    """
    _ROOT.setLevel(logging.INFO)
    _ROOT.propagate = False
    _ROOT.addHandler(_memory)
    console = logging.StreamHandler()
    console.setFormatter(_VisibleFormatter("ste: %(message)s"))
    for name in ("checkpoint.small_model", "storage", "judging.protocol"):
        logging.getLogger(f"ste_jax.{name}").addHandler(console)
    warnings = logging.StreamHandler()
    warnings.setLevel(logging.WARNING)
    warnings.setFormatter(_VisibleFormatter("ste: warning: %(message)s"))
    warnings.addFilter(_Once())
    for name in ("ste_jax.checkpoint.hf", "ste_jax.text", "ste_jax.data", "ste_jax.pairs.splits"):
        logging.getLogger(name).addHandler(warnings)
    logging.getLogger("absl").addFilter(is_shown)
    _ROOT.info("command: %s", sys.argv)


def is_shown(record: logging.LogRecord) -> bool:
    """Returns False for what Orbax logs to the logger of absl, but for errors that no exception reports."""
    if "orbax" not in Path(record.pathname).parts:
        return True
    from ste_jax.checkpoint.orbax import is_relevant  # here, since it imports JAX, as Orbax did already

    return is_relevant(record)


def open_file(folder: str | os.PathLike[str], process: int) -> Path:
    """Writes the log of this process to a new file in `folder`, beginning with the lines kept so far.

    Args:
      folder: created if it is missing.
      process: index of this process, which stands in the name of the file.

    Returns:
      The file; if one is open already, that one.

    Raises:
      OSError: the folder cannot be written.
    """
    global _file
    if _file is not None:
        return Path(_file.baseFilename)
    Path(folder).mkdir(parents=True, exist_ok=True)
    # The process id keeps two commands of the same second apart.
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-process{process}.log"
    _file = _QuietFileHandler(Path(folder) / name, encoding="utf-8")
    _file.setFormatter(_VisibleFormatter(_FORMAT))
    _ROOT.addHandler(_file)
    _memory.setTarget(_file)
    _memory.flush()
    _ROOT.removeHandler(_memory)
    return Path(_file.baseFilename)


def write_error(error: BaseException, folder: Path | None, process: int) -> Path | None:
    """Logs an error with its traceback and returns the file; None if no folder can be written.

    Args:
      error: exception that ended the command.
      folder: folder of the log files. If it is None or cannot be written: `ste-logs` in the current folder,
        else in the temporary folder.
      process: index of this process.
    """
    for candidate in (folder, Path("ste-logs"), Path(tempfile.gettempdir()) / "ste-logs"):
        if candidate is None:
            continue
        try:
            path = open_file(candidate, process)
            _ROOT.error("the command failed", exc_info=error)
            return path
        except OSError:
            continue
    return None


def log_devices() -> None:
    """Logs the devices of this process and of all processes."""
    import jax

    _ROOT.info(
        "process %d of %d: %d of %d devices, %s",
        jax.process_index(),
        jax.process_count(),
        jax.local_device_count(),
        jax.device_count(),
        jax.devices()[0].device_kind,
    )


def log_mesh(name: str, mesh: "jax.sharding.Mesh") -> None:
    """Logs the axes of a mesh and the ids of its devices, in the order of the axes."""
    _ROOT.info("%s mesh %s: devices %s", name, dict(mesh.shape), [d.id for d in mesh.devices.flat])


def watch_compilation() -> None:
    """Logs the seconds that XLA takes for each program, from now on."""
    import jax

    def log(event: str, duration_secs: float, **details: Any) -> None:
        if event == _COMPILE_EVENT and duration_secs >= _COMPILE_SECONDS:
            _ROOT.info("compiled %s in %.1f s", details.get("fun_name", "a program"), duration_secs)

    jax.monitoring.register_event_duration_secs_listener(log)
