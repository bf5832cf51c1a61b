"""Conversations as plain text: one rule for instructions and responses, wherever they come from."""

from collections.abc import Mapping
from typing import Any

from ste_jax.errors import SteError


def flatten_turns(value: Any, where: str) -> str:
    """Returns a text, or a list of messages as one text.

    A single message is its content. Several are set apart by blank lines, each under a line with its role,
    such as "User:". A content is text or a list of parts of type "text".

    Args:
      value: text, or messages with "role" and "content".
      where: name of the value, for the error message.

    Raises:
      SteError: if the value is something else, or a message holds anything but text.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple) or not value:
        kind = "an empty list" if isinstance(value, list | tuple) else type(value).__name__
        raise SteError("data_invalid", f"{where} must be text or a list of messages, not {kind}")
    turns = [_turn(turn, f"{where}: message {number}") for number, turn in enumerate(value, 1)]
    if len(turns) == 1:
        return turns[0][1]
    return "\n\n".join(f"{role.capitalize()}:\n{content}" for role, content in turns)


def _turn(turn: Any, where: str) -> tuple[str, str]:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
        raise SteError("data_invalid", f'{where} must have "role" and "content"')
    content = turn.get("content")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        if not all(isinstance(part, str) for part in parts):
            raise SteError("data_invalid", f"{where} holds a part that is not text")
        content = "".join(parts)
    if not isinstance(content, str):
        raise SteError("data_invalid", f"{where}: content must be text, not {type(content).__name__}")
    return turn["role"], content
