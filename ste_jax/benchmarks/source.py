"""The files of a benchmark, from a local folder or from the Hugging Face hub; no code of theirs is run."""

import dataclasses
import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub
from pyarrow import ArrowException, parquet

from ste_jax.data.sources import whole_text

Fields = dict[str, Any]
_SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".json")


@dataclasses.dataclass(frozen=True)
class Row:
    """A record as read.

    Attributes:
      file: below the folder.
      path: of the file.
      record: its number in the file, from 1.
      fields: as they stand there.
    """

    file: str
    path: Path
    record: int
    fields: Fields

    @property
    def where(self) -> str:
        """The words that say where it stands."""
        return f"{self.path}, record {self.record}"

    def text(self, name: str) -> str:
        """Returns a field that must be text.

        Raises:
          ValueError: it is missing or something else, or holds half of a surrogate pair.
        """
        return whole_text(self.where, name, self._typed(name, str, "text"))

    def texts(self, name: str) -> list[str]:
        """Returns a field that must be a list of texts."""
        values = self._typed(name, list, "a list of texts")
        if not all(isinstance(value, str) for value in values):
            raise ValueError(f"{self.where}: the field {name} holds something that is no text")
        return [whole_text(self.where, name, value) for value in values]

    def number(self, name: str) -> float:
        """Returns a field that must be a number."""
        return self._typed(name, int | float, "a number")

    def turns(self, name: str) -> list[tuple[str, str]]:
        """Returns a field that must be a conversation, as (role, content)."""
        try:
            return [
                (str(turn["role"]), whole_text(self.where, name, str(turn["content"])))
                for turn in self._typed(name, list, "a list of turns")
            ]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{self.where}: the field {name} must hold turns of role and content") from error

    def _typed(self, name: str, kind: Any, what: str) -> Any:
        value = self.fields.get(name)
        if not isinstance(value, kind):
            found = "missing" if value is None else f"a {type(value).__name__}"
            raise ValueError(
                f"{self.where}: the field {name} is {found}, not {what}; get the benchmark's files again"
            )
        return value


@dataclasses.dataclass(frozen=True)
class Files:
    """What was found: rows in the order of the files' names, where from, the hub's commit, sha256 of all."""

    rows: list[Row]
    source: str
    revision: str | None
    content: str


def read_folder(path: str, wanted: Callable[[str], bool]) -> Files:
    """Reads the data files of a local folder, or a single file.

    Args:
      path: of the folder or file.
      wanted: says of a file's path below the folder whether it belongs to the benchmark.

    Raises:
      ValueError: there is no such folder, it holds no data file, or one of them is damaged.
    """
    return _read(Path(path).expanduser(), wanted, path, None)


def read_hub(name: str, patterns: Sequence[str], wanted: Callable[[str], bool]) -> Files:
    """Reads a data set's files of the Hugging Face hub; they stay in the cache of its library.

    Args:
      name: organisation/dataset.
      patterns: of the files to get.
      wanted: see `read_folder`.

    Raises:
      ValueError: the hub does not give it.
    """
    try:
        folder = Path(
            huggingface_hub.snapshot_download(name, repo_type="dataset", allow_patterns=list(patterns))
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name}: the Hugging Face hub did not give it ({type(error).__name__}); check the network, or "
            "download its files elsewhere and name their folder with --path"
        ) from error
    # The cache names a snapshot's folder after its commit.
    return _read(folder, wanted, name, folder.name)


def _read(folder: Path, wanted: Callable[[str], bool], source: str, revision: str | None) -> Files:
    if not folder.exists():
        raise ValueError(f"{source}: there is no such folder; check --path")
    paths = [folder]
    if folder.is_dir():
        files = sorted(path for path in folder.rglob("*") if path.name.endswith(_SUFFIXES) and path.is_file())
        paths = [path for path in files if wanted(path.relative_to(folder).as_posix())]
    if not paths:
        raise ValueError(
            f"{source}: holds none of the benchmark's files ({', '.join(_SUFFIXES)}); check --path"
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
                raise ValueError(f"holds a {type(record).__name__} where a record should be")
            yield record
    except (ArrowException, ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); get the benchmark's files again") from error


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
