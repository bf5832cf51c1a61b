"""The programs that a plan covers and the text lengths that it assumes; loads no JAX."""

import dataclasses
from typing import Literal

Phase = Literal["sft", "dpo", "pairwise", "prefill", "decode", "validate"]
PHASES: tuple[Phase, ...] = ("sft", "dpo", "pairwise", "prefill", "decode", "validate")


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Mean lengths in tokens of the texts of a run. They are assumptions until the run has been made."""

    instruction: int = 250
    response: int = 500
    judgment: int = 700
    template: int = 400

    @property
    def judge_prompt(self) -> int:
        """Tokens of a judge prompt: template, instruction and two responses."""
        return self.template + self.instruction + 2 * self.response

    @property
    def target_share(self) -> float:
        """Share of the tokens of an example that is trained on: its judgment."""
        return self.judgment / (self.judge_prompt + self.judgment)
