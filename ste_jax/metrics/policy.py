"""Policies for judgments without a verdict: how they count in the accuracy of a judge."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Policy:
    """Score of a judgment without a verdict.

    Attributes:
      name: name of the policy.
      score: the score, or None to leave the judgment out of every share.
      text: one sentence that states the policy.
    """

    name: str
    score: float | None
    text: str

    @property
    def unparsed_score(self) -> float:
        """The score as a number: NaN where the judgment is left out."""
        return math.nan if self.score is None else self.score


POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy("wrong", 0.0, "a judgment without a verdict counts as wrong"),
        Policy(
            "rewardbench",
            0.5,
            "as RewardBench: [[A]] is looked for first and then [[B]], anywhere in the completion; "
            "a judgment with neither counts half",
        ),
        Policy("dropped", None, "a judgment without a verdict is left out, as FastChat does"),
    )
}
WRONG = POLICIES["wrong"]
