"""Reading the records of finished record sets, streaming and with verified hashes."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TypeVar

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
    if success.kind not in (None, kind.__name__):
        raise SteError("data_invalid", f"{folder} holds {success.kind} records, not {kind.__name__}")
    first = 0
    for part in _listed_parts(folder, success):
        here = range(first, first + part.records)
        first += part.records
        if indices is not None and not any(index in here for index in indices):
            continue
        path = folder / part.name
        if success.parts is not None:
            _verify(path, part)
        for index, (line_number, line) in zip(here, _lines(path), strict=True):
            if indices is None or index in indices:
                where = f"{path}, line {line_number}"
                yield parse_record(line, where, kind, success.schema_version, redo_hint(folder))


def parse_record(line: bytes, where: str, kind: type[R], version: int, hint: str) -> R:
    """Returns the record in a JSON line.

    Args:
      line: the JSON text.
      where: file and line, for the error message.
      kind: the record class.
      version: schema version that the line was written in.
      hint: what to do about a broken line, for the error message.

    Raises:
      SteError: "data_invalid".
    """
    value = parse_object(line, where, hint)
    try:
        return kind.from_json(migrate(kind.__name__, value, version))
    except SteError as error:
        raise SteError(error.code, f"{where}: {error}; {hint}") from error


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
