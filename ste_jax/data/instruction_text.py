"""The text of an instruction: its column, joined with the columns that belong to it.

Alpaca keeps the text that an instruction is about in `input`, Dolly in `context`; OpenOrca and others keep a
system message in a column of its own. An instruction without them is another instruction, so every reader
joins them.
"""

from collections.abc import Mapping
from typing import Any

from ste_jax.data.fields import optional_text, required_text, valid_unicode
from ste_jax.data.messages import Turn, flat_turns, joined_turns
from ste_jax.errors import SteError

SYSTEM_COLUMNS = ("system", "system_prompt", "system_message")
CONTEXT_COLUMNS = ("input", "context")
JOINED_COLUMNS = (*SYSTEM_COLUMNS, *CONTEXT_COLUMNS)


def instruction_text(fields: Mapping[str, Any], column: str, where: str, *, answered: bool = False) -> str:
    """Returns an instruction as one text, without outer white space.

    The text of `input` and `context` follows that of the column after a blank line; in a conversation it
    belongs to the last turn of the user. A system message comes first, as a turn of its own.

    Args:
      fields: the row.
      column: name of the column that holds text or a list of chat messages.
      where: position of the row.
      answered: the last turns of a conversation are its answer, which is left out if the assistant gives it.

    Raises:
      SteError: "data_invalid", if the column is missing, blank or holds anything else, or one of the joined
        columns is not text.
    """
    turns, named = _turns(fields, column, where), f"{where}, column {column}"
    while answered and turns and turns[-1][0] == "assistant":
        turns = turns[:-1]
    if not turns:
        raise SteError("data_invalid", f"{named}: no message of a user")
    if not "".join(content for _, content in turns).strip():
        raise SteError("data_invalid", f"{where}: the column {column} is empty")
    for name in CONTEXT_COLUMNS:
        if name != column and (text := _joined(fields, name, where)):
            turns = _with_context(turns, text)
    for name in reversed(SYSTEM_COLUMNS):
        if name != column and (text := _joined(fields, name, where)) and ("system", text) != turns[0]:
            turns = [("system", text), *turns]
    return joined_turns(turns).strip()


def _turns(fields: Mapping[str, Any], column: str, where: str) -> list[Turn]:
    value = fields.get(column)
    if not isinstance(value, list | tuple):
        return [("user", required_text(fields, column, where))]
    turns = flat_turns(value, f"{where}, column {column}")
    return [(valid_unicode(role, column, where), valid_unicode(text, column, where)) for role, text in turns]


def _joined(fields: Mapping[str, Any], name: str, where: str) -> str:
    return (optional_text(fields, name, where) or "").strip()


def _with_context(turns: list[Turn], text: str) -> list[Turn]:
    users = [index for index, (role, _) in enumerate(turns) if role == "user"] or [len(turns) - 1]
    role, content = turns[users[-1]]
    return [*turns[: users[-1]], (role, f"{content.strip()}\n\n{text}"), *turns[users[-1] + 1 :]]
