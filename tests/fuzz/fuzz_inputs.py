"""Damaged inputs for readers: valid documents in which values, keys or bytes were changed at random."""

import copy
import gzip
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow
from hypothesis import strategies as st
from pyarrow import ipc, parquet

# Values of any type and size in place of the right one.
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 7, 2**31, 10**30, 0.5, -1.5, 1e300, float("nan"), float("inf")),
    *("", " ", "A", "\x1b[31m", "\ud800", "\u202e", "a" * 5000, "[[A]]", "{instruction}", "../x", "\x00"),
    *([], [[]], [1], ["a"], {}, {"a": 1}, {"role": "user"}, [{"role": "user", "content": 1}], [None]),
)
# Bytes that parsers stumble over.
TOKENS: tuple[bytes, ...] = (
    *(b"\x00", b"\xff", b"\xfe\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\n", b"\r", b"\t", b",", b'"', b"'"),
    *(b"{", b"}", b"[", b"]", b":", b"\\", b"\\u", b"\\ud800", b"null", b"NaN", b"-Infinity", b"1e999"),
    *(b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b"\xff" * 8, b"\x00" * 64, b"\x7f" * 8, b"\x1b[2J"),
    *(b"{{", b"{%"),
)


@st.composite
def changed_value(draw: st.DrawFn, value: Any, changes: int = 3) -> Any:
    """Draws a JSON value with up to `changes` of its parts changed, at any depth."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(0, changes))):
        value = _change(draw, value)
    return value


def _change(draw: st.DrawFn, value: Any) -> Any:
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 7)) == 0:
        return copy.deepcopy(draw(st.sampled_from(ODD_VALUES)))
    keys = sorted(value, key=str) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys))
    act = draw(st.integers(0, 5))
    if act == 0:
        del value[key]
    elif act == 1 and isinstance(value, dict):
        value[draw(st.sampled_from([f"{key}_", str(key).upper(), "", "other", "\x1b[1m"]))] = value.pop(key)
    else:
        value[key] = _change(draw, value[key])
    return value


@st.composite
def changed_bytes(draw: st.DrawFn, content: bytes, changes: int = 3) -> bytes:
    """Draws the content of a file with up to `changes` places damaged, or cut off."""
    for _ in range(draw(st.integers(0, changes))):
        content = _damage(draw, content)
    return content


def _damage(draw: st.DrawFn, content: bytes) -> bytes:
    # Headers are short and come first, or last.
    near = draw(st.integers(0, 400))
    place = draw(st.sampled_from([near, len(content) - near, draw(st.integers(0, max(len(content), 1)))]))
    place = min(max(place, 0), len(content))
    act, size = draw(st.integers(0, 5)), draw(st.integers(1, 40))
    if act == 0:
        return content[:place]
    if act == 1:
        return content[:place] + content[place + size :]
    if act == 2:
        return content[:place] + draw(st.sampled_from(TOKENS)) + content[place:]
    if act == 3:
        token = draw(st.sampled_from(TOKENS))
        return content[:place] + token + content[place + len(token) :]
    if act == 4:
        return content[:place] + content[place : place + size] + content[place:]
    changed = bytearray(content)
    for index in range(place, min(place + draw(st.integers(1, 4)), len(content))):
        changed[index] ^= 1 << draw(st.integers(0, 7))
    return bytes(changed)


@st.composite
def damaged(draw: st.DrawFn, document: Any, encode: Callable[[Any], bytes]) -> bytes:
    """Draws a document whose values were changed before it was encoded, or whose bytes after it."""
    if draw(st.booleans()):
        document = draw(changed_value(document))
        return encode(document)
    return draw(changed_bytes(encode(document)))


def as_json(value: Any) -> bytes:
    """Returns the JSON of any value, with NaN and halves of surrogate pairs."""
    return json.dumps(value).encode()


def as_lines(rows: Any) -> bytes:
    """Returns a line of JSON for each element of a list, or one line for another value."""
    return b"".join(as_json(row) + b"\n" for row in (rows if isinstance(rows, list) else [rows]))


def as_csv(rows: Any, delimiter: str = ",") -> bytes:
    """Returns a CSV file of rows; values that are no text are written as JSON."""
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, *([row.get(name, "") for name in names] for row in rows)]
    text = "".join(delimiter.join(map(_cell, line)) + "\r\n" for line in lines)
    return text.encode("utf-8", "surrogatepass")


def as_tsv(rows: Any) -> bytes:
    """Returns a table of rows with tabs between its columns."""
    return as_csv(rows, "\t")


def as_gzip(rows: Any) -> bytes:
    """Returns the compressed lines of `as_lines`."""
    return gzip.compress(as_lines(rows), mtime=0)


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return '"' + text.replace('"', '""') + '"'


def as_parquet(rows: Any) -> bytes:
    """Returns a Parquet file of rows, with each column as text if its values have no common type."""
    stream = io.BytesIO()
    parquet.write_table(_table(rows), stream)
    return stream.getvalue()


def as_arrow(rows: Any) -> bytes:
    """Returns an Arrow file of rows; see `as_parquet`."""
    table, stream = _table(rows), io.BytesIO()
    with ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


def _table(rows: Any) -> pyarrow.Table:
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    columns: dict[str, pyarrow.Array] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        columns[name.encode(errors="replace").decode()] = _column([row.get(name) for row in rows])
    return pyarrow.table(columns)


def _column(values: Sequence[Any]) -> pyarrow.Array:
    try:
        column = pyarrow.array(values)
        # Objects without fields are a type that Parquet cannot hold.
        parquet.write_table(pyarrow.table({"column": column}), io.BytesIO())
        return column
    except (pyarrow.ArrowException, OverflowError, ValueError):
        return pyarrow.array([json.dumps(value) for value in values])
