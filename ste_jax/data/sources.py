"""Reads instructions from files and from TensorFlow Datasets (TFDS).

Texts are kept as they are, without Unicode normalization; outer white space is removed. Columns other than
those named here, labels of earlier runs included, are left out, and logged once.
"""

import dataclasses
import logging
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from etils import epath

import ste_jax
from ste_jax.data.cells import with_conversations
from ste_jax.data.fields import Fields, optional_name, optional_text, unique_id
from ste_jax.data.files import stem
from ste_jax.data.header import check_header, shown
from ste_jax.data.instruction_text import JOINED_COLUMNS, instruction_text
from ste_jax.data.messages import flatten_messages
from ste_jax.data.named_columns import NamedColumns
from ste_jax.data.prompt_columns import filled_columns, refuse_two_prompts
from ste_jax.data.rows import Row, Table, read_table, table_of
from ste_jax.errors import SteError
from ste_jax.records import Instruction

STARTER = "starter"
TEXT_FIELDS = ("instruction", "prompt", "text", "question")
# Conversations. In these columns and in `text` they are whole: the answer at the end is no part of the
# instruction.
MESSAGE_FIELDS = ("messages", "conversations", "conversation")
ANSWERED_FIELDS = ("text", *MESSAGE_FIELDS)
_KNOWN = frozenset(("id", "source", *TEXT_FIELDS, *MESSAGE_FIELDS, *JOINED_COLUMNS))
_TFDS = "tfds:"
_NAME_ANOTHER = "or name another one: --column, in a run --config.instructions_column"
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InstructionColumns(NamedColumns):
    """Columns of a source of instructions that the user names.

    Attributes:
      better_from: column of a better response to each instruction; "": none is read.
      with_reference: True to read the reference: the judge prompt contains {reference}.
    """

    better_from: str = ""
    with_reference: bool = False

    @property
    def fields(self) -> tuple[str, ...]:
        """Columns any of which hold the text."""
        return (self.prompt,) if self.prompt else (*TEXT_FIELDS, *MESSAGE_FIELDS)

    @property
    def others(self) -> tuple[str, ...]:
        """Columns that are read, but not as parts of the instruction."""
        reference = (self.reference or "reference",) if self.with_reference else ()
        return (*self.shown, *reference, *filter(None, [self.better_from]))

    @property
    def needed(self) -> dict[str, str]:
        """Columns that a table must have, and what names them."""
        needed = super().needed
        if self.with_reference:
            needed[self.reference or "reference"] = "the judge prompt shows {reference}"
        if self.better_from:
            needed[self.better_from] = "pairs.better_from names it"
        return needed

    def without_others(self, row: Fields) -> Fields:
        """Returns a row without the columns that are no parts of the instruction."""
        return {name: value for name, value in row.items() if name not in self.others}

    def better_response(self, row: Row) -> str | None:
        """Returns the better response of a row; "" where the cell is empty, None if no column is named."""
        if not self.better_from:
            return None
        value = row.fields.get(self.better_from)
        if isinstance(value, list | tuple) and value:
            return flatten_messages(value, f"{row.where}, column {self.better_from}").strip()
        return (optional_text(row.fields, self.better_from, row.where) or "").strip()

    def correct_answer(self, row: Row) -> str | None:
        """Returns the reference of a row; "" where the cell is empty, None if the judge prompt shows none."""
        if not self.with_reference:
            return None
        return (optional_text(row.fields, self.reference or "reference", row.where) or "").strip()


_BY_NAME = InstructionColumns()


class Source(NamedTuple):
    """The instructions of a source, in its order, and the columns that are not read."""

    instructions: list[Instruction]
    columns_left_out: list[str]


def is_path(spec: str) -> bool:
    """Returns True if a source (see `read_source`) is a file or a folder."""
    return spec != STARTER and not spec.startswith(_TFDS)


def read_instructions(spec: str, columns: InstructionColumns = _BY_NAME) -> list[Instruction]:
    """Returns the instructions of a source, in its order; see `read_source`."""
    return read_source(spec, columns).instructions


def read_source(spec: str, columns: InstructionColumns = _BY_NAME) -> Source:
    """Reads the instructions of a source.

    Args:
      spec: `starter` (the packaged file), a file or folder (see `read_table`), a .txt file (one instruction
        per line), or `tfds:NAME[:SPLIT]`. The text is the first of the columns `TEXT_FIELDS` and
        `MESSAGE_FIELDS` that has a value; it may be a list of chat messages (see `flatten_messages`). The
        columns `JOINED_COLUMNS` are joined with it (see `instruction_text`), `id` and `source` are kept. A
        record without an id is named `instruction-STEM-NUMBER` after the file and the line.
      columns: columns that the user names.

    Raises:
      SteError: "file_not_found", "file_unreadable", "extra_missing" (TFDS), or "data_invalid" if there
        is no record, or one is malformed, has no text or repeats an id.
    """
    name, table = open_source(spec)
    source = Source(instructions_of(table, name, columns), columns_left_out(table, columns))
    if source.columns_left_out:
        _log.info("%s: columns that are not read: %s", spec, shown(source.columns_left_out))
    return source


def instructions_of(table: Table, name: str, columns: InstructionColumns = _BY_NAME) -> list[Instruction]:
    """Returns the instructions of a table; see `read_instructions`.

    Args:
      table: the rows.
      name: source of the instructions whose row names none, which default ids contain.
      columns: columns that the user names.
    """
    table, fields = columns.checked(table), columns.fields
    # With a column that is named, others that could hold the text have no meaning.
    known = {"id", "source", *fields, *columns.others, *JOINED_COLUMNS} if columns.prompt else _KNOWN
    check_header(
        table, known, [("text", fields)], f"one of the columns {', '.join(fields)} ({_NAME_ANOTHER})"
    )
    found = [column for column in fields if column in table.columns]
    table = with_conversations(table, found, (*ANSWERED_FIELDS, columns.prompt))
    instructions, seen = [], {}
    for row in table.rows:
        identifier = unique_id(row.fields, f"instruction-{name}-{row.number}", row.where, seen)
        instructions.append(
            Instruction(
                id=identifier,
                text=_text(row, columns),
                source=optional_name(row.fields, "source", row.where) or name,
                response=columns.better_response(row),
                reference=columns.correct_answer(row),
                texts=columns.texts(row.fields, row.where),
            )
        )
    return instructions


def columns_left_out(table: Table, columns: InstructionColumns = _BY_NAME) -> list[str]:
    """Returns the columns that no instruction is made from: unknown ones, and further columns of text."""
    used = {_field(row, columns.fields) for row in table.rows} | {*columns.others}
    return [name for name in table.columns if name not in used | {"id", "source", *JOINED_COLUMNS}]


def open_source(spec: str) -> tuple[str, Table]:
    """Returns the name of a source (see `read_source`) and its rows."""
    if spec.startswith(_TFDS):
        name, rows = _tfds(spec)
        return name, table_of(spec, list(rows))
    if spec == STARTER:
        packaged = epath.resource_path(ste_jax) / "data" / "starter_instructions.jsonl"
        return STARTER, read_table(str(packaged))
    return stem(spec), read_table(spec, text_lines=True)


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


def _text(row: Row, columns: InstructionColumns) -> str:
    if not columns.prompt:
        refuse_two_prompts(row.fields, row.where)
    field = _field(row, columns.fields)
    if field is None:
        raise SteError(
            "data_invalid", f"{row.where}: no text; expected one of the columns {', '.join(columns.fields)}"
        )
    own, answered = columns.without_others(row.fields), field not in TEXT_FIELDS or field in ANSWERED_FIELDS
    return instruction_text(own, field, row.where, answered=answered)


def _field(row: Row, fields: Sequence[str]) -> str | None:
    """Returns the first field with a value; one that is blank only if there is no other."""
    present = [field for field in fields if row.fields.get(field) is not None]
    return next(iter([*filled_columns(row.fields, fields), *present]), None)
