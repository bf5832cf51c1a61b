"""What a path that a user gives means on this machine."""

import os
from pathlib import Path


def local_path(text: str | os.PathLike[str], what: str) -> Path:
    """Returns the absolute path that `text` names; a `~` in front is a home.

    Args:
      text: as it was given.
      what: for the error: a flag, or what lies there.

    Raises:
      ValueError: it is the address of a bucket; as a path it would name a folder `gs:` here.
    """
    if "://" in str(text):
        raise ValueError(f"{what} {text}: no path here; mount the bucket and give the mounted path")
    # Not Path.expanduser(): it fails for a user that is not there, whose name is then a folder's.
    return Path(os.path.expanduser(text)).absolute()
