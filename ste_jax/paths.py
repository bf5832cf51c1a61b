"""Paths that a user gives."""

import os
from pathlib import Path

from ste_jax.errors import SteError


def local_path(text: str | os.PathLike[str], what: str) -> Path:
    """Returns the absolute path that `text` names; a leading `~` is the home folder.

    Args:
      text: the path as the user gave it.
      what: name of the flag or of the kind of file, for the error.

    Raises:
      SteError: "bucket_url", for the address of a bucket, which as a path would name a folder `gs:` here.
    """
    if "://" in str(text):
        raise SteError(
            "bucket_url",
            f"{what} {text}: URLs are not supported; download it, or mount the bucket, and give the path",
        )
    # Not Path.expanduser(): it fails for an unknown user name, which is then the name of a folder.
    return Path(os.path.expanduser(text)).absolute()


def check_folder(path: Path, what: str) -> None:
    """Checks a path at which a folder is, or is to be made.

    Raises:
      SteError: "path_is_file", if it or a folder above it is a file.
    """
    existing = next((p for p in (path, *path.parents) if p.exists()), None)
    if existing is not None and not existing.is_dir():
        raise SteError("path_is_file", f"{what} {path}: {existing} is a file, not a folder")
