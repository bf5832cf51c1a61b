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
class DryRun:
    """What is known of a run before it is made.

    Attributes:
      read: number of instructions that were read.
      columns_left_out: columns of the file that are not read.
      funnel: what each filter removes.
      selected: number of instructions that are selected, at most.
      labelled: labelled pairs that choose checkpoints, and that models are tested on.
      work: calls and steps of the stages.
      prompt: a judge prompt as the model reads it.
      prompt_tokens: its length.
      speed: speed on the devices at hand; None if a topology was named.
      hours: chip-hours of the stages on the named topology.
    """

    read: int
    columns_left_out: list[str]
    funnel: list[FunnelStep]
    selected: int
    labelled: tuple[int, int]
    work: RunWork
    prompt: str
    prompt_tokens: int
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


def dry_run(context: Context, topology: str = "") -> DryRun:
    """Returns what a run would do.

    Args:
      context: the run.
      topology: TPU slice to compute chip-hours for. "": measures the speed of the devices at hand.

    Raises:
      SteError: what would also end the run: an invalid file or setting, or no instruction that is left.
    """
    config = context.config
    preview = select.preview(context)
    speed = None if topology else measure(context, preview.kept)
    lengths = _lengths(context, preview.kept, speed)
    judge_prompt = speed.judge_prompt_tokens if speed else None
    work = run_work(config, lengths, kept=KEPT, instructions=len(preview.kept), judge_prompt=judge_prompt)
    prompt = _prompt(context, preview.kept[0], speed)
    validation, tested = labelled_halves(config.seed, config.labelled_pairs, context.named)
    return DryRun(
        read=preview.read,
        columns_left_out=preview.columns_left_out,
        funnel=preview.funnel,
        selected=min(config.select.size, len(preview.kept)),
        labelled=(len(validation), len(tested)),
        work=work,
        prompt=context.seed_model.tokenizer.decode(prompt, control=True),
        prompt_tokens=len(prompt),
        speed=speed,
        hours=_hours(context, topology, lengths),
    )


def _hours(context: Context, topology: str, lengths: Lengths) -> list[StageHours]:
    if not topology:
        return []
    cfg = context.seed_model.architecture
    return stage_hours(context.config, cfg, parse_topology(topology), lengths, KEPT)


def _lengths(context: Context, kept: list[Instruction], speed: Speed | None) -> Lengths:
    """Returns mean lengths: those of the instructions are counted, others are measured or assumed."""
    tokenizer = context.seed_model.tokenizer
    counted: dict[str, Any] = {
        "instruction": sum(len(tokenizer.encode_plain(i.whole)) for i in kept) // len(kept)
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


def _prompt(context: Context, instruction: Instruction, speed: Speed | None) -> tuple[int, ...]:
    """Returns the tokens of the judge prompt of an instruction, with measured or with stated responses."""
    made = list(speed.responses.values()) if speed else []
    first, second = made[:2] if len(made) > 1 else ("(the first response)", "(the second response)")
    comparison = Comparison(
        id=instruction.id,
        instruction=instruction.text,
        response_a=instruction.response or first,
        response_b=second,
        reference=instruction.reference,
        texts=instruction.texts,
    )
    return JudgingProtocol(context.judging, context.seed_model.tokenizer).prompt_ids(comparison, "as_given")
