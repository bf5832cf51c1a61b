"""Reads the files of a benchmark from a local folder or the Hugging Face hub, without running remote code."""

import dataclasses
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
from pyarrow import ArrowException, parquet

from ste_jax.data.fields import valid_unicode
from ste_jax.errors import SteError

Fields = dict[str, Any]
_SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".json")


@dataclasses.dataclass(frozen=True)
class Row:
    """A record of a file.

    Attributes:
      file: path of the file relative to the folder.
      path: path of the file.
      record: number of the record in the file, counted from 1.
      fields: the columns by name.
    """

    file: str
    path: Path
    record: int
    fields: Fields

    @property
    def where(self) -> str:
        """The file and record number, as named in errors."""
        return f"{self.path}, record {self.record}"

    def text(self, name: str) -> str:
        """Returns a text field. Raises SteError "data_invalid" if it is missing or not text."""
        return valid_unicode(self._typed(name, str, "text"), name, self.where)

    def texts(self, name: str) -> list[str]:
        """Returns a field that holds a list of texts. Raises SteError "data_invalid" if it does not."""
        values = self._typed(name, list, "a list of texts")
        if not all(isinstance(value, str) for value in values):
            raise SteError("data_invalid", f"{self.where}: the field {name} must hold texts only")
        return [valid_unicode(value, name, self.where) for value in values]

    def number(self, name: str) -> float:
        """Returns a number field. Raises SteError "data_invalid" if it is missing or not a number."""
        return self._typed(name, int | float, "a number")

    def turns(self, name: str) -> list[tuple[str, str]]:
        """Returns the (role, content) turns of a conversation field. Raises SteError "data_invalid"."""
        try:
            return [
                (str(turn["role"]), valid_unicode(str(turn["content"]), name, self.where))
                for turn in self._typed(name, list, "a list of turns")
            ]
        except (KeyError, TypeError) as error:
            raise SteError(
                "data_invalid", f"{self.where}: the field {name} must hold turns of role and content"
            ) from error

    def _typed(self, name: str, kind: Any, what: str) -> Any:
        value = self.fields.get(name)
        if not isinstance(value, kind):
            found = "missing" if value is None else f"a {type(value).__name__}"
            raise SteError(
                "data_invalid",
                f"{self.where}: the field {name} is {found}, expected {what}; download the files again",
            )
        return value


@dataclasses.dataclass(frozen=True)
class Files:
    """The contents of a benchmark's files.

    Attributes:
      rows: the records, file by file in the order of the file names.
      source: the folder or the name of the data set on the hub.
      revision: the commit on the hub, or None for a local folder.
      content: sha256 of all files.
    """

    rows: list[Row]
    source: str
    revision: str | None
    content: str


def read_folder(path: str, is_needed: Callable[[str], bool]) -> Files:
    """Returns the contents of the data files of a local folder, or of a single file.

    Args:
      path: the folder or file.
      is_needed: returns True for the relative paths of files that belong to the benchmark.

    Raises:
      SteError: "file_not_found", or "data_invalid" if there is no data file or one is malformed.
    """
    return _read(Path(path).expanduser(), is_needed, path, None)


def read_hub(name: str, patterns: Sequence[str], is_needed: Callable[[str], bool]) -> Files:
    """Downloads the files of a data set from the Hugging Face hub, or takes them from its local cache.

    Args:
      name: organisation/dataset.
      patterns: glob patterns of the files to download.
      is_needed: see `read_folder`.

    Raises:
      SteError: "download_failed", or as `read_folder`.
    """
    try:
        folder = Path(
            huggingface_hub.snapshot_download(name, repo_type="dataset", allow_patterns=list(patterns))
        )
    except (OSError, ValueError) as error:
        raise SteError(
            "download_failed",
            f"{name}: the download from the Hugging Face hub failed ({type(error).__name__}); check the "
            "network, or download the files elsewhere and pass their folder as --path",
        ) from error
    # The cache names a snapshot's folder after its commit.
    return _read(folder, is_needed, name, folder.name)


def _read(folder: Path, is_needed: Callable[[str], bool], source: str, revision: str | None) -> Files:
    if not folder.exists():
        raise SteError("file_not_found", f"{source}: no such file or folder; check --path")
    paths = [folder]
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.name.endswith(_SUFFIXES) and path.is_file())
        paths = [path for path in files if is_needed(path.relative_to(folder).as_posix())]
    if not paths:
        raise SteError(
            "data_invalid",
            f"{source}: contains none of the benchmark's files ({', '.join(_SUFFIXES)}); check --path",
        )
    rows, digest = [], hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
        name = path.name if path == folder else path.relative_to(folder).as_posix()
        rows += [Row(name, path, i, fields) for i, fields in enumerate(_records(path), 1)]
    return Files(rows, source, revision, digest.hexdigest())


def _records(path: Path) -> Iterator[Fields]:
    readers: dict[str, Callable[[Path], Iterator[Any]]] = {
        ".parquet": _parquet,
        ".jsonl": _lines,
        ".gz": _lines,
    }
    try:
        for record in readers.get(path.suffix, _json)(path):
            if not isinstance(record, dict):
                raise ValueError(f"expected JSON objects, found a {type(record).__name__}")
            yield record
    except (ArrowException, ValueError, OSError, EOFError) as error:
        raise SteError(
            "data_invalid", f"{path}: cannot be read ({error}); download the files again"
        ) from error


def _parquet(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        yield from parquet.read_table(file).to_pylist()


def _lines(path: Path) -> Iterator[Any]:
    content = path.read_bytes()
    text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
    # Not splitlines(): texts may hold other line separators, which JSON leaves as they are.
    yield from (json.loads(line) for line in text.split("\n") if line.strip())


def _json(path: Path) -> Iterator[Any]:
    value = json.loads(path.read_text("utf-8"))
    yield from value if isinstance(value, list) else [value]
