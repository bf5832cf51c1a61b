"""Conversations that stand in cells of text: written lists of messages, and transcripts.

An answer may be the code of such a list, so the cells of a column decide together: if at least half of them
begin like conversations, each of these is read, or refused by its row. If fewer do, they may be texts.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ste_jax.data.fields import written_list
from ste_jax.data.messages import Turn, flat_turns, known_role
from ste_jax.data.rows import Row, Table
from ste_jax.data.transcripts import is_of_unknown_template, transcript_turns
from ste_jax.errors import SteError

# What may stand before the brackets: a call, such as array( or OrderedDict(, or quotes, of bytes or of JSON
# in JSON.
_BEFORE = r"""\s*(?:[\w.]{1,40}\(\s*|b?\\*["']){0,4}"""
_DICT = re.compile(_BEFORE + r"\{")
# A list or tuple of dicts, lists, tuples or objects.
_NESTED = re.compile(_BEFORE + r"[\[(]\s*(?:[\w.]{1,40}\(|[\[({])")
_BYTES = re.compile(r"""\s*b(["']).*\1\s*""", re.DOTALL)
# From the first backslash only: a long run of them would be looked through from each.
_QUOTED_ROLE = r"""(?<!\\)\\*+["'](user|human|prompter|system|assistant|gpt|chatgpt|bot)\\*["']"""
_ROLE = re.compile(_QUOTED_ROLE, re.IGNORECASE)
_ROLE_KEY = re.compile(rf"{_QUOTED_ROLE}\s*:", re.IGNORECASE)
_ROLE_FIRST = re.compile(rf"{_NESTED.pattern}\s*{_QUOTED_ROLE}\s*[:,]", re.IGNORECASE)

# Texts without commas between them, as arrays of numpy are written.
_NUMPY = re.compile(r"""\s*\[(?:\s*(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")){2,}\s*\]\s*""", re.DOTALL)


def _keys(*names: str) -> re.Pattern[str]:
    """Returns a pattern for any of the keys, as JSON, Python or calls write them."""
    return re.compile(rf"""\b(?:{"|".join(names)})\\*["']?\s*[:=,]""")


_NAMES = ((_keys("role"), _keys("content")), (_keys("from"), _keys("value")))
_OTHER_NAMES = (
    _keys("role", "from", "speaker", "author", "sender"),
    _keys("content", "value", "text", "message", "utterance"),
)


def begins_conversation(text: str) -> bool:
    """Returns True for a text that is a conversation or begins like one, whether it can be read or not."""
    return _begins_written(text) or transcript_turns(text) is not None or is_of_unknown_template(text)


def hold_conversations(cells: Iterable[Any]) -> bool:
    """Returns True if at least half of the texts that are not blank begin like conversations."""
    found = [begins_conversation(cell) for cell in cells if isinstance(cell, str) and cell.strip()]
    return bool(found) and 2 * sum(found) >= len(found)


def read_conversation(value: Any, where: str, *, by_line: bool = True) -> list[Turn] | None:
    """Returns the turns of a list of messages, a text that is one, or a transcript; None for other values.

    Args:
      value: the cell.
      where: the position and the column.
      by_line: see `transcript_turns`.

    Raises:
      SteError: "data_invalid", if the value is or begins like a list of messages and cannot be read as one,
        or is a transcript of an unknown chat template.
    """
    if isinstance(value, list | tuple):
        return flat_turns(value, where)
    if not isinstance(value, str):
        return None
    if _begins_written(value):
        return flat_turns(written_list(value, where), where)
    if is_of_unknown_template(value):
        raise SteError(
            "data_invalid",
            f"{where}: a transcript of an unknown chat template; write messages with role and content",
        )
    return transcript_turns(value, by_line=by_line)


def readable_conversation(value: Any, where: str, *, by_line: bool = True) -> list[Turn] | None:
    """Returns what `read_conversation` does, but None for a text that cannot be read."""
    try:
        return read_conversation(value, where, by_line=by_line)
    except SteError:
        if isinstance(value, str):
            return None
        raise


def begins_texts(value: Any) -> bool:
    """Returns True for a list of texts, or a text that begins like one."""
    if isinstance(value, str):
        return bool(re.match(r"""\s*\[\s*(["']|null\b|None\b)""", value))
    return isinstance(value, list) and all(item is None or isinstance(item, str) for item in value)


def read_texts(value: Any, name: str, where: str) -> list[str | None]:
    """Returns the texts of a list, which may be written as text; missing ones are None.

    Raises:
      SteError: "data_invalid", if the column `name` holds anything else.
    """
    value = written_list(value, f"{where}, column {name}") if isinstance(value, str) else value
    if isinstance(value, list) and value and begins_texts(value):
        return value
    raise SteError("data_invalid", f"{where}: the column {name} must be a list of texts, as the prompt is")


def with_conversations(table: Table, columns: Sequence[str], whole: Sequence[str] = ()) -> Table:
    """Returns a table in which conversations that are written as text in these columns are lists of messages.

    A readable conversation counts even in a column of texts, for a prompt is the same text in either form.

    Args:
      table: the table.
      columns: the columns.
      whole: those that hold the answer, too, so that lines of "User:" and "Assistant:" are parted.

    Raises:
      SteError: "data_invalid" with the row and the column, if a cell cannot be read, or is a list of texts.
    """
    rows = table.rows
    for name in columns:
        cells = [row.fields.get(name) for row in rows]
        _refuse_texts(table, name)
        read = read_conversation if hold_conversations(cells) else readable_conversation
        found = [
            read(cell, f"{row.where}, column {name}", by_line=name in whole)
            if isinstance(cell, str)
            else None
            for row, cell in zip(rows, cells, strict=True)
        ]
        rows = [
            row._replace(fields={**row.fields, name: as_prompt(turns)}) if turns else row
            for row, turns in zip(rows, found, strict=True)
        ]
    return table._replace(rows=rows)


def refuse_conversations(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Refuses columns of responses, or of lists of them, that hold conversations.

    Raises:
      SteError: "data_invalid" with the first row and column.
    """
    for name in columns:
        cells = [
            (row.where, text)
            for row in rows
            for value in [row.fields.get(name)]
            for text in (value if isinstance(value, list | tuple) else [value])
            if isinstance(text, str) and not begins_texts(text)
        ]
        if hold_conversations(text for _, text in cells):
            where = next(where for where, text in cells if begins_conversation(text))
            raise SteError(
                "data_invalid",
                f"{where}: the column {name} holds conversations, expected the text of one response; write "
                "the prompt and the response to columns of their own",
            )


def refuse_written_lists(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Refuses columns of one response each that hold lists of several responses, written as text.

    A response may be a list itself. So the columns are refused only if every cell is a list: of as many
    texts in all rows of a column, and more than one in one of them; or in the form of numpy.

    Raises:
      SteError: "data_invalid" with the first row and column.
    """
    sizes = [{_written_size(row.fields.get(name)) for row in rows} for name in columns]
    is_table = len(rows) > 1 and all(len(column) == 1 and None not in column for column in sizes)
    if is_table and any(column != {1} for column in sizes):
        raise SteError(
            "data_invalid",
            f"{rows[0].where}: the columns {' and '.join(columns)} hold lists of responses, written as text; "
            "write one response a row, or give the files of RewardBench 2 and RM-Bench as --benchmark",
        )


def _written_size(cell: Any) -> int | None:
    """Returns the number of texts in a written list, or 0 in the form of numpy; None for another cell."""
    if not isinstance(cell, str) or not begins_texts(cell):
        return None
    if _NUMPY.fullmatch(cell):
        return 0
    try:
        return len(written_list(cell, ""))
    except SteError:
        return None


def as_prompt(turns: Sequence[Turn]) -> list[dict[str, str]]:
    """Returns turns as messages, without the name of who answers at the end of a transcript."""
    turns = turns[:-1] if len(turns) > 1 and not turns[-1][1].strip() else turns
    return [{"role": role, "content": content} for role, content in turns]


def _refuse_texts(table: Table, name: str) -> None:
    """Refuses a column of texts in which at least half are lists of texts."""
    cells = [(row.where, cell) for row in table.rows if isinstance(cell := row.fields.get(name), str)]
    lists = [where for where, cell in cells if begins_texts(cell) and _is_texts(cell)]
    if lists and 2 * len(lists) >= len(cells):
        raise SteError(
            "data_invalid",
            f"{lists[0]}: the column {name} holds lists of texts, which do not say who says them; write "
            "messages with role and content, or text",
        )


def _is_texts(text: str) -> bool:
    try:
        return begins_texts(written_list(text, ""))
    except SteError:
        return False


def _begins_written(text: str) -> bool:
    if _BYTES.fullmatch(text):
        return True
    is_nested = bool(_NESTED.match(text))
    if not is_nested and not _DICT.match(text):
        return False
    if is_nested and (_ROLE_FIRST.match(text) or any(_holds(text, names) for names in _NAMES)):
        return True
    if len({known_role(name) for name in _ROLE_KEY.findall(text)}) > 1:
        return True
    return bool(_ROLE.search(text)) and _holds(text, _OTHER_NAMES)


def _holds(text: str, keys: Iterable[re.Pattern[str]]) -> bool:
    return all(key.search(text) for key in keys)
