"""Flattens chat messages to the one text that a judge sees."""

from collections.abc import Mapping, Sequence
from typing import Any

from ste_jax.errors import SteError


def flatten_messages(messages: Sequence[Any], where: str = "messages") -> str:
    r"""Returns a conversation as one text. Every reader of the package uses this rule.

    A single message is its content. Several messages are labelled turns, each "Role:", a line break and the
    content, separated by blank lines: "User:\nHello\n\nAssistant:\nHi\n\nUser:\nHow are you?". Nothing is
    trimmed or escaped.

    Args:
      messages: dicts with the text fields "role" and "content"; other fields are ignored. The content may
        also be a list of parts {"type": "text", "text": ...}, which are concatenated.
      where: the file and line or the argument to name in errors.

    Raises:
      SteError: "data_invalid", if there is no message, or one has no role or no text content.
    """
    turns = flat_turns(messages, where)
    if len(turns) == 1:
        return turns[0][1]
    return "\n\n".join(f"{role.capitalize()}:\n{content}" for role, content in turns)


def flat_turns(messages: Sequence[Any], where: str = "messages") -> list[tuple[str, str]]:
    """Returns the role and the text of every message; see `flatten_messages`."""
    if not messages:
        raise SteError("data_invalid", f"{where}: the conversation has no messages")
    return [_turn(message, f"{where}, message {number}") for number, message in enumerate(messages, 1)]


def _turn(message: Any, where: str) -> tuple[str, str]:
    """Returns the role and the text content of a message."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise SteError("data_invalid", f'{where}: expected a dict with "role" and "content"')
    content = message.get("content")
    if isinstance(content, list | tuple):
        content = "".join(_part(part, where) for part in content)
    if not isinstance(content, str):
        raise SteError("data_invalid", f"{where}: the content is a {type(content).__name__}, expected text")
    return message["role"], content


def _part(part: Any, where: str) -> str:
    """Returns the text of one content part."""
    text = part.get("text") if isinstance(part, Mapping) else None
    if not isinstance(text, str):
        raise SteError("data_invalid", f"{where}: a content part is not text; only text can be judged")
    return text
