"""Reads the files of a benchmark from a local folder or the Hugging Face hub, without running remote code."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
from etils import epath

from ste_jax.data.fields import json_value, valid_unicode
from ste_jax.data.files import is_hidden
from ste_jax.data.header import shown
from ste_jax.data.messages import flat_turns
from ste_jax.data.rows import iterate_rows
from ste_jax.errors import SteError

Fields = dict[str, Any]
# Returns the files that belong to a benchmark, of the relative paths of all data files in a folder.
Choose = Callable[[Sequence[str]], list[str]]
_SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".json", ".json.gz")


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

    def name(self, field: str) -> str:
        """Returns an id as text, which may be a number or missing ("None").

        Raises:
          SteError: "data_invalid" if it cannot be written.
        """
        return valid_unicode(str(self.fields.get(field)), field, self.where)

    def texts(self, name: str) -> list[str]:
        """Returns a field that holds a list of texts. Raises SteError "data_invalid" if it does not."""
        values = self._typed(name, list, "a list of texts")
        if not all(isinstance(value, str) for value in values):
            raise SteError("data_invalid", f"{self.where}: the field {name} must hold texts only")
        return [valid_unicode(value, name, self.where) for value in values]

    def number(self, name: str) -> float:
        """Returns a finite number field. Raises SteError "data_invalid" if it is missing or anything else."""
        value = self._typed(name, int | float, "a number")
        # False for NaN too.
        if isinstance(value, bool) or not abs(value) < 2**53:
            raise SteError("data_invalid", f"{self.where}: the field {name} is {value}, expected a number")
        return value

    def turns(self, name: str) -> list[tuple[str, str]]:
        """Returns the (role, content) turns of a conversation field. Raises SteError "data_invalid"."""
        turns = flat_turns(self._typed(name, list, "a list of turns"), f"{self.where}, field {name}")
        for text in (text for turn in turns for text in turn):
            valid_unicode(text, name, self.where)
        return turns

    def _typed(self, name: str, kind: Any, what: str) -> Any:
        value = self.fields.get(name)
        if not isinstance(value, kind):
            found = "missing" if value is None else f"a {type(value).__name__}"
            raise SteError(
                "data_invalid",
                f"{self.where}: the field {name} is {found}, expected {what}; found the fields: "
                f"{shown(self.fields)}: check that the file is the benchmark's, or download it again",
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


def read_folder(path: str, choose: Choose) -> Files:
    """Returns the contents of the data files of a local folder, or of a single file.

    Hidden files and folders are left out: editors and systems keep copies there.

    Args:
      path: the folder or file.
      choose: returns the files that belong to the benchmark.

    Raises:
      SteError: "file_not_found", or "data_invalid" if there is no data file or one is malformed.
    """
    return _read(Path(path).expanduser(), choose, path, None)


def read_hub(name: str, patterns: Sequence[str], choose: Choose) -> Files:
    """Downloads the files of a data set from the Hugging Face hub, or takes them from its local cache.

    Args:
      name: organisation/dataset.
      patterns: glob patterns of the files to download.
      choose: see `read_folder`.

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
    return _read(folder, choose, name, folder.name)


def refuse_repeated(
    rows: Sequence[Row], columns: Sequence[str], subset_of: Callable[[str], str | None], *, are_votes: bool
) -> None:
    """Refuses a record that occurs twice, as in a copy of a file, which may have more columns.

    Args:
      rows: the records.
      columns: the columns by which two records are the same.
      subset_of: returns the subset that the path of a file names, or None; equal records of two subsets are
        different.
      are_votes: equal records of one file are votes of the same person on the same pair.

    Raises:
      SteError: "data_invalid" with both records.
    """
    seen: dict[tuple[str | None, bytes], Row] = {}
    for row in rows:
        text = json.dumps([_comparable(row.fields.get(name)) for name in columns], sort_keys=True)
        first = seen.setdefault((subset_of(row.file), hashlib.sha256(text.encode()).digest()), row)
        if first is not row and not (are_votes and first.path == row.path):
            raise SteError(
                "data_invalid", f"{row.where}: the same record as {first.where}; remove one of them"
            )


def _comparable(value: Any) -> Any:
    """Returns a cell as a JSON value; whole numbers are the same in all types of files."""
    is_whole = isinstance(value, float) and value.is_integer()
    return int(value) if is_whole else json_value(value)


def _read(folder: Path, choose: Choose, source: str, revision: str | None) -> Files:
    if not folder.exists():
        raise SteError("file_not_found", f"{source}: no such file or folder; check --path")
    paths = {folder.name: folder}
    if folder.is_dir():
        files = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
        named = [file for file in files if file.endswith(_SUFFIXES) and not is_hidden(file)]
        paths = {file: folder / file for file in choose(named)}
    elif not folder.name.endswith(_SUFFIXES):
        raise SteError(
            "data_invalid", f"{source}: unknown file type; expected one ending in {', '.join(_SUFFIXES)}"
        )
    if not paths:
        raise SteError(
            "data_invalid",
            f"{source}: contains none of the benchmark's files ({', '.join(_SUFFIXES)}); check --path",
        )
    hasher = hashlib.sha256()
    for path in paths.values():
        hasher.update(hashlib.sha256(path.read_bytes()).digest())
    return Files(
        rows=[row for name, path in paths.items() for row in _rows(name, path)],
        source=source,
        revision=revision,
        content=hasher.hexdigest(),
    )


def _rows(name: str, path: Path) -> list[Row]:
    rows = iterate_rows(epath.Path(path), str(path))
    return [Row(name, path, i, dict(row.fields)) for i, row in enumerate(rows, 1)]
