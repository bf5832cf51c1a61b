"""Reading the records of finished record sets, streaming and with verified hashes."""

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TypeVar, overload

from etils import epath

from ste_jax.errors import SteError
from ste_jax.records import Record
from ste_jax.storage.files import matching, parse_object
from ste_jax.storage.migration import migrate
from ste_jax.storage.success import SUCCESS, Part, Success, redo_hint, require_success

R = TypeVar("R", bound=Record)
_BLOCK_BYTES = 2**20


def iter_records(folder: epath.Path, kind: type[R]) -> Iterator[R]:
    """Yields the records of a finished set, in order; each part is verified before it is read.

    Raises:
      SteError: "stage_unfinished", "schema_newer", "data_damaged" if the parts are not those that the set was
        finished with, or "data_invalid" if they hold other records.
    """
    return iter_parts(folder, require_success(folder), kind)


class IndexedRecords(Sequence[R]):
    """The records of a finished set as a sequence that reads records from disk when they are used.

    It holds eight bytes for each record once one is used by its index; iterating streams.

    Args:
      folder: folder of the record set.
      kind: the record class.
      success: description of the set; read from the folder by default.

    Raises:
      SteError: see `iter_records`; also when records are used.
    """

    def __init__(self, folder: epath.Path, kind: type[R], success: Success | None = None):
        self._folder, self._kind = folder, kind
        self._success = success or require_success(folder)
        _check_kind(folder, self._success, kind)
        self._paths: list[epath.Path] = []
        # Number of the first record of each part, and the offset of every line.
        self._firsts: list[int] = []
        self._offsets = array("Q")

    def _make_index(self) -> None:
        for part in _listed_parts(self._folder, self._success):
            path = self._folder / part.name
            if self._success.parts is not None:
                _verify(path, part)
            self._paths.append(path)
            self._firsts.append(len(self._offsets))
            offset = 0
            for _, line in _lines(path):
                self._offsets.append(offset)
                offset += len(line)
            if self._success.parts is not None and len(self._offsets) - self._firsts[-1] != part.records:
                raise _damaged(path)

    def __len__(self) -> int:
        """Returns the number of records."""
        return self._success.count

    @overload
    def __getitem__(self, index: int) -> R: ...

    @overload
    def __getitem__(self, index: slice) -> list[R]: ...

    def __getitem__(self, index: int | slice) -> R | list[R]:
        """Returns a record, or the list of a slice."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        if not self._paths:
            self._make_index()
        part = bisect_right(self._firsts, number) - 1
        with self._paths[part].open("rb") as file:
            file.seek(self._offsets[number])
            line = file.readline()
        where = f"{self._paths[part]}, line {number - self._firsts[part] + 1}"
        return parse_record(line, where, self._kind, self._success.schema_version, redo_hint(self._folder))

    def __iter__(self) -> Iterator[R]:
        """Yields all records, in order."""
        return iter_parts(self._folder, self._success, self._kind)


class PickedRecords(Sequence[R]):
    """Selected records of a sequence in a given order, each read when it is used.

    Args:
      records: a sequence, such as `IndexedRecords`.
      indices: indices of the picked records.
    """

    def __init__(self, records: Sequence[R], indices: Iterable[int]):
        self._records, self._indices = records, array("Q", indices)

    def __len__(self) -> int:
        """Returns the number of picked records."""
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> R: ...

    @overload
    def __getitem__(self, index: slice) -> list[R]: ...

    def __getitem__(self, index: int | slice) -> R | list[R]:
        """Returns a record, or the list of a slice."""
        if isinstance(index, slice):
            return [self._records[i] for i in self._indices[index]]
        return self._records[self._indices[index]]


def pick(records: Sequence[R], indices: Sequence[int]) -> Sequence[R]:
    """Returns some records: a list if they are in memory, and a view if they are on disk."""
    if isinstance(records, list):
        return [records[index] for index in indices]
    return PickedRecords(records, indices)


class ZippedRecords(Sequence[tuple[R, R]]):
    """Pairs of the records of two sequences of equal length, taken from them when they are used."""

    def __init__(self, first: Sequence[R], second: Sequence[R]):
        self._first, self._second = first, second

    def __len__(self) -> int:
        """Returns the number of pairs."""
        return len(self._first)

    @overload
    def __getitem__(self, index: int) -> tuple[R, R]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[R, R]]: ...

    def __getitem__(self, index: int | slice) -> tuple[R, R] | list[tuple[R, R]]:
        """Returns a pair, or the list of a slice."""
        if isinstance(index, slice):
            return list(zip(self._first[index], self._second[index], strict=True))
        return self._first[index], self._second[index]


def read_records(folder: epath.Path, kind: type[R]) -> list[R]:
    """Returns the records of a finished set, in order; see `iter_records`."""
    return list(iter_records(folder, kind))


def read_some(folder: epath.Path, kind: type[R], indices: Iterable[int]) -> list[R]:
    """Returns the records of a finished set with these indices, in order; see `iter_records`.

    Only parts that hold one of them are read, and no other line is parsed.
    """
    wanted = set(indices)
    return list(iter_parts(folder, require_success(folder), kind, wanted))


def iter_parts(
    folder: epath.Path, success: Success, kind: type[R], indices: Collection[int] | None = None
) -> Iterator[R]:
    """Yields the records in the parts that `success` lists; see `iter_records` and `read_some`."""
    _check_kind(folder, success, kind)
    first = 0
    for part in _listed_parts(folder, success):
        here = range(first, first + part.records)
        first += part.records
        if indices is not None and not any(index in here for index in indices):
            continue
        path = folder / part.name
        if success.parts is not None:
            _verify(path, part)
        found = 0
        for line_number, line in _lines(path):
            found = line_number
            if indices is None or here.start + line_number - 1 in indices:
                where = f"{path}, line {line_number}"
                yield parse_record(line, where, kind, success.schema_version, redo_hint(folder))
        if found != part.records:
            raise _damaged(path)


def parse_record(line: bytes, where: str, kind: type[R], version: int, hint: str) -> R:
    """Returns the record in a JSON line.

    Args:
      line: the JSON text.
      where: file and line, for the error message.
      kind: the record class.
      version: schema version that the line was written in.
      hint: remedy for a broken line, for the error message.

    Raises:
      SteError: "data_invalid".
    """
    value = parse_object(line, where, hint)
    try:
        return kind.from_json(migrate(kind.__name__, value, version))
    except SteError as error:
        raise SteError(error.code, f"{where}: {error}; {hint}") from error


def _check_kind(folder: epath.Path, success: Success, kind: type[Record]) -> None:
    if success.kind not in (None, kind.__name__):
        raise SteError("data_invalid", f"{folder} holds {success.kind} records, not {kind.__name__}")


def _listed_parts(folder: epath.Path, success: Success) -> Sequence[Part]:
    """Returns the parts; those of version 1, which SUCCESS.json does not list, are verified here."""
    paths = matching(folder, "part-*.jsonl")
    if success.parts is not None:
        if {path.name for path in paths} != {part.name for part in success.parts}:
            raise _damaged(folder)
        return success.parts
    hasher, parts = hashlib.sha256(), []
    for path in paths:
        records = 0
        for block in _blocks(path):
            hasher.update(block)
            records += block.count(b"\n")
        parts.append(Part(path.name, "", records))
    if hasher.hexdigest() != success.content_hash:
        raise _damaged(folder)
    return parts


def _verify(path: epath.Path, part: Part) -> None:
    hasher = hashlib.sha256()
    for block in _blocks(path):
        hasher.update(block)
    if hasher.hexdigest() != part.sha256:
        raise _damaged(path)


def _damaged(path: epath.Path) -> SteError:
    folder = path if path.is_dir() else path.parent
    return SteError(
        "data_damaged", f"{path}: changed since {folder / SUCCESS} was written; {redo_hint(folder)}"
    )


def _blocks(path: epath.Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def _lines(path: epath.Path) -> Iterator[tuple[int, bytes]]:
    # Iterating a binary file splits at line feeds only. Generated text may hold other line separators, which
    # JSON leaves as they are.
    with path.open("rb") as file:
        yield from enumerate(file, 1)
