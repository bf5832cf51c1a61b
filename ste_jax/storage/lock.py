"""Locks of outputs: a file or folder has one writer at a time, and the second one is refused by name."""

import contextlib
import fcntl
import os
import weakref
from collections.abc import Callable
from pathlib import Path

from ste_jax.errors import SteError


def hold_lock(owner: object, path: Path, name: str) -> Callable[[], None]:
    """Locks `path` as long as `owner` exists, and returns a function that releases the lock earlier.

    The holder deletes the file when it releases the lock. The lock of a killed process ends with it.

    Args:
      owner: object whose end releases the lock, so that a caller that failed may try again.
      path: file to create and lock; its folder is created too.
      name: what the lock protects, for the error message.

    Raises:
      SteError: "output_locked": another process, or another object of this one, holds the lock.
    """
    return weakref.finalize(owner, _release, path, _acquire(path, name))


def _acquire(path: Path, name: str) -> int:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue  # another process has just finished and removed the folder
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A lock on a file that was removed meanwhile excludes no other process.
            if _is_at(path, descriptor):
                return descriptor
        except BlockingIOError as error:
            os.close(descriptor)
            raise SteError(
                "output_locked", f"{name}: another process writes it; wait, or choose another name"
            ) from error
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


def _release(path: Path, descriptor: int) -> None:
    # Before the lock ends: afterwards the file may be that of another process.
    with contextlib.suppress(OSError):
        path.unlink()
    os.close(descriptor)
