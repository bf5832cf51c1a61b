"""Reads instructions from files and from TensorFlow Datasets (TFDS).

Texts are kept as they are, without Unicode normalization; outer white space is removed. Columns other than
those named here, labels of earlier runs included, are ignored.
"""

import re
from collections.abc import Iterator
from typing import Any

from etils import epath

import ste_jax
from ste_jax.data.fields import conversation_text, optional_name, unique_id
from ste_jax.data.rows import Row, iterate_rows
from ste_jax.errors import SteError
from ste_jax.records import Instruction

STARTER = "starter"
TEXT_FIELDS = ("instruction", "prompt", "text", "question")
_TFDS = "tfds:"


def read_instructions(spec: str) -> list[Instruction]:
    """Returns the instructions of a source, in its order.

    Args:
      spec: `starter` (the packaged file), a file .jsonl, .json-lines, .csv, .parquet or .txt (one instruction
        per line), or `tfds:NAME[:SPLIT]`. The text is the first of the columns `TEXT_FIELDS` that has a
        value; it may be a list of chat messages (see `flatten_messages`). The columns `id` and `source` are
        kept. A record without an id is named `instruction-STEM-NUMBER` after the file and the line.

    Raises:
      SteError: "file_not_found", "file_unreadable", "extra_missing" (TFDS), or "data_invalid" if there
        is no record, or one is malformed, has no text or repeats an id.
    """
    stem, rows = _open(spec)
    instructions, seen = [], {}
    for row in rows:
        identifier = unique_id(row.fields, f"instruction-{stem}-{row.number}", row.where, seen)
        source = optional_name(row.fields, "source", row.where) or stem
        instructions.append(Instruction(id=identifier, text=_text(row).strip(), source=source))
    if not instructions:
        raise SteError("data_invalid", f"{spec}: contains no instructions")
    return instructions


def _open(spec: str) -> tuple[str, Iterator[Row]]:
    """Returns the name of a source and its rows."""
    if spec.startswith(_TFDS):
        return _tfds(spec)
    if spec == STARTER:
        packaged = epath.resource_path(ste_jax) / "data" / "starter_instructions.jsonl"
        return STARTER, iterate_rows(str(packaged))
    return epath.Path(spec).stem, iterate_rows(spec, text_lines=True)


def _tfds(spec: str) -> tuple[str, Iterator[Row]]:
    """Opens `tfds:NAME[:SPLIT]`; NAME may end in a config and a version (`name/config:1.0.0`)."""
    name, _, split = spec.removeprefix(_TFDS).rpartition(":")
    if not name or re.fullmatch(r"[\d.*]+", split):
        name, split = spec.removeprefix(_TFDS), "train"
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise SteError(
            "extra_missing", f"{spec}: needs tensorflow_datasets; run pip install 'ste-jax[tfds]'"
        ) from error
    try:
        records = tfds.data_source(name, split=split)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SteError("data_invalid", f"{spec}: {reason}; check the name and the split") from error
    return re.sub(r"\W+", "-", name), _tfds_rows(spec, records)


def _tfds_rows(spec: str, records: Any) -> Iterator[Row]:
    for number, record in enumerate(records, 1):
        where = f"{spec}, record {number}"
        try:
            fields = {
                key: value.decode() if isinstance(value, bytes) else value for key, value in record.items()
            }
        except UnicodeDecodeError as error:
            raise SteError("data_invalid", f"{where}: contains bytes that are not UTF-8 text") from error
        yield Row(number, where, fields)


def _text(row: Row) -> str:
    for field in TEXT_FIELDS:
        if row.fields.get(field) is not None:
            return conversation_text(row.fields, field, row.where)
    raise SteError(
        "data_invalid", f"{row.where}: no text; expected one of the columns {', '.join(TEXT_FIELDS)}"
    )
