"""Chat conversations as token ids: control tokens of the template count, those in messages stay text."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

from ste_jax.errors import SteError
from ste_jax.text.tokenizer import Tokenizer

Role = Literal["system", "user", "assistant"]


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn. `content` is plain text: control tokens in it are encoded as text."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise SteError(
                "chat_invalid", f"message: role must be one of {', '.join(get_args(Role))}, not {self.role!r}"
            )


def encode_chat(
    tokenizer: Tokenizer, messages: Sequence[Message], *, add_generation_prompt: bool = True
) -> list[int]:
    """Returns the prompt ids of a conversation: the ids `transformers` gives for it, with exactly one BOS.

    They differ from those of `transformers` only where a content spells a control token: here it stays text.
    A template without a system role is given the system text in the user's turn.

    Raises:
      SteError: "chat_invalid" if the template refuses the conversation, or does more than trim a content.
    """
    if not messages:
        raise SteError("chat_invalid", "the chat template refuses a conversation of the roles []")
    if not tokenizer.has_system_role:
        messages = _without_system(messages)
    rendered = _render(tokenizer, messages, [message.content for message in messages], add_generation_prompt)
    opening, closing = _unused_characters(rendered, *(message.content for message in messages))
    contents = [_enclosed(message.content, opening, closing) for message in messages]
    marked = _render(tokenizer, messages, contents, add_generation_prompt)
    if marked.replace(opening, "").replace(closing, "") != rendered:
        raise tokenizer.refusal("the chat template looks into a message and writes other text for it")
    spans = list(_spans(marked, opening, closing))
    marks = [character for character in marked if character in (opening, closing)]
    written = [text for text, is_trusted in spans if not is_trusted]
    expected = [core for message in messages if (core := message.content.strip())]
    if marks != [opening, closing] * len(expected) or written != expected:
        raise tokenizer.refusal("the chat template drops, repeats, cuts or rewrites the text of a message")
    return tokenizer.with_bos(tokenizer.encode_spans(spans))


def _without_system(messages: Sequence[Message]) -> Sequence[Message]:
    """Returns the messages with a leading system text at the beginning of the user turn that follows it."""
    if [message.role for message in messages[:2]] != ["system", "user"]:
        return messages
    system, user = messages[:2]
    text = "\n\n".join(content for content in (system.content, user.content) if content.strip())
    return [Message("user", text), *messages[2:]]


def _render(
    tokenizer: Tokenizer, messages: Sequence[Message], contents: Sequence[str], add_generation_prompt: bool
) -> str:
    turns = [{"role": m.role, "content": content} for m, content in zip(messages, contents, strict=True)]
    return tokenizer.render(turns, add_generation_prompt=add_generation_prompt)


def _unused_characters(*texts: str) -> tuple[str, str]:
    """Returns two characters that occur in none of `texts` and are not white space."""
    used = set().union(*texts)
    # From the private use area upwards, where Unicode has no white space.
    free = (character for character in map(chr, range(0xE000, 0x110000)) if character not in used)
    opening, closing = itertools.islice(free, 2)
    return opening, closing


def _enclosed(content: str, opening: str, closing: str) -> str:
    """Returns `content` with marks around all but its outer white space, which a template may trim."""
    core = content.strip()
    if not core:
        return content
    before, _, after = content.partition(core)
    return f"{before}{opening}{core}{closing}{after}"


def _spans(marked: str, opening: str, closing: str) -> Iterator[tuple[str, bool]]:
    """Yields (text, trusted) spans of the rendered conversation, without the marks."""
    for index, piece in enumerate(re.split(f"[{opening}{closing}]", marked)):
        yield piece, index % 2 == 0
