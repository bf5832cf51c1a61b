"""Reads chat messages in their published forms, and flattens them to the one text that a judge sees."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ste_jax.data.fields import written_list
from ste_jax.errors import SteError

Turn = tuple[str, str]
# Roles of ShareGPT and HH-RLHF by those of chat templates.
_ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
_NAMES = (("role", "content"), ("from", "value"))
# The beginning of a list of dicts, also one of numpy.
_WRITTEN = re.compile(r"\s*(?:array\(\s*)?\[\s*\{")
_TRANSCRIPT = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


def flatten_messages(messages: Sequence[Any], where: str = "messages") -> str:
    r"""Returns a conversation as one text. Every reader of the package uses this rule.

    A single message is its content. Several messages are labelled turns, each "Role:", a line break and the
    content, separated by blank lines: "User:\nHello\n\nAssistant:\nHi\n\nUser:\nHow are you?". Nothing is
    trimmed or escaped.

    Args:
      messages: dicts with the text fields "role" and "content", or "from" and "value" as in ShareGPT; other
        fields are ignored. The content may also be a list of parts {"type": "text", "text": ...}, which are
        concatenated.
      where: the file and line or the argument to name in errors.

    Raises:
      SteError: "data_invalid", if there is no message, or one has no role or no text content.
    """
    return joined_turns(flat_turns(messages, where))


def joined_turns(turns: Sequence[Turn]) -> str:
    """Returns turns as one text; see `flatten_messages`."""
    if len(turns) == 1:
        return turns[0][1]
    return "\n\n".join(f"{role.capitalize()}:\n{content}" for role, content in turns)


def flat_turns(messages: Sequence[Any], where: str = "messages") -> list[Turn]:
    """Returns the role and the text of every message; see `flatten_messages`."""
    if not messages:
        raise SteError("data_invalid", f"{where}: the conversation has no messages")
    return [_turn(message, f"{where}, message {number}") for number, message in enumerate(messages, 1)]


def listed_messages(value: Any, where: str) -> Sequence[Any] | None:
    """Returns a list of messages, also one written as text (see `written_list`); None for any other value.

    Raises:
      SteError: "data_invalid", if a text begins like a list of messages and cannot be read as one.
    """
    if isinstance(value, list | tuple):
        return value
    if not isinstance(value, str) or not _begins_messages(value):
        return None
    messages = written_list(value, where)
    keys = [one.keys() for one in messages if isinstance(one, dict)]
    return messages if any(one >= set(names) for one in keys for names in _NAMES) else None


def _begins_messages(text: str) -> bool:
    return bool(_WRITTEN.match(text)) and any(
        all(re.search(rf"""["']{name}["']\s*:""", text) for name in names) for names in _NAMES
    )


def transcript_turns(text: str) -> list[Turn] | None:
    """Returns the turns of a transcript of HH-RLHF ("\\n\\nHuman: ...\\n\\nAssistant: ..."), or None.

    Without the blank line at its beginning it needs turns of both: an answer may begin with "Human:".
    """
    before, *parts = _TRANSCRIPT.split(text)
    roles = [_ROLES.get(name.lower(), name.lower()) for name in parts[::2]]
    if before or not roles or (len(set(roles)) < 2 and not text.startswith("\n\n")):
        return None
    return [(role, content.removeprefix(" ")) for role, content in zip(roles, parts[1::2], strict=True)]


def divided(a: Sequence[Turn], b: Sequence[Turn], where: str) -> tuple[list[Turn], list[Turn], list[Turn]]:
    """Returns the common beginning of two conversations, and how each goes on with an assistant's turn.

    Raises:
      SteError: "data_invalid" if they have no such beginning.
    """
    length = 0
    while length < min(len(a), len(b)) - 1 and a[length] == b[length]:
        length += 1
    while length and not a[length][0] == b[length][0] == "assistant":
        length -= 1
    if not length:
        raise SteError(
            "data_invalid",
            f"{where}: the two conversations do not begin with the same prompt, followed by a response each",
        )
    return list(a[:length]), list(a[length:]), list(b[length:])


def _turn(message: Any, where: str) -> Turn:
    """Returns the role and the text content of a message."""
    names = ("role", "content")
    if isinstance(message, Mapping) and "role" not in message and "from" in message:
        names = ("from", "value")
    role = message.get(names[0]) if isinstance(message, Mapping) else None
    if not isinstance(role, str):
        raise SteError(
            "data_invalid", f'{where}: expected a dict with "role" and "content", or "from" and "value"'
        )
    content = message.get(names[1])
    if isinstance(content, list | tuple):
        content = "".join(_part(part, where) for part in content)
    if not isinstance(content, str):
        raise SteError("data_invalid", f"{where}: the content is a {type(content).__name__}, expected text")
    return (role if names[0] == "role" else _ROLES.get(role, role)), content


def _part(part: Any, where: str) -> str:
    """Returns the text of one content part."""
    text = part.get("text") if isinstance(part, Mapping) else None
    if not isinstance(text, str):
        raise SteError("data_invalid", f"{where}: a content part is not text; only text can be judged")
    return text
