"""Measures how fast a model reads and generates on the devices at hand, with requests of a run."""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from etils import epath
from scipy.optimize import nnls

from ste_jax.decode.protocol import GREEDY
from ste_jax.judging.protocol import JudgingProtocol
from ste_jax.judging.stream import StreamSettings, judge_into
from ste_jax.records import Comparison, Generation, Instruction, Judgment
from ste_jax.stages.context import Context
from ste_jax.stages.generation import generate_texts
from ste_jax.storage.record_set import RecordSet
from ste_jax.storage.sink import Work
from ste_jax.text.chat import Message

T = TypeVar("T")
PROBED = 16


@dataclasses.dataclass(frozen=True)
class Speed:
    """Speed of a model and mean lengths of the texts that it was measured with.

    Attributes:
      read_seconds: seconds per token of a prompt.
      new_seconds: seconds per generated token.
      response_tokens: mean tokens of an answer.
      judge_prompt_tokens: mean tokens of a judge prompt.
      judgment_tokens: mean tokens of a judgment.
    """

    read_seconds: float
    new_seconds: float
    response_tokens: int
    judge_prompt_tokens: int
    judgment_tokens: int


def measure(context: Context, instructions: Sequence[Instruction]) -> Speed:
    """Answers instructions and judges the answers with the seed model, each twice: the first time compiles.

    Args:
      context: the run; nothing is written to its workdir.
      instructions: two or more, of which `PROBED` at most are used.
    """
    chosen = instructions[: min(PROBED, context.config.decode.sequences)]
    with tempfile.TemporaryDirectory() as folder:
        calls = _Calls(context, epath.Path(folder), chosen)
        answers, answered = calls.timed(calls.answer)
        pairs = [
            Comparison(
                id=i.id,
                instruction=i.text,
                response_a=answers[i.id].text,
                response_b=answers[j.id].text,
                reference=i.reference,
                texts=i.texts,
            )
            for i, j in zip(chosen, [*chosen[1:], chosen[0]], strict=True)
            if i.id in answers and j.id in answers
        ]
        _, judged = calls.timed(lambda name: calls.judge(name, pairs))
    tokens = np.array([[work.prompt_tokens, work.generated_tokens] for work in (answered, judged)], float)
    (read, new), _ = nnls(tokens, np.array([answered.seconds, judged.seconds]))
    return Speed(
        read_seconds=float(read),
        new_seconds=float(new),
        response_tokens=answered.generated_tokens // max(1, answered.done),
        judge_prompt_tokens=judged.prompt_tokens // max(1, judged.done),
        judgment_tokens=judged.generated_tokens // max(1, judged.done),
    )


class _Calls:
    """Calls of the seed model whose records go to a temporary folder."""

    def __init__(self, context: Context, folder: epath.Path, instructions: Sequence[Instruction]):
        self._context, self._folder = context, folder
        self._questions = {i.id: [Message("user", i.whole)] for i in instructions}

    def timed(self, call: Callable[[str], tuple[T, Work]]) -> tuple[T, Work]:
        """Calls a function twice and returns the result and the work of the second call, with its time."""
        call("compile")
        begin = time.monotonic()
        result, work = call("measure")
        return result, dataclasses.replace(work, seconds=time.monotonic() - begin)

    def answer(self, name: str) -> tuple[dict[str, Generation], Work]:
        """Returns the answers to the instructions."""
        settings, folder = self._context.config.pairs, self._folder / name / "answers"
        answers, _ = generate_texts(
            self._context,
            self._context.seed_model,
            folder,
            self._questions,
            sampling=settings.sampling,
            max_new_tokens=settings.max_response_tokens,
            fingerprint={"stage": "dry_run"},
        )
        return answers, RecordSet(folder, Generation, {"stage": "dry_run"}).work

    def judge(self, name: str, pairs: Sequence[Comparison]) -> tuple[None, Work]:
        """Judges pairs once in both orders."""
        source = self._context.seed_model
        records = RecordSet(self._folder / name / "judgments", Judgment, {"stage": "dry_run"})
        protocol = JudgingProtocol(self._context.judging, source.tokenizer)
        settings = StreamSettings(stage=f"dry_run/{name}", samples=1, sampling=GREEDY)
        judge_into(records, protocol, self._context.engine(source), pairs, settings, label="judgments")
        return None, records.work
