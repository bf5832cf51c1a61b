"""Reads the texts by which the prompts of a file are found in other texts.

A prompt is found as it is shown, and without what this file puts around it: without its system message, its
earlier turns and its context, each turn of the user by itself. Only the columns of prompts are read, so that
the files of benchmarks, whose responses have many forms, need no conversion.
"""

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from ste_jax.data.cells import begins_texts, read_texts, readable_conversation
from ste_jax.data.fields import Fields, valid_unicode
from ste_jax.data.header import check_header
from ste_jax.data.instruction_text import CONTEXT_COLUMNS, instruction_turns
from ste_jax.data.messages import Turn, divided, flat_turns, joined_turns
from ste_jax.data.pair_shapes import find_shape, known_columns
from ste_jax.data.prompt_columns import PROMPT_COLUMNS, filled_columns
from ste_jax.data.rows import Row, Table
from ste_jax.data.sources import ANSWERED_FIELDS, MESSAGE_FIELDS, TEXT_FIELDS, open_source
from ste_jax.errors import SteError

# Columns of whole prompts; `turns` is that of the questions of MT-Bench and Arena-Hard.
_WHOLE = (*TEXT_FIELDS, *MESSAGE_FIELDS, "turns")


def read_prompts(path: str) -> list[str]:
    """Returns the texts by which the prompts of a file of pairs, of instructions or of a benchmark are found.

    The text of a prompt without its context (`input`) is left out if the file has it with several contexts:
    "Summarize the text." is then what many prompts begin with.

    Args:
      path: see `read_source`.

    Raises:
      SteError: as `read_source`.
    """
    _, table = open_source(path)
    known = known_columns() | {*_WHOLE, "source"}
    needed = [("prompt", (*_WHOLE, *PROMPT_COLUMNS, "conversation_a", "chosen"))]
    check_header(table, known, needed, f"one of the columns {', '.join(_WHOLE)}")
    return list(dict.fromkeys(text for text in _texts(table) if text.strip()))


def _texts(table: Table) -> Iterator[str]:
    contexts: dict[str, set[str]] = defaultdict(set)
    for row in table.rows:
        prompts = {name: turns for name in _columns(row.fields) if (turns := _turns(row, name))}
        for column, turns in prompts.items():
            whole = _joined(row, column, turns)
            yield from _found_by(row, column, whole)
            bare = {valid_unicode(text, column, row.where) for role, text in turns if role == "user"}
            if filled_columns(row.fields, [name for name in CONTEXT_COLUMNS if name != column]):
                for text in bare:
                    contexts[text].add(joined_turns(whole))
            else:
                yield from sorted(bare)
        if sides := _conversations(row, table):
            yield from _found_in(row, sides)
        elif not prompts:
            raise SteError(
                "data_invalid",
                f"{row.where}: no prompt; expected text or messages in one of the columns "
                f"{', '.join(_WHOLE)}",
            )
    yield from (text for text, joined in contexts.items() if len(joined) == 1)


def _columns(fields: Fields) -> list[str]:
    """Returns the columns of a row that hold whole prompts."""
    return filled_columns(fields, _WHOLE) or filled_columns(fields, PROMPT_COLUMNS)[:1]


def _found_by(row: Row, column: str, turns: list[Turn]) -> Iterator[str]:
    """Yields a conversation as one text, and each turn of the user."""
    for text in (joined_turns(turns), *(text for role, text in turns if role == "user")):
        yield valid_unicode(text, column, row.where)


def _joined(row: Row, column: str, turns: list[Turn]) -> list[Turn]:
    """Returns the turns of a prompt with those of the columns that belong to it."""
    messages = [{"role": role, "content": text} for role, text in turns]
    return instruction_turns({**row.fields, column: messages}, column, row.where, answered=True)


def _turns(row: Row, column: str) -> list[Turn]:
    """Returns the turns of a cell: of text, messages, or a list of texts or of messages without roles."""
    value, where = row.fields[column], f"{row.where}, column {column}"
    if isinstance(value, str):
        return _written(value, where, column)
    if not isinstance(value, list | tuple):
        return []
    texts = [item["content"] if isinstance(item, dict) and {*item} == {"content"} else item for item in value]
    if begins_texts(texts):
        return [("user", text) for text in texts if isinstance(text, str) and text]
    return flat_turns(value, where)


def _written(value: str, where: str, column: str) -> list[Turn]:
    if begins_texts(value):
        try:
            return [("user", text) for text in read_texts(value, column, where) if text]
        except SteError:
            return [("user", value)]
    return readable_conversation(value, where, by_line=column in ANSWERED_FIELDS) or [("user", value)]


def _conversations(row: Row, table: Table) -> list[list[Turn]]:
    """Returns both responses of a row as turns, if they are whole conversations with the prompt."""
    shape = find_shape(table.columns)
    sides: list[Any] = [row.fields.get(name) for name in shape.responses] if shape else []
    if any(isinstance(side, list) and begins_texts(side) for side in sides):
        return []
    found = [readable_conversation(side, row.where) for side in sides]
    whole = [turns for turns in found if turns and turns[0][0] != "assistant"]
    return whole if sides and len(whole) == len(sides) else []


def _found_in(row: Row, sides: list[list[Turn]]) -> Iterator[str]:
    """Yields what two conversations begin with, and all turns of the user, as later ones are prompts too."""
    with contextlib.suppress(SteError):  # they begin with different turns
        yield from _found_by(row, "conversation", divided(sides[0], sides[1], row.where)[0])
    for turns in sides:
        yield from (valid_unicode(text, "conversation", row.where) for role, text in turns if role == "user")
