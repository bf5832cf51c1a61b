"""A dry run: what a run would read, make and show to the judge, and what it would cost. Writes nothing."""

import dataclasses
from typing import Any

from ste_jax.instructions.filters import FunnelStep
from ste_jax.instructions.labels import label_prompt
from ste_jax.judging.protocol import JudgingProtocol
from ste_jax.pairs.splits import labelled_halves
from ste_jax.plan.assumptions import Lengths
from ste_jax.plan.rerun import StageHours, stage_hours
from ste_jax.plan.topology import parse_topology
from ste_jax.plan.work import Calls, RunWork, TrainingWork, run_work
from ste_jax.records import Comparison, Instruction
from ste_jax.speed_probe import Speed, measure
from ste_jax.stages import select
from ste_jax.stages.context import Context
from ste_jax.text.chat import encode_chat

# Share of pairs and orders that is assumed to give a training example; the default of `ste plan`.
KEPT = 0.5
# A training step reads its tokens once and goes back through the model, which takes twice as long; the
# recomputation, the loss and the optimizer take about as long as another reading (docs/PERFORMANCE.md).
_TRAINING_PASSES = 4.0


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a run reads, and what its judge sees.

    Attributes:
      read: number of instructions that were read.
      columns_left_out: columns of the file that are not read.
      funnel: what each filter removes.
      kept: instructions that the filters keep.
      selected: number of instructions that are selected, at most.
      labelled: labelled pairs that choose checkpoints, and that models are tested on.
      prompt: judge prompt of the first instruction as the model reads it.
      prompt_tokens: its length.
    """

    read: int
    columns_left_out: list[str]
    funnel: list[FunnelStep]
    kept: list[Instruction]
    selected: int
    labelled: tuple[int, int]
    prompt: str
    prompt_tokens: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """Work of a run, and the time that it takes.

    Attributes:
      work: calls and steps of the stages.
      speed: speed on the devices at hand; None if a topology was named.
      hours: chip-hours of the stages on the named topology.
    """

    work: RunWork
    speed: Speed | None
    hours: list[StageHours]

    def seconds_of(self, work: Calls | TrainingWork, iterations: int) -> float | None:
        """Returns the expected time of calls, or of a training in all iterations; None without a speed."""
        if self.speed is None:
            return None
        if isinstance(work, Calls):
            read = work.prompts * work.prompt_tokens * self.speed.read_seconds
            return read + work.prompts * work.samples * work.new_tokens * self.speed.new_seconds
        tokens = work.steps * work.settings.batch_rows * work.settings.row_length
        return iterations * tokens * _TRAINING_PASSES * self.speed.read_seconds


def read_inputs(context: Context) -> Inputs:
    """Reads and filters the inputs of a run, and fills a judge prompt.

    Raises:
      SteError: what would also end the run: an invalid file or setting, or no instruction that is left.
    """
    config, preview = context.config, select.preview(context)
    prompt = _prompt(context, preview.kept[0])
    validation, tested = labelled_halves(config.seed, config.labelled_pairs, context.named)
    return Inputs(
        read=preview.read,
        columns_left_out=preview.columns_left_out,
        funnel=preview.funnel,
        kept=preview.kept,
        selected=min(config.select.size, len(preview.kept)),
        labelled=(len(validation), len(tested)),
        prompt=context.seed_model.tokenizer.decode(prompt, control=True),
        prompt_tokens=len(prompt),
    )


def cost_of(context: Context, kept: list[Instruction], topology: str = "") -> Cost:
    """Returns what a run costs.

    Args:
      context: the run.
      kept: instructions that the filters keep.
      topology: TPU slice to compute chip-hours for. "": measures the speed of the devices at hand.
    """
    speed = None if topology else measure(context, kept)
    lengths = _lengths(context, kept, speed)
    judge_prompt = speed.judge_prompt_tokens if speed else None
    work = run_work(context.config, lengths, kept=KEPT, instructions=len(kept), judge_prompt=judge_prompt)
    cfg, hours = context.seed_model.architecture, []
    if topology:
        hours = stage_hours(context.config, cfg, parse_topology(topology), lengths, work)
    return Cost(work, speed, hours)


def _lengths(context: Context, kept: list[Instruction], speed: Speed | None) -> Lengths:
    """Returns mean lengths: those of the instructions are counted, others are measured or assumed."""
    tokenizer = context.seed_model.tokenizer
    config, assumed = context.config, Lengths()
    counted: dict[str, Any] = {
        "instruction": max(1, sum(len(tokenizer.encode_plain(i.whole)) for i in kept) // len(kept)),
        "response": min(assumed.response, config.pairs.max_response_tokens),
        "judgment": max(1, min(assumed.judgment, config.annotate.max_new_tokens)),
    }
    if speed is not None:
        labels = label_prompt(kept[0].whole, context.config.select.categories)
        templated = len(encode_chat(tokenizer, labels)) - len(tokenizer.encode_plain(kept[0].whole))
        counted |= {
            "template": templated,
            "response": speed.response_tokens,
            "judgment": max(1, speed.judgment_tokens),
        }
    return Lengths(**counted)


def _prompt(context: Context, instruction: Instruction) -> tuple[int, ...]:
    """Returns the tokens of the judge prompt of an instruction, with stand-ins for the responses."""
    comparison = Comparison(
        id=instruction.id,
        instruction=instruction.text,
        reference=instruction.reference,
        texts=instruction.texts,
        response_a="(the first response)",
        response_b="(the second response)",
    )
    return JudgingProtocol(context.judging, context.seed_model.tokenizer).prompt_ids(comparison, "as_given")
