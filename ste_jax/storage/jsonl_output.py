"""Output files of JSON lines that are resumable: results in input order, written once all are there.

While results are made they are appended to a journal in the hidden folder `.NAME.partial/` next to the file.
The file itself appears at once, complete: a header line, then one line per record.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from etils import epath

from ste_jax.distributed import process
from ste_jax.errors import SteError
from ste_jax.paths import check_folder
from ste_jax.storage.files import (
    canonical_json,
    differences,
    parse_object,
    read_json,
    remove_temporaries,
    sync_file,
    sync_folder,
    temporary_name,
    write_atomically,
)
from ste_jax.storage.lock import hold_lock
from ste_jax.storage.schema import SCHEMA_VERSION, check_version
from ste_jax.storage.sink import JournaledSink

Item = TypeVar("Item")
R = TypeVar("R")

_log = logging.getLogger(__name__)
_STARTED = "STARTED.json"
_HEADER_BEGINS = b'{"schema":'
_KEYS = {"schema", "schema_version", "settings", "records", "sha256"}
_OTHER_FILE = "not the header of a file that ste wrote; give another file"
_HASH, _NO_HASH = "sha256", "0" * 64
_FIELD = f'"{_HASH}":"{_NO_HASH}"'.encode()


class JsonlOutput(JournaledSink):
    """A sink that becomes one file of JSON lines. All processes open and finish it together.

    The first line is an object with the keys `schema`, `schema_version`, `settings`, `records`, the number of
    records, and `sha256`, the hash of the file with zeros in place of this hash. Use it as a context manager,
    or call `close`: it holds a lock while it is open.

    Args:
      path: the file. A finished file with equal settings is read, an interrupted one is continued.
      settings: everything that the records depend on, JSON-ready.
      schema: name of the kind of records, such as "comparisons".

    Attributes:
      finished: True if the file is complete, so that it only has to be read.

    Raises:
      SteError: "output_mismatch" if the file, or its interrupted beginning, was made with another schema or
        other settings, or is no such output at all; "output_locked" if another process writes it;
        "schema_newer".
    """

    def __init__(self, path: str | os.PathLike[str], settings: Mapping[str, Any], *, schema: str):
        self.path = epath.Path(path)
        self._partial = self.path.parent / f".{self.path.name}.partial"
        super().__init__(self._partial / "journal", writes=True)
        self._header = {"schema": schema, "schema_version": SCHEMA_VERSION, "settings": dict(settings)}
        self._unlock = lambda: None
        process.on_process_zero(self._begin)
        self.finished = _exists(self.path)
        if not self.finished:
            self._load()

    def _begin(self) -> None:
        """Locks the output and checks that it is of the same settings, unless it is finished."""
        if not _exists(self.path):
            self._unlock = hold_lock(self, Path(self._partial) / "lock", str(self.path))
        try:
            self._check()
        except BaseException:
            self._unlock()
            raise

    def _check(self) -> None:
        if _exists(self.path):
            self._check_header(self.path, read_header(self.path))
            shutil.rmtree(self._partial, ignore_errors=True)  # left by a kill at the very end
            return
        if self.path.exists() and _is_cut_header(self.path):
            _log.warning("%s: ends within its first line; it is started anew", self.path)
            self.path.unlink()
        remove_temporaries(self._partial / "journal")
        remove_temporaries(self.path.parent, self.path.name)
        started = self._partial / _STARTED
        if started.exists():
            value = read_json(started, f"delete {self._partial} to start again")
            check_version(value, started)
            self._check_header(self._partial, value)
        else:
            write_atomically(started, canonical_json(self._header))

    def _check_header(self, where: epath.Path, found: dict[str, Any]) -> None:
        header = json.loads(canonical_json(self._header))
        names = ("schema", "settings")
        changes = differences({n: found.get(n) for n in names}, {n: header[n] for n in names})
        if changes:
            text = "\n  ".join(changes)
            raise SteError(
                "output_mismatch",
                f"{where} was made with other settings:\n  {text}\nWrite to another file, or delete it",
            )

    def is_done(self, request_id: str) -> bool:
        """Returns True if the records of this request are there; in a finished output, all are."""
        return self.finished or super().is_done(request_id)

    def read(self, request_id: str) -> list[dict[str, Any]]:
        """Returns the records that were added for a request, before the output is finished."""
        return [json.loads(line) for line in self._journal.read(request_id)]

    def finish(self, request_ids: Iterable[str]) -> None:
        """Writes the file, with the records in the order of `request_ids`, and closes the output.

        Process zero writes, streaming from the journals of all.

        Raises:
          RuntimeError: a request was never added: a defect of the calling program.
          SteError: "data_damaged" if the journal changed on disk.
          StopRequested: a stop was requested before all processes were done.
        """
        if not self.finished:
            self.flush()
            self._journal.share()
            process.on_process_zero(lambda: self._write(request_ids))
            self.finished = True
        self.close()

    def _write(self, request_ids: Iterable[str]) -> None:
        located = self._journal.locate(request_ids)
        header = {**self._header, "records": sum(entry.records for _, entry in located), _HASH: _NO_HASH}
        first = self._to_text(header).encode() + b"\n"
        hasher = hashlib.sha256(first)
        for line in self._journal.stream(located):
            hasher.update(line + b"\n")
        temporary = temporary_name(self.path)
        with temporary.open("wb") as file:
            file.write(_with_hash(first, hasher.hexdigest()))
            for line in self._journal.stream(located):
                file.write(line + b"\n")
            sync_file(file)
        temporary.replace(self.path)
        sync_folder(self.path.parent)
        shutil.rmtree(self._partial)

    def _to_text(self, record: Mapping[str, Any]) -> str:
        # In the order of the caller's fields: people read these files.
        return json.dumps(record, ensure_ascii=False, separators=(",", ":"))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields the records of the finished file."""
        return iter_output(self.path)

    def results(self, rows: Sequence[Item], build: Callable[[Item, dict[str, Any]], R]) -> list[R]:
        """Returns what a function builds from each row of the input and its record in the finished file.

        Raises:
          SteError: as `iter_output` and as the function, with the file and the line; "data_damaged" if the
            file does not hold one record for each row.
        """
        records = list(self)
        if len(records) != len(rows):
            raise SteError(
                "data_damaged", f"{self.path}: {len(records)} records for {len(rows)} rows; make it again"
            )
        results = []
        for number, (row, record) in enumerate(zip(rows, records, strict=True), 2):
            try:
                results.append(build(row, record))
            except SteError as error:
                where = f"{self.path}, line {number}"
                raise SteError(error.code, f"{where}: {error}; delete the file and make it again") from error
        return results

    def close(self) -> None:
        """Makes everything added so far durable, and releases the lock."""
        if not self.finished:
            self.flush()
        self._unlock()

    def __enter__(self) -> "JsonlOutput":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def check_output(path: str | os.PathLike[str]) -> None:
    """Checks, before a model is opened, that an output can be written to a path or is there.

    Raises:
      SteError: "path_is_folder", "path_is_file" if a folder above it is a file, "output_mismatch" if another
        file is there, or "schema_newer".
    """
    file = epath.Path(path)
    check_folder(Path(file).parent, "folder")
    if file.is_dir():
        raise SteError("path_is_folder", f"{file} is a folder; give the name of a file in it")
    if _exists(file):
        read_header(file)


def is_finished(path: str | os.PathLike[str]) -> bool:
    """Returns True if the output at a path is complete."""
    return _exists(epath.Path(path))


def read_header(path: epath.Path) -> dict[str, Any]:
    """Returns the header of a finished output file.

    Raises:
      SteError: "file_not_found"; "data_damaged" if the file ends within its header, or the header has an
        unknown field; "output_mismatch" if it is no such output; or "schema_newer".
    """
    if not path.exists():
        raise SteError("file_not_found", f"{path}: no such file; if its run was interrupted, run it again")
    if _is_cut_header(path):
        raise SteError(
            "data_damaged", f"{path}: ends within its first line; run the command that writes it again"
        )
    with path.open("rb") as file:
        line = file.readline()
    try:
        header = parse_object(line, f"{path}, line 1", _OTHER_FILE)
    except SteError as error:
        raise SteError("output_mismatch", str(error)) from error
    if not {"schema", "settings"} <= header.keys():
        raise SteError("output_mismatch", f"{path}, line 1: {_OTHER_FILE}")
    check_version(header, path)
    if unknown := header.keys() - _KEYS:
        raise SteError(
            "data_damaged",
            f"{path}, line 1: unknown field {min(unknown)!r}; delete the file and make it again",
        )
    return header


def iter_output(path: epath.Path) -> Iterator[dict[str, Any]]:
    """Yields the records of a finished output file, in order.

    Raises:
      SteError: as `read_header`; "data_invalid" if a line is broken. After the last record "data_damaged" if
        lines are missing or the file was changed; files of earlier versions have no hash.
    """
    header, found = read_header(path), 0
    with path.open("rb") as file:
        expected = str(header.get(_HASH, ""))
        hasher = hashlib.sha256(file.readline().replace(_with_hash(_FIELD, expected), _FIELD))
        for number, line in enumerate(file, 2):
            found += 1
            hasher.update(line)
            yield parse_object(line, f"{path}, line {number}", "delete the file and make it again")
    if found != header.get("records", found):
        raise SteError(
            "data_damaged",
            f"{path}: {found} records, the header says {header['records']}; delete it and make it again",
        )
    if _HASH in header and hasher.hexdigest() != expected:
        raise SteError(
            "data_damaged", f"{path}: was changed after it was written; delete it and make it again"
        )


def _with_hash(header: bytes, sha256: str) -> bytes:
    """Returns the bytes of a header with a hash in place of the zeros."""
    return header.replace(_FIELD, f'"{_HASH}":"{sha256}"'.encode(errors="replace"))


def _exists(path: epath.Path) -> bool:
    # A file without content was made by the caller, to reserve the name.
    return path.exists() and path.stat().length > 0 and not _is_cut_header(path)


def _is_cut_header(path: epath.Path) -> bool:
    """Returns True for a file that ends within its header: the disk was full, or a copy was cut off there."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        line = file.readline()
    # A single brace may be the beginning of anything.
    begins_so = line.startswith(_HEADER_BEGINS) or (len(line) > 1 and _HEADER_BEGINS.startswith(line))
    if line.endswith(b"\n") or not begins_so:
        return False
    try:
        json.loads(line)
    except json.JSONDecodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False
