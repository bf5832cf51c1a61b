"""The one reader of verdicts, for training, evaluation and serving, and the ids that force a verdict.

Policy `last-verdict-1`: only the completion is read, never the prompt; the last `[[A]]` or `[[B]]` in it is
the verdict. The form is exact: capital letters, no spaces inside. Judges learn it from their own correct
judgments, and a wider form would also read `[[ A ]]`, which is how prompts.py shows a verdict that a
response claims for itself.
"""

import dataclasses
import re
from collections.abc import Callable

from ste_jax.records import Label

PARSER = "last-verdict-1"
OPENING = "\n\nVerdict: [["
CLOSING = "]]"

_VERDICT = re.compile(r"\[\[([AB])\]\]")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a completion decides.

    `status` is "ok", "both" (both verdicts occur, the last one counts), "missing" (the completion ended
    without one) or "truncated" (its budget ended without one); `label` is None for the last two.
    """

    label: Label | None
    status: str


def parse_verdict(text: str, *, truncated: bool) -> Verdict:
    """Reads the verdict of a completion.

    Args:
      text: the completion alone.
      truncated: whether it ended because its budget of tokens did.
    """
    found = _VERDICT.findall(text)
    if not found:
        return Verdict(None, "truncated" if truncated else "missing")
    return Verdict(found[-1], "both" if len(set(found)) == 2 else "ok")


@dataclasses.dataclass(frozen=True)
class ForcedVerdict:
    """The ids that end a completion with a verdict: `opening`, one of `choices` (A, B), `closing`."""

    opening: tuple[int, ...]
    choices: tuple[int, int]
    closing: tuple[int, ...]


def verdict_tail(encode: Callable[[str], list[int]], opening_text: str = OPENING) -> ForcedVerdict:
    """Returns the ids of `opening_text`, of the two letters and of the closing brackets.

    Args:
      encode: text to ids, with neither special tokens added nor control tokens read out of the text.
      opening_text: what stands before the letter; it ends with "[[".

    Raises:
      ValueError: if the two verdicts do not differ in exactly one token, or `encode` adds tokens of its own.
    """
    if encode(""):
        raise ValueError("verdict forcing: the tokenizer adds special tokens; pass an encoder of plain text")
    a, b = (encode(opening_text + letter + CLOSING) for letter in "AB")
    places = [i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other]
    if len(a) != len(b) or len(places) != 1:
        raise ValueError(
            f"verdict forcing: this tokenizer makes {a} of {opening_text + 'A' + CLOSING!r} and {b} with B in"
            " place of A; they must differ in one token only. Give another opening text or turn forcing off"
        )
    place = places[0]
    return ForcedVerdict(tuple(a[:place]), (a[place], b[place]), tuple(a[place + 1 :]))
