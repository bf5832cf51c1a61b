"""Interface of the kinds of pairs: their inputs, the sampler of responses, and the candidate for y_l.

A pair has a better response y_w, the answer to an instruction x, and a worse response y_l. Each module of a
kind makes the candidates for y_l in its own way, without labels (the paper, section 3.2).
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from ste_jax.decode.protocol import Sampling
from ste_jax.pairs.candidate import Answered
from ste_jax.pairs.construction import PairChecks
from ste_jax.records import Generation, Instruction
from ste_jax.text.chat import Message
from ste_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class RejectedCandidate:
    """A candidate for the worse response y_l.

    Attributes:
      modified: the instruction x' that it answers, or None if it answers x itself.
      text: the response.
      tokens: the token ids of the response.
    """

    modified: str | None
    text: str
    tokens: list[int]


class ResponseSampler(Protocol):
    """Samples one response to each of several conversations."""

    def sample(
        self,
        name: str,
        conversations: Mapping[str, Sequence[Message]],
        *,
        max_new_tokens: int,
        sampling: Sampling | None = None,
    ) -> dict[str, Generation]:
        """Returns the responses by id, without those whose prompt is too long.

        Args:
          name: name of the calls, unique in a run.
          conversations: messages by id.
          max_new_tokens: maximum number of new tokens per response.
          sampling: temperature and top-p, if they differ from those of the better response.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairInputs:
    """Inputs of the construction of pairs.

    Attributes:
      instructions: the instructions x that have an answer.
      answers: the answers y_w by the id of their instruction.
      sampler: samples further responses.
      tokenizer: tokenizer of the model that answers.
      seed: seed of the run.
      checks: thresholds of the checks.
      max_response_tokens: maximum number of tokens of a response.
      max_modified_tokens: maximum number of tokens of a modified instruction x'.
      high_temperature: sampling of y_l in the mode of that name.
      others: second answers by the id of their instruction; empty if no mode needs them.
    """

    instructions: Sequence[Instruction]
    answers: Mapping[str, Generation]
    sampler: ResponseSampler
    tokenizer: Tokenizer
    seed: int
    checks: PairChecks
    max_response_tokens: int
    max_modified_tokens: int
    high_temperature: Sampling
    others: Mapping[str, Generation] = dataclasses.field(default_factory=dict)

    def answered(self) -> list[Answered]:
        """Returns the instructions with their answers as texts."""
        return [
            Answered(
                id=i.id,
                instruction=i.text,
                answer=self.answers[i.id].text,
                other=self.others[i.id].text if i.id in self.others else None,
            )
            for i in self.instructions
        ]

    def restricted_to(self, ids: Collection[str]) -> "PairInputs":
        """Returns the inputs without all other instructions and their answers."""
        ids = frozenset(ids)
        instructions = [instruction for instruction in self.instructions if instruction.id in ids]
        answers = {i.id: self.answers[i.id] for i in instructions}
        return dataclasses.replace(self, instructions=instructions, answers=answers)


# Candidates by the id of the instruction. None: the completion cannot be parsed. No entry: the prompt is too
# long, or no other instruction is similar.
Candidates = dict[str, RejectedCandidate | None]
