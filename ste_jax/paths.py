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
            "bucket_url", f"{what} {text}: bucket URLs are not supported; mount the bucket and give that path"
        )
    # Not Path.expanduser(): it fails for an unknown user name, which is then the name of a folder.
    return Path(os.path.expanduser(text)).absolute()
