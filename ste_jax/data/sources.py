"""Reads instructions and labelled pairs from files and from TFDS, and refuses what cannot be used.

Texts are kept as they are (no Unicode normalisation). Instructions lose their outer white space; responses
keep theirs, because the indentation of a first line of code means something. Columns that are not named here,
labels of earlier runs included, are ignored.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from etils import epath
from pyarrow import ArrowException, parquet

import ste_jax
from ste_jax.records import Comparison, Instruction

STARTER = "starter"
TEXT_FIELDS = ("instruction", "prompt", "text", "question")
_TFDS = "tfds:"


class _Row(NamedTuple):
    """A record as read, its number in the source (from 1), and the words that say where it stands."""

    number: int
    where: str
    fields: dict[str, Any]


def read_instructions(spec: str) -> list[Instruction]:
    """Reads the instructions that `spec` names, in their order.

    Args:
      spec: `starter` (the packaged file), a file .jsonl, .json-lines, .csv, .parquet or .txt (one instruction
        a line), or `tfds:NAME[:SPLIT]`. The text is the first of `TEXT_FIELDS` that a record has; `id` and
        `source` are kept, else they are made of the file's stem and the line number.

    Raises:
      ValueError: nothing can be read, or a record is broken, has no text or repeats an id.
    """
    stem, rows = _open(spec)
    instructions, seen = [], {}
    for row in rows:
        source = _name(row, "source")
        identifier = _identifier(row, stem, seen)
        text = _text(row).strip()
        instructions.append(Instruction(id=identifier, text=text, source=stem if source is None else source))
    if not instructions:
        raise ValueError(f"{spec}: holds no instructions; give a source with at least one")
    return instructions


def read_items(path: str) -> list[Comparison]:
    """Reads labelled comparisons from a .jsonl, .csv or .parquet file.

    A record has `instruction`, `response_a`, `response_b` and `label` (`A`, `B` or `tie`); `id`, `subset`,
    `category` and `prompt_id` are kept when present. Without the last, comparisons of one instruction
    share the id of the first.

    Raises:
      ValueError: nothing can be read, or a record is broken or incomplete or repeats an id.
    """
    stem, rows = _open(path)
    items, seen, first = [], {}, {}
    for row in rows:
        identifier = _identifier(row, stem, seen)
        label = _string(row, "label")
        if label not in ("A", "B", "tie"):
            raise ValueError(f"{row.where}: the label is {label!r}; write A, B or tie")
        instruction = _filled(row, "instruction").strip()
        group = _name(row, "prompt_id") or first.setdefault(instruction, identifier)
        items.append(
            Comparison(
                id=identifier,
                prompt_id=group,
                instruction=instruction,
                response_a=_string(row, "response_a"),
                response_b=_string(row, "response_b"),
                label=label,
                subset=_name(row, "subset") or "",
                category=_name(row, "category"),
            )
        )
    return items


def read_pairs(path: str) -> tuple[list[Comparison], int]:
    """Reads labelled pairs as `read_items`; returns them and the count of ties left out.

    Raises:
      ValueError: as `read_items`, or all are ties.
    """
    items = read_items(path)
    pairs = [item for item in items if item.label != "tie"]
    ties = len(items) - len(pairs)
    if not pairs:
        raise ValueError(
            f"{path}: holds no pair labelled A or B ({ties} ties); give a file with at least one"
        )
    return pairs, ties


def _open(spec: str) -> tuple[str, Iterator[_Row]]:
    """Returns the stem that names records without a name, and the rows."""
    if spec.startswith(_TFDS):
        return _tfds(spec)
    packaged = epath.resource_path(ste_jax) / "data" / "starter_instructions.jsonl"
    path = packaged if spec == STARTER else epath.Path(spec).expanduser()
    readers = {
        ".jsonl": _jsonl,
        ".json-lines": _jsonl,
        ".txt": _lines,
        ".csv": _csv,
        ".parquet": _parquet,
    }
    if path.suffix not in readers:
        raise ValueError(
            f"{spec}: unknown kind of source; give `{STARTER}`, `tfds:NAME` or a file that ends in "
            f"{', '.join(readers)}"
        )
    if not path.is_file():
        raise ValueError(f"{spec}: there is no such file; check the path")
    return STARTER if spec == STARTER else path.stem, readers[path.suffix](path)


def _jsonl(path: epath.Path) -> Iterator[_Row]:
    for number, line in _numbered(path):
        where = f"{path}, line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: broken JSON ({error}); write one JSON object a line") from error
        if not isinstance(fields, dict):
            raise ValueError(f"{where}: holds a {type(fields).__name__}; write one JSON object a line")
        yield _Row(number, where, fields)


def _lines(path: epath.Path) -> Iterator[_Row]:
    for number, line in _numbered(path):
        yield _Row(number, f"{path}, line {number}", {"text": line})


def _csv(path: epath.Path) -> Iterator[_Row]:
    # A response may be longer than the 131,072 characters that are allowed by default.
    csv.field_size_limit(sys.maxsize)
    reader = csv.DictReader(io.StringIO(_decoded(path), newline=""), strict=True)
    try:
        columns = reader.fieldnames or []
        if not set(columns) & set(TEXT_FIELDS):
            raise ValueError(
                f"{path}, line 1: no column is named {', '.join(TEXT_FIELDS)}, "
                f"only {', '.join(columns) or 'none'}; name the column of the instructions `instruction`"
            )
        for fields in reader:
            where = f"{path}, line {reader.line_num}"
            if None in fields:
                raise ValueError(
                    f"{where}: more cells than columns ({len(columns)}); put cells that hold commas in quotes"
                )
            yield _Row(reader.line_num, where, fields)
    except csv.Error as error:
        raise ValueError(
            f"{path}, line {reader.reader.line_num}: broken CSV ({error}); mend the quoting"
        ) from error


def _parquet(path: epath.Path) -> Iterator[_Row]:
    try:
        with path.open("rb") as file:
            for number, fields in enumerate(parquet.read_table(file).to_pylist(), 1):
                yield _Row(number, f"{path}, row {number}", fields)
    except ArrowException as error:
        raise ValueError(f"{path}: not a readable Parquet file ({error}); write it again") from error


def _tfds(spec: str) -> tuple[str, Iterator[_Row]]:
    """Opens `tfds:NAME[:SPLIT]`; NAME may end in a config and a version (`name/config:1.0.0`)."""
    name, _, split = spec.removeprefix(_TFDS).rpartition(":")
    if not name or re.fullmatch(r"[\d.*]+", split):
        name, split = spec.removeprefix(_TFDS), "train"
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(f"{spec}: needs tensorflow_datasets; run pip install 'ste-jax[tfds]'") from error
    try:
        records = tfds.data_source(name, split=split)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise ValueError(f"{spec}: {str(error).splitlines()[0]}; check the name and the split") from error
    return re.sub(r"\W+", "-", name), _tfds_rows(spec, records)


def _tfds_rows(spec: str, records: Any) -> Iterator[_Row]:
    for number, record in enumerate(records, 1):
        where = f"{spec}, record {number}"
        try:
            fields = {
                key: value.decode() if isinstance(value, bytes) else value for key, value in record.items()
            }
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{where}: holds bytes that are not UTF-8 text; choose another data set"
            ) from error
        yield _Row(number, where, fields)


def _decoded(path: epath.Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from error


def _numbered(path: epath.Path) -> Iterator[tuple[int, str]]:
    """Yields (number from 1, line) of the lines that are not blank."""
    for number, line in enumerate(_decoded(path).split("\n"), 1):
        if line.strip():
            yield number, line


def _identifier(row: _Row, stem: str, seen: dict[str, str]) -> str:
    """Returns the id of `row` and enters it into `seen` (id -> where)."""
    given = row.fields.get("id")
    if given is not None and not isinstance(given, str | int):
        raise ValueError(f"{row.where}: the id is a {type(given).__name__}; write a string or leave it out")
    identifier = whole_text(row.where, "id", str(given)).strip() if given is not None else ""
    identifier = identifier or f"{stem}-{row.number}"
    if identifier in seen:
        raise ValueError(
            f"{row.where}: the id {identifier!r} is that of {seen[identifier]} too; make it unique"
        )
    seen[identifier] = row.where
    return identifier


def _text(row: _Row) -> str:
    for field in TEXT_FIELDS:
        if row.fields.get(field) is not None:
            return _filled(row, field)
    raise ValueError(
        f"{row.where}: no text; add one of the fields {', '.join(TEXT_FIELDS)}, or remove the record"
    )


def _filled(row: _Row, field: str) -> str:
    value = _string(row, field)
    if not value.strip():
        raise ValueError(f"{row.where}: the field {field} is blank; fill it or remove the record")
    return value


def _string(row: _Row, field: str) -> str:
    value = row.fields.get(field)
    if value is None:
        raise ValueError(f"{row.where}: the field {field} is missing; add it or remove the record")
    if not isinstance(value, str):
        raise ValueError(f"{row.where}: the field {field} is a {type(value).__name__}; write a string")
    return whole_text(row.where, field, value)


def _name(row: _Row, field: str) -> str | None:
    """Returns what a record says of itself in a text or a number, if it does."""
    value = row.fields.get(field)
    if isinstance(value, int | float) and value == value:  # NaN is how tables leave a number out
        value = str(value)
    return whole_text(row.where, field, value) if isinstance(value, str) else None


def whole_text(where: str, field: str, value: str) -> str:
    """Returns the text of a field, which no file could hold with half of a surrogate pair.

    Raises:
      ValueError: there is such a half in it.
    """
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{where}: the field {field} holds half of a surrogate pair; remove it") from error
    return value
