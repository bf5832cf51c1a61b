"""Pairs whose label follows from how they were made: the answers they start from, and the candidates."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answered:
    """An instruction with the seed model's answer.

    Attributes:
      id: id of the instruction.
      instruction: text of the instruction.
      answer: text of the answer.
      other: another answer to the same instruction, or None.
    """

    id: str
    instruction: str
    answer: str
    other: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
    """Two responses to an instruction, of which one is better by construction.

    Attributes:
      key: name of the candidate, unique within its kind.
      sources: ids of the instructions that it was made from; the first one is the instruction judged.
      instruction: the instruction that the judge sees.
      better: the better response; of a tie, any.
      worse: the worse response; of a tie, the other.
      is_tie: neither response is better.
      details: what the audit of the kind counts, such as the type of a constraint; JSON-ready.
    """

    key: str
    sources: tuple[str, ...]
    instruction: str
    better: str
    worse: str
    is_tie: bool = False
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
