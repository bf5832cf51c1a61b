"""Wordings that put several instructions into one, and join their answers."""

import dataclasses
from collections.abc import Sequence

import numpy as np

_NUMBERS = ("zero", "one", "two", "three", "four", "five")
_ORDINALS = ("First", "Second", "Third", "Fourth", "Fifth")
# An opening, the marks of the parts, and what stands between them.
_INSTRUCTIONS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("", ("1. ", "2. ", "3. ", "4. ", "5. "), "\n"),
    ("Please answer each of these:\n\n", ("- ",) * 5, "\n"),
    ("I have {count} requests.\n\n", tuple(f"{ordinal}: " for ordinal in _ORDINALS), "\n\n"),
    ("", ("", "Also: ", "Then: ", "And: ", "Finally: "), "\n\n"),
    ("Do these {count} things, in this order.\n\n", ("(a) ", "(b) ", "(c) ", "(d) ", "(e) "), "\n"),
    ("", tuple(f"Question {n}: " for n in range(1, 6)), "\n\n"),
)
_RESPONSES: tuple[tuple[str, ...], ...] = (
    ("",) * 5,
    tuple(f"({n}) " for n in range(1, 6)),
    tuple(f"Answer {n}: " for n in range(1, 6)),
    tuple(f"{ordinal}: " for ordinal in _ORDINALS),
)


@dataclasses.dataclass(frozen=True)
class Phrasing:
    """One of the wordings. A single instruction or response stands alone, without marks.

    Attributes:
      opening: text before the instructions, with `{count}` for their number in words.
      marks: marks before each instruction.
      separator: text between instructions.
      response_marks: marks before each response.
    """

    opening: str
    marks: tuple[str, ...]
    separator: str
    response_marks: tuple[str, ...]

    def instructions(self, texts: Sequence[str]) -> str:
        """Returns one instruction for up to five."""
        if len(texts) == 1:
            return texts[0]
        marked = (mark + text for mark, text in zip(self.marks, texts, strict=False))
        return self.opening.replace("{count}", _NUMBERS[len(texts)]) + self.separator.join(marked)

    def responses(self, texts: Sequence[str]) -> str:
        """Returns one response for any number; those after the fifth have no mark."""
        if len(texts) == 1:
            return texts[0]
        marks = (*self.response_marks, *("",) * len(texts))
        return "\n\n".join(mark + text for mark, text in zip(marks, texts, strict=False))


def draw_phrasing(random: np.random.Generator) -> Phrasing:
    """Returns one of the wordings of instructions with one of those of responses."""
    instructions = _INSTRUCTIONS[random.integers(len(_INSTRUCTIONS))]
    return Phrasing(*instructions, response_marks=_RESPONSES[random.integers(len(_RESPONSES))])
