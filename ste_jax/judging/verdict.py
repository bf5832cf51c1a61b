"""The verdict parser, used for training, evaluation and serving, and the token ids that force a verdict.

Policy `last-verdict-1`: only the completion is parsed, never the prompt; the last `[[A]]` or `[[B]]` in it is
the verdict. The form is exact: capital letters, no spaces inside. Judges learn it from their own correct
judgments, and a wider form would also match `[[ A ]]`, which is how prompts.py shows a verdict that a
response claims for itself.
"""

import dataclasses
import re
from collections.abc import Callable

from ste_jax.errors import SteError
from ste_jax.records import Label

PARSER = "last-verdict-1"
OPENING = "\n\nVerdict: [["
CLOSING = "]]"

_VERDICT = re.compile(r"\[\[([AB])\]\]")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The verdict of a completion.

    Attributes:
      label: the letter, or None if there is no verdict.
      status: "ok", "both" (both verdicts occur, the last one counts), "missing" (the completion ended without
        a verdict) or "truncated" (the token budget ended before a verdict).
    """

    label: Label | None
    status: str


def parse_verdict(text: str, *, truncated: bool) -> Verdict:
    """Returns the verdict of a completion.

    Args:
      text: the completion alone.
      truncated: True if the token budget ended the completion.
    """
    found = _VERDICT.findall(text)
    if not found:
        return Verdict(None, "truncated" if truncated else "missing")
    return Verdict(found[-1], "both" if len(set(found)) == 2 else "ok")


def letter_position(text: str) -> int:
    """Returns the position of the letter of the last verdict in a completion that has one."""
    return [match.start(1) for match in _VERDICT.finditer(text)][-1]


@dataclasses.dataclass(frozen=True)
class ForcedVerdict:
    """Token ids that end a completion with a verdict.

    Attributes:
      opening: ids before the letter.
      choices: ids of the letters A and B.
      closing: ids after the letter.
    """

    opening: tuple[int, ...]
    choices: tuple[int, int]
    closing: tuple[int, ...]


def verdict_suffix(encode: Callable[[str], list[int]], opening_text: str = OPENING) -> ForcedVerdict:
    """Returns the ids of `opening_text`, of the two letters and of the closing brackets.

    Args:
      encode: encodes text without adding special tokens and without parsing control tokens in it.
      opening_text: text before the letter; it ends with "[[".

    Raises:
      SteError: the two verdicts do not differ in exactly one token, or `encode` adds tokens of its own
        ("verdict_tokens").
    """
    if encode(""):
        raise SteError(
            "verdict_tokens",
            "verdict forcing: the tokenizer adds special tokens; pass an encoder of plain text",
        )
    a, b = (encode(opening_text + letter + CLOSING) for letter in "AB")
    different = [i for i, pair in enumerate(zip(a, b, strict=False)) if pair[0] != pair[1]]
    if len(a) != len(b) or len(different) != 1:
        raise SteError(
            "verdict_tokens",
            f"verdict forcing: this tokenizer encodes {opening_text + 'A' + CLOSING!r} as {a} and the same "
            f"text with B as {b}; they must differ in exactly one token. Pass another opening text or turn "
            "forcing off",
        )
    index = different[0]
    return ForcedVerdict(tuple(a[:index]), (a[index], b[index]), tuple(a[index + 1 :]))
