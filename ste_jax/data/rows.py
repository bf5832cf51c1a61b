"""Reads rows with their positions from JSON lines, CSV and Parquet files."""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from etils import epath

from ste_jax.errors import SteError


class Row(NamedTuple):
    """One row of a source.

    Attributes:
      number: line number (JSON lines, text, CSV) or row number (Parquet), counted from 1.
      where: source and position as named in errors, such as "pairs.jsonl, line 2".
      fields: all columns by name, in file order.
    """

    number: int
    where: str
    fields: Mapping[str, Any]


def read_rows(path: str) -> list[Row]:
    """Returns all rows of a .jsonl, .json-lines, .csv or .parquet file with all columns, in file order.

    Blank lines are skipped.

    Raises:
      SteError: "file_not_found"; "file_unreadable"; or "data_invalid" for a file without rows, of another
        type or with a malformed row.
    """
    rows = list(iterate_rows(path))
    if not rows:
        raise SteError("data_invalid", f"{path}: the file has no rows")
    return rows


def iterate_rows(path: str, *, text_lines: bool = False) -> Iterator[Row]:
    """Yields the rows of a file as `read_rows` does.

    Args:
      path: the file.
      text_lines: also accepts .txt files, whose lines become rows with the column `text`.
    """
    file = epath.Path(path).expanduser()
    readers = _READERS | ({".txt": _lines} if text_lines else {})
    if file.suffix not in readers:
        endings = ", ".join(readers)
        raise SteError("data_invalid", f"{path}: unknown file type; expected a file ending in {endings}")
    if not file.is_file():
        raise SteError("file_not_found", f"{path}: no such file")
    try:
        yield from readers[file.suffix](file)
    except OSError as error:
        raise SteError("file_unreadable", f"{path}: cannot be read ({error.strerror or error})") from error


def _jsonl(path: epath.Path) -> Iterator[Row]:
    for number, line in _numbered(path):
        where = f"{path}, line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SteError("data_invalid", f"{where}: invalid JSON ({error})") from error
        if not isinstance(fields, dict):
            raise SteError(
                "data_invalid", f"{where}: expected one JSON object per line, not a {type(fields).__name__}"
            )
        yield Row(number, where, fields)


def _lines(path: epath.Path) -> Iterator[Row]:
    for number, line in _numbered(path):
        yield Row(number, f"{path}, line {number}", {"text": line})


def _csv(path: epath.Path) -> Iterator[Row]:
    # Cells may be longer than the default limit of 131,072 characters.
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(_decoded(path), newline=""), strict=True)
    try:
        columns = next(reader, [])
        if repeated := {name for name in columns if columns.count(name) > 1}:
            raise SteError("data_invalid", f"{path}, line 1: the column {min(repeated)!r} occurs twice")
        number = reader.line_num + 1
        for cells in reader:
            if cells:
                where = f"{path}, line {number}"
                if len(cells) != len(columns):
                    raise SteError(
                        "data_invalid",
                        f"{where}: {len(cells)} cells in a table of {len(columns)} columns; put cells that "
                        "contain commas in quotes",
                    )
                yield Row(number, where, dict(zip(columns, cells, strict=True)))
            number = reader.line_num + 1
    except csv.Error as error:
        raise SteError("data_invalid", f"{path}, line {reader.line_num}: invalid CSV ({error})") from error


def _parquet(path: epath.Path) -> Iterator[Row]:
    from pyarrow import ArrowException, parquet

    try:
        with path.open("rb") as file:
            number = 0
            for batch in parquet.ParquetFile(file).iter_batches():
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(number, f"{path}, row {number}", fields)
    except (ArrowException, UnicodeDecodeError) as error:
        raise SteError("data_invalid", f"{path}: not a readable Parquet file ({error})") from error


_READERS: dict[str, Callable[[epath.Path], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".json-lines": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _decoded(path: epath.Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SteError("data_invalid", f"{path}, line {line}: not UTF-8 text") from error


def _numbered(path: epath.Path) -> Iterator[tuple[int, str]]:
    """Yields the line number, counted from 1, and the text of every line that is not blank."""
    for number, line in enumerate(_decoded(path).split("\n"), 1):
        if line.strip():
            yield number, line
