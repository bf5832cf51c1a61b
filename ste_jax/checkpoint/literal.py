"""Paths for Orbax, which takes brackets, `*` and `?` anywhere in the path of a folder for a pattern.

It then finds none of the files that it has just written, and leaves incomplete checkpoints behind. Such a
folder is given to it under another name: a symbolic link in the temporary folder of this process.
"""

import atexit
import functools
import tempfile
from pathlib import Path

from etils import epath

# TensorStore takes a backslash for a separator.
_PATTERN = frozenset("*?[]\\")


def literal(folder: epath.Path) -> epath.Path:
    """Returns a path of an existing folder that holds no character of a pattern."""
    folder = folder.absolute()
    if not _has_pattern(str(folder)):
        return folder
    # The link names the deepest folder that it has to, so that what is below it may be renamed.
    parts = folder.parts
    last = max(number for number, part in enumerate(parts) if _has_pattern(part))
    return epath.Path(_link(Path(*parts[: last + 1]))).joinpath(*parts[last + 1 :])


def _has_pattern(text: str) -> bool:
    return not _PATTERN.isdisjoint(text)


@functools.cache
def _link(target: Path) -> Path:
    folder = tempfile.TemporaryDirectory(prefix="ste-")
    atexit.register(folder.cleanup)
    link = Path(folder.name) / "link"
    link.symlink_to(target, target_is_directory=True)
    return link
