"""Reads chat messages in their published forms, and flattens them to the one text that a judge sees."""

from collections.abc import Mapping, Sequence
from typing import Any

from ste_jax.errors import SteError

Turn = tuple[str, str]
# Names that data sets give to the roles of chat templates.
_ROLES = {
    **dict.fromkeys(("system", "system_prompt"), "system"),
    **dict.fromkeys(("user", "human", "prompter", "instruction", "inst"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "chatbot", "bot", "model", "ai"), "assistant"),
    **dict.fromkeys(("response", "/inst"), "assistant"),
}
# Fields of messages that hold what a model says or sees besides the text of the content.
_UNREAD = (
    *("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking", "refusal"),
    *("audio", "image", "images", "video", "videos"),
)
ROLE_NAMES = tuple(name for name in _ROLES if name.isalpha())


def flatten_messages(messages: Sequence[Any], where: str = "messages") -> str:
    r"""Returns a conversation as one text. Every reader of the package uses this rule.

    A single message is its content. Several messages are labelled turns, each "Role:", a line break and the
    content, separated by blank lines: "User:\nHello\n\nAssistant:\nHi\n\nUser:\nHow are you?". Nothing is
    trimmed or escaped.

    Args:
      messages: dicts with the text fields "role" and "content", or "from" and "value" as in ShareGPT; other
        fields are ignored, unless they hold another part of the turn, such as `tool_calls`. The content may
        also be a list of parts {"type": "text", "text": ...}, which are concatenated.
      where: the file and line or the argument to name in errors.

    Raises:
      SteError: "data_invalid", if there is no message, or one has no role or no text content, or says more
        than its text.
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


def known_role(name: str) -> str:
    """Returns the role of chat templates that a name means, in any case; other names as they are."""
    return _ROLES.get(name.strip().lower(), name)


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
    if unread := next((name for name in _UNREAD if message.get(name)), None):
        raise SteError(
            "data_invalid",
            f"{where}: {unread} is part of the turn and is not read; write it into the content, or remove it",
        )
    content = message.get(names[1])
    if isinstance(content, list | tuple):
        content = "".join(_part(part, where) for part in content)
    if not isinstance(content, str):
        raise SteError("data_invalid", f"{where}: the content is a {type(content).__name__}, expected text")
    return known_role(role), content


def _part(part: Any, where: str) -> str:
    """Returns the text of one content part."""
    text = part.get("text") if isinstance(part, Mapping) else None
    if not isinstance(text, str):
        raise SteError("data_invalid", f"{where}: a content part is not text; only text can be judged")
    return text
