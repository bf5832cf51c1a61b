"""Reads the files of a benchmark from a local folder or the Hugging Face hub, without running remote code."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import huggingface_hub
from etils import epath

from ste_jax.data.fields import valid_unicode
from ste_jax.data.files import check_file, data_path, family, files_in, refuse_missing_shards
from ste_jax.data.header import shown
from ste_jax.data.messages import flat_turns
from ste_jax.data.rows import iterate_rows
from ste_jax.errors import SteError

Fields = dict[str, Any]
# Returns the files that belong to a benchmark, of the relative paths of all data files in a folder.
Choose = Callable[[Sequence[str]], list[str]]
_ENDINGS = (".parquet", ".jsonl", ".json")


@dataclasses.dataclass(frozen=True)
class Record:
    """A record of a file.

    Attributes:
      file: path of the file relative to the folder.
      path: path of the file.
      record: number of the record in the file, counted from 1.
      fields: the columns by name.
    """

    file: str
    path: epath.Path
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

    rows: list[Record]
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
    return _read(data_path(path), choose, path, None)


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
        folder = epath.Path(
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


def without_repeated(
    rows: Sequence[Record], columns: Sequence[str], subset_of: Callable[[str], str | None]
) -> list[Record]:
    """Returns the records without those that occur again in the same file.

    Args:
      rows: the records.
      columns: the columns that are judged. By them two records are the same, whatever their ids are, for ids
        and names of models are often made anew in a copy.
      subset_of: returns the subset that the path of a file names, or None; equal records of two subsets are
        different.

    Raises:
      SteError: "data_invalid" with both records, if one occurs again in another file: that is a copy.
    """
    seen: dict[tuple[str | None, bytes], Record] = {}
    kept = []
    for row in rows:
        first = seen.setdefault((subset_of(row.file), _content(row, columns)), row)
        if first is row:
            kept.append(row)
        elif first.file != row.file:
            raise SteError(
                "data_invalid", f"{row.where}: the same record as {first.where}; remove one of the files"
            )
    return kept


def refuse_versions(rows: Sequence[Record], subset_of: Callable[[Record], str]) -> None:
    """Refuses files that hold the same subset and are not the numbered parts of one data set.

    Args:
      rows: the records.
      subset_of: returns the subset of a record; "" if it names none.

    Raises:
      SteError: "data_invalid" with two files, of which one is another version of the benchmark.
    """
    first: dict[str, str] = {}
    for row in rows:
        subset = subset_of(row)
        other = first.setdefault(subset, row.file)
        if family(other) != family(row.file):
            raise SteError(
                "data_invalid",
                f"{row.where}: {other} has {subset or 'the benchmark'} too, and the names are not those of "
                "parts of one data set; remove one of the files, or give the other as --path",
            )


def refuse_unknown(rows: Sequence[Record], field: str, known: Collection[str]) -> None:
    """Raises SteError "data_invalid" with the first record that has an unknown name in a field."""
    for row in rows:
        if (name := row.text(field)) not in known:
            raise SteError(
                "data_invalid",
                f"{row.where}: the {field} is {name!r}, expected {', '.join(known)}; remove the file if it "
                "is not the benchmark's",
            )


def _content(row: Record, columns: Sequence[str]) -> bytes:
    """Returns a hash of some columns of a record."""
    try:
        text = json.dumps([_comparable(row.fields.get(name)) for name in columns], sort_keys=True)
    except RecursionError as error:
        raise SteError("data_invalid", f"{row.where}: nested too deeply") from error
    return hashlib.sha256(text.encode()).digest()


def _comparable(value: Any) -> Any:
    """Returns a cell in the form in which it is compared: 1, 1.0 and "1" are the same, and all blanks are."""
    if isinstance(value, Mapping):
        return {str(key): _comparable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_comparable(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None else " ".join(str(value).split())


def _read(root: epath.Path, choose: Choose, source: str, revision: str | None) -> Files:
    if root.is_dir():
        paths = {file: root / file for file in choose(files_in(root, _ENDINGS))}
        refuse_missing_shards(source, paths)
    else:
        check_file(source, root, _ENDINGS)
        paths = {root.name: root}
    if not paths:
        raise SteError(
            "data_invalid",
            f"{source}: contains none of the benchmark's files ({', '.join(_ENDINGS)}); check --path",
        )
    # Not `content_hash`, which is another one for a single file: results are compared by this hash.
    hasher = hashlib.sha256()
    for path in paths.values():
        hasher.update(hashlib.sha256(path.read_bytes()).digest())
    return Files(
        rows=[row for name, path in paths.items() for row in _rows(name, path)],
        source=source,
        revision=revision,
        content=hasher.hexdigest(),
    )


def _rows(name: str, path: epath.Path) -> list[Record]:
    rows = iterate_rows(path, str(path))
    return [Record(name, path, i, dict(row.fields)) for i, row in enumerate(rows, 1)]
