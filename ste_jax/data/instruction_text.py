"""The text of an instruction: its column, joined with the columns that belong to it.

Alpaca keeps the text that an instruction is about in `input`, Dolly in `context`; OpenOrca and others keep a
system message in a column of its own, files of chats the earlier turns in `history`. An instruction without
them is another instruction, so every reader joins them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ste_jax.data.fields import is_absent, optional_text, required_text, valid_unicode, written_list
from ste_jax.data.messages import Turn, flat_turns, joined_turns
from ste_jax.data.transcripts import transcript_turns
from ste_jax.errors import SteError

SYSTEM_COLUMNS = ("system", "system_prompt", "system_message", "system_instruction")
CONTEXT_COLUMNS = ("input", "context")
HISTORY_COLUMNS = ("history", "chat_history", "conversation_history", "dialogue_history")
JOINED_COLUMNS = (*SYSTEM_COLUMNS, *HISTORY_COLUMNS, *CONTEXT_COLUMNS)


def instruction_text(fields: Mapping[str, Any], column: str, where: str, *, answered: bool = False) -> str:
    """Returns an instruction as one text, without outer white space.

    The text of `input` and `context` follows that of the column after a blank line; in a conversation it
    belongs to the last turn of the user. A system message comes first, as a turn of its own, then earlier
    turns, which are messages or pairs of a text of the user and its answer.

    Args:
      fields: the row.
      column: name of the column that holds text or a list of chat messages.
      where: position of the row.
      answered: the last turns of a conversation are its answer, which is left out if the assistant gives it.

    Raises:
      SteError: "data_invalid", if the column is missing, blank or holds anything else, or one of the joined
        columns is not text.
    """
    return joined_turns(instruction_turns(fields, column, where, answered=answered)).strip()


def check_instruction(fields: Mapping[str, Any], column: str, where: str) -> None:
    """Checks a column that is about to become the instruction, so that errors name it as the file does.

    Raises:
      SteError: as `instruction_text`.
    """
    instruction_turns({column: fields.get(column)}, column, where)


def instruction_turns(
    fields: Mapping[str, Any], column: str, where: str, *, answered: bool = False
) -> list[Turn]:
    """Returns the turns of an instruction with the columns that belong to it; see `instruction_text`."""
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
    for name in HISTORY_COLUMNS:
        if name != column and (earlier := _history(fields, name, where)):
            place = sum(role == "system" for role, _ in turns[:1])
            if turns[place : place + len(earlier)] != earlier:
                turns = [*turns[:place], *earlier, *turns[place:]]
    for name in reversed(SYSTEM_COLUMNS):
        if name != column and (text := _joined(fields, name, where)) and ("system", text) != turns[0]:
            turns = [("system", text), *turns]
    return turns


def _turns(fields: Mapping[str, Any], column: str, where: str) -> list[Turn]:
    value = fields.get(column)
    if not isinstance(value, list | tuple):
        return [("user", required_text(fields, column, where))]
    return _valid(flat_turns(value, f"{where}, column {column}"), column, where)


def _history(fields: Mapping[str, Any], name: str, where: str) -> list[Turn]:
    """Returns the turns of a column of earlier turns."""
    value, named = fields.get(name), f"{where}, column {name}"
    if is_absent(value) or (isinstance(value, str) and not value.strip()):
        return []
    if isinstance(value, str):
        if turns := transcript_turns(value):
            return _valid(turns, name, where)
        value = written_list(value, named)
    if not isinstance(value, list | tuple):
        raise SteError("data_invalid", f"{named}: expected messages, not a {type(value).__name__}")
    if all(isinstance(turn, list | tuple) and len(turn) == 2 for turn in value):
        roles = ("user", "assistant")
        value = [
            {"role": role, "content": text} for pair in value for role, text in zip(roles, pair, strict=True)
        ]
    return _valid(flat_turns(value, named), name, where) if value else []


def _valid(turns: Sequence[Turn], column: str, where: str) -> list[Turn]:
    return [(valid_unicode(role, column, where), valid_unicode(text, column, where)) for role, text in turns]


def _joined(fields: Mapping[str, Any], name: str, where: str) -> str:
    return (optional_text(fields, name, where) or "").strip()


def _with_context(turns: list[Turn], text: str) -> list[Turn]:
    users = [index for index, (role, _) in enumerate(turns) if role == "user"] or [len(turns) - 1]
    role, content = turns[users[-1]]
    return [*turns[: users[-1]], (role, f"{content.strip()}\n\n{text}"), *turns[users[-1] + 1 :]]
