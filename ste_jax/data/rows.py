"""Reads tables with the position of every row: JSON lines and arrays, CSV, TSV, Parquet, Arrow and text."""

import csv
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from ste_jax.data.files import ENDINGS, LINES_ENDING, TOO_LARGE, data_files, decoded, ending, read_content
from ste_jax.errors import SteError

# A cell as it is read from `a, "b"`.
_BLANK_AND_QUOTE = re.compile(r'[ \t]+"')


class Row(NamedTuple):
    """One row of a source.

    Attributes:
      number: line number (JSON lines, text, CSV) or row number (other types), counted from 1. In a folder
        the rows of all parts are counted.
      where: source and position as named in errors, such as "pairs.jsonl, line 2".
      fields: all columns by name, in file order.
      header: position of the names of the columns; "" if each row has its own.
    """

    number: int
    where: str
    fields: Mapping[str, Any]
    header: str = ""


class Table(NamedTuple):
    """All rows of a source.

    Attributes:
      path: the source.
      columns: names of all columns that a row has, in order.
      rows: the rows, at least one.
    """

    path: str
    columns: tuple[str, ...]
    rows: list[Row]

    def where(self, columns: Collection[str] = ()) -> str:
        """Returns the position of columns for errors: the header, or the first row with one of them."""
        row = next((row for row in self.rows if not row.fields.keys().isdisjoint(columns)), self.rows[0])
        return row.header or row.where


def table_of(path: str, rows: list[Row]) -> Table:
    """Returns the table of rows.

    Raises:
      SteError: "data_invalid" if there are none.
    """
    if not rows:
        raise SteError("data_invalid", f"{path}: the file has no rows")
    return Table(path, tuple(dict.fromkeys(name for row in rows for name in row.fields)), rows)


def read_table(path: str, *, text_lines: bool = False) -> Table:
    """Returns all rows of a file, or of the parts in a folder, with all columns, in order.

    Blank lines are skipped.

    Args:
      path: a file or a folder (see `data_files`).
      text_lines: also accepts .txt files, whose lines become rows with the column `text`.

    Raises:
      SteError: "file_not_found"; "file_unreadable"; or "data_invalid" for a file without rows, of another
        type, with a column name twice or with a malformed row.
    """
    files = data_files(path, (*ENDINGS, LINES_ENDING) if text_lines else ENDINGS)
    rows: list[Row] = []
    for file in files:
        # A part is named with its folder, a file as it was given.
        name = str(file) if epath.Path(path).expanduser().is_dir() else path
        rows += [Row(row.number + len(rows) * (len(files) > 1), *row[1:]) for row in iterate_rows(file, name)]
    return table_of(path, rows)


def iterate_rows(file: epath.Path, name: str) -> Iterator[Row]:
    """Yields the rows of a single file; see `read_table`.

    Args:
      file: the file, whose ending tells its type.
      name: the file as errors name it.

    Raises:
      SteError: as `read_table`.
    """
    kind = ending(file.name)
    try:
        yield from _READERS[kind](read_content(file, name), name)
    except MemoryError as error:
        raise SteError("data_invalid", f"{name}: {TOO_LARGE}") from error


def _jsonl(content: bytes, name: str) -> Iterator[Row]:
    for number, line in _numbered(decoded(content, name)):
        where = f"{name}, line {number}"
        fields = _parsed(line, where, _array(line))
        if not isinstance(fields, dict):
            found = type(fields).__name__
            raise SteError(
                "data_invalid", f"{where}: expected one JSON object per line, not a {found}{_array(line)}"
            )
        yield Row(number, where, fields)


def _json(content: bytes, name: str) -> Iterator[Row]:
    """Yields the objects of an array, the only object, or those of JSON lines."""
    text = decoded(content, name)
    if not text.lstrip().startswith("["):
        lines = [line for _, line in _numbered(text)]
        # More than one complete object: JSON lines under the name of JSON.
        if len(lines) != 1 and _is_complete(lines[:1]):
            yield from _jsonl(content, name)
            return
    value = _parsed(text, name)
    for number, fields in enumerate(value if isinstance(value, list) else [value], 1):
        where = f"{name}, record {number}"
        if not isinstance(fields, dict):
            raise SteError("data_invalid", f"{where}: expected a JSON object, not a {type(fields).__name__}")
        yield Row(number, where, fields)


def _is_complete(lines: Sequence[str]) -> bool:
    try:
        return all(isinstance(json.loads(line), dict) for line in lines)
    except (ValueError, RecursionError):
        return False


def _parsed(text: str, where: str, remedy: str = "") -> Any:
    """Returns a JSON value; a name that occurs twice in an object is refused, for one would be lost."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) < len(pairs):
            _refuse_repeated([key for key, _ in pairs], where)
        return fields

    try:
        return json.loads(text, object_pairs_hook=unique)
    except SteError:
        raise
    except (ValueError, RecursionError) as error:
        reason = str(error) or type(error).__name__
        raise SteError("data_invalid", f"{where}: invalid JSON ({reason}){remedy}") from error


def _array(line: str) -> str:
    return "; rename a file that holds an array to .json" if line.lstrip().startswith("[") else ""


def _text(content: bytes, name: str) -> Iterator[Row]:
    for number, line in _numbered(decoded(content, name)):
        yield Row(number, f"{name}, line {number}", {"text": line})


def _csv(content: bytes, name: str, delimiter: str = ",") -> Iterator[Row]:
    # Cells may be longer than the default limit of 131,072 characters.
    csv.field_size_limit(sys.maxsize)
    lines = io.StringIO(decoded(content, name), newline="")
    reader = csv.reader(lines, strict=True, delimiter=delimiter)
    try:
        columns = next((cells for cells in reader if any(map(str.strip, cells))), [])
        header = f"{name}, line {reader.line_num}"
        _refuse_repeated(columns, header)
        number = reader.line_num + 1
        for cells in reader:
            if cells:
                where = f"{name}, line {number}"
                _check_cells(cells, columns, delimiter, where)
                yield Row(number, where, dict(zip(columns, cells, strict=True)), header)
            number = reader.line_num + 1
    except csv.Error as error:
        raise SteError("data_invalid", f"{name}, line {reader.line_num}: invalid CSV ({error})") from error


def _check_cells(cells: Sequence[str], columns: Sequence[str], delimiter: str, where: str) -> None:
    """Refuses a row with another number of cells than columns, or with a blank before a quoted cell."""
    quoted = next((cell for cell in cells if _BLANK_AND_QUOTE.match(cell)), None)
    if len(cells) != len(columns):
        separator = "tabs" if delimiter == "\t" else "commas"
        remedy = f"put cells that contain {separator} in quotes{_separated(columns, delimiter)}"
        if quoted:
            remedy = f"remove the blanks before the quotes of {quoted.strip()[:20]}"
        elif len(columns) == 1 and not _separated(columns, delimiter):
            remedy = f"the first line, {columns[0][:40]!r}, must hold the names of the columns"
        raise SteError(
            "data_invalid", f"{where}: {len(cells)} cells in a table of {len(columns)} columns; {remedy}"
        )
    if quoted and quoted.rstrip().endswith('"') and quoted.count('"') == 2:
        raise SteError(
            "data_invalid",
            f"{where}: the quotes of {quoted.strip()[:20]} would be part of the text; remove the blanks "
            "before them",
        )


def _tsv(content: bytes, name: str) -> Iterator[Row]:
    return _csv(content, name, "\t")


def _separated(columns: Sequence[str], delimiter: str) -> str:
    """Returns a remark about a header that is one cell with another separator."""
    found = [mark for mark in (";", "\t", "|", ",") if mark != delimiter and mark in "".join(columns)]
    if len(columns) > 1 or not found:
        return ""
    return f", or separate the columns by {delimiter!r}, not by {found[0]!r}"


def _parquet(content: bytes, name: str) -> Iterator[Row]:
    from pyarrow import BufferReader, parquet

    def read() -> tuple[list[str], Iterator[Any]]:
        file = parquet.ParquetFile(BufferReader(content))
        return file.schema_arrow.names, file.iter_batches()

    return _batches(read, name, "Parquet")


def _arrow(content: bytes, name: str) -> Iterator[Row]:
    from pyarrow import BufferReader, ipc

    def read() -> tuple[list[str], Iterator[Any]]:
        source = BufferReader(content)
        if content.startswith(b"ARROW1"):
            file = ipc.open_file(source)
            return file.schema.names, (file.get_batch(i) for i in range(file.num_record_batches))
        stream = ipc.open_stream(source)
        return stream.schema.names, iter(stream)

    return _batches(read, name, "Arrow")


def _batches(read: Callable[[], tuple[list[str], Iterator[Any]]], name: str, kind: str) -> Iterator[Row]:
    """Yields the rows of the batches of a file of pyarrow."""
    from pyarrow import ArrowException

    number = 0
    try:
        columns, batches = read()
        _refuse_repeated(columns, f"{name}, row 1")
        for batch in batches:
            batch.validate(full=True)  # offsets of a damaged file may point anywhere in memory
            for fields in batch.to_pylist():
                number += 1
                yield Row(number, f"{name}, row {number}", fields)
    except SteError:
        raise
    # Dates out of Python's range, among others, raise Python's own errors.
    except (ArrowException, ValueError, OverflowError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SteError("data_invalid", f"{name}: not a readable {kind} file ({reason})") from error


def _refuse_repeated(columns: Sequence[str], where: str) -> None:
    if repeated := [name for name, count in Counter(columns).items() if count > 1]:
        raise SteError(
            "data_invalid",
            f"{where}: the column {min(repeated)!r} occurs twice; rename or remove one of them",
        )


_READERS: dict[str, Callable[[bytes, str], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".json-lines": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
    ".arrow": _arrow,
    LINES_ENDING: _text,
}


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    """Yields the line number, counted from 1, and the text of every line that is not blank."""
    # Not splitlines(): texts may hold other line separators, which JSON leaves as they are.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line
