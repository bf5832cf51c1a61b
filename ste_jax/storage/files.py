"""Files that survive a kill at any moment, and their JSON."""

import errno
import glob
import hashlib
import json
import os
import uuid
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from etils import epath

from ste_jax.errors import SteError


def canonical_json(value: Any) -> str:
    """Returns the canonical JSON text of a value: sorted keys, no optional spaces, unescaped Unicode."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def digest(value: Any) -> str:
    """Returns the sha256 of the canonical JSON text of a value, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def digest_all(values: Iterable[Any]) -> str:
    """Returns `digest(list(values))` without holding the list or its text."""
    hasher, separator = hashlib.sha256(b"["), b""
    for value in values:
        hasher.update(separator + canonical_json(value).encode())
        separator = b","
    hasher.update(b"]")
    return hasher.hexdigest()


def write_atomically(path: epath.Path, text: str) -> None:
    """Writes a file such that readers see either the old content or all of the new content.

    The content and the name are on disk when the function returns.
    """
    temporary = temporary_name(path)
    content = text.encode()
    with temporary.open("wb") as file:
        file.write(content)
        sync_file(file)
    temporary.replace(path)
    sync_folder(path.parent)


def temporary_name(path: epath.Path) -> epath.Path:
    """Returns a new hidden name next to `path`; see `remove_temporaries`."""
    return path.parent / f".{path.name}.{uuid.uuid4().hex}.tmp"


def remove_temporaries(folder: epath.Path, name: str | None = None) -> None:
    """Deletes the temporary files that killed processes left in a folder, all or those of one file."""
    pattern = ".*.tmp" if name is None else f".{glob.escape(name)}.*.tmp"
    for path in matching(folder, pattern):
        path.unlink(missing_ok=True)


def sync_file(file: Any) -> None:
    """Forces the content of an open file to disk.

    A rename is only durable together with the content: without this, a machine that loses power may keep the
    new name and lose the bytes.
    """
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: epath.Path) -> None:
    """Forces the names in a folder to disk; file systems that cannot do this are left alone."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def read_json(path: PurePath, hint: str) -> dict[str, Any]:
    """Returns the JSON object in a file.

    Args:
      path: the file.
      hint: remedy for a broken file, for the error message.

    Raises:
      SteError: "file_not_found" or "data_invalid".
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise SteError("file_not_found", f"{path}: no such file; {hint}") from error
    return parse_object(content, str(path), hint)


def parse_object(content: bytes, where: str, hint: str) -> dict[str, Any]:
    """Returns the JSON object in `content`; see `read_json`."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:  # recursion: brackets in brackets, thousands deep
        raise SteError("data_invalid", f"{where}: broken JSON ({error}); {hint}") from error
    if not isinstance(value, dict):
        raise SteError("data_invalid", f"{where}: not a JSON object; {hint}")
    return value


def remove(folder: epath.Path) -> None:
    """Deletes a folder if it exists; a kill never leaves a partial folder under its name.

    Remains of an earlier, killed call are deleted too.
    """
    prefix = f".{folder.name}.deleted."
    for remains in matching(folder.parent, f"{glob.escape(prefix)}*"):
        remains.rmtree()
    if folder.exists():
        renamed = folder.parent / f"{prefix}{uuid.uuid4().hex}"
        folder.rename(renamed)
        renamed.rmtree()


def matching(folder: epath.Path, pattern: str) -> list[epath.Path]:
    """Returns the paths in a folder whose names match a glob pattern, sorted.

    Unlike epath's glob it takes square brackets in the name of the folder literally.
    """
    return [epath.Path(path) for path in sorted(Path(folder).glob(pattern))]


def differences(old: dict, new: dict, prefix: str = "") -> list[str]:
    """Returns one line for each field, at any depth, in which two JSON objects differ."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            lines += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {_shortened(before)} -> {_shortened(after)}")
    return lines


def _shortened(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
