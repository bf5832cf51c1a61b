"""Labelled pairs that a judge decides differently from their labels, to read in the report."""

import dataclasses
from collections.abc import Sequence

from ste_jax.records import ComparisonResult

SHOWN = 12
# Characters of a text that are shown.
_LONGEST = 2_000


@dataclasses.dataclass(frozen=True)
class Disagreements:
    """The decisions of a model that differ from the labels.

    Attributes:
      iteration: number of the model.
      decided: number of labelled pairs that it has decided.
      differing: number of those that it decides differently from their labels.
      shown: the most confident of them.
    """

    iteration: int
    decided: int
    differing: int
    shown: list[ComparisonResult]


def disagreements(iteration: int, results: Sequence[ComparisonResult]) -> Disagreements:
    """Returns the decisions that differ from the labels A and B, the most confident first.

    Args:
      iteration: number of the model.
      results: its decisions on the labelled pairs; ties and pairs without a decision do not count.
    """
    decided = [one for one in results if one.winner and one.comparison.label in ("A", "B")]
    differing = [one for one in decided if one.winner != one.comparison.label]
    differing.sort(key=lambda one: (-(one.confidence or 0.0), one.id))
    return Disagreements(iteration, len(decided), len(differing), differing[:SHOWN])


def shortened(text: str) -> str:
    """Returns a text that is cut at a length to read, with the number of characters left out."""
    left_out = len(text) - _LONGEST
    # A text that is only a little longer is not cut: the remark would take as much room.
    return text if left_out < _LONGEST // 10 else f"{text[:_LONGEST]}… ({left_out:,} more characters)"
