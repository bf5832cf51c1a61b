"""Cost of a whole run: chip-hours of each stage, from the counts of the configuration and mean lengths."""

import dataclasses

from ste_jax.config import RunConfig
from ste_jax.models.llama import LlamaConfig
from ste_jax.plan.assumptions import Lengths
from ste_jax.plan.cost import prefill_cost, train_cost
from ste_jax.plan.phases import decode_cost, engine_shape, phase_mesh
from ste_jax.plan.topology import Topology
from ste_jax.plan.work import Calls, RunWork, TrainingWork
from ste_jax.sharding import AnyMesh


@dataclasses.dataclass(frozen=True)
class StageHours:
    """Chip-hours, prompts, samples and tokens of a stage, summed over all iterations.

    Loading, compiling, saving and idle slots at the end of a bucket are not included.
    """

    stage: str
    chip_hours: float
    prompts: int
    samples: int
    tokens: int


def stage_hours(
    config: RunConfig, cfg: LlamaConfig, topology: Topology, lengths: Lengths, work: RunWork
) -> list[StageHours]:
    """Returns the stages of a run in order.

    Args:
      config: configuration of the run.
      cfg: the model.
      topology: slice that all stages run on.
      lengths: mean numbers of tokens.
      work: calls and steps of the run.
    """
    mesh = phase_mesh("decode", config, topology)
    stages = [_generation(config, cfg, topology, mesh, calls) for calls in work.calls]
    trained = [_training(config, cfg, topology, lengths, training) for training in work.trainings]
    before = [stage for stage in stages if stage.stage in ("select", "pairs", "annotate")]
    return _merged([*before, *trained, *stages[len(before) :]])


def _generation(
    config: RunConfig, cfg: LlamaConfig, topology: Topology, mesh: AnyMesh, calls: Calls
) -> StageHours:
    shape = engine_shape(config, cfg, mesh, calls.prompt_tokens, calls.samples, calls.new_tokens)
    bucket = shape.buckets[-1]
    rows = shape.rows(bucket)
    read = prefill_cost(cfg, topology, dict(mesh.shape), rows, bucket)
    step = decode_cost(cfg, topology, dict(mesh.shape), shape, calls.prompt_tokens, calls.new_tokens // 2)
    tokens = calls.prompts * calls.samples * calls.new_tokens
    seconds = calls.prompts / rows * read.expected_s + tokens / step.tokens * step.expected_s
    return StageHours(calls.stage, seconds * topology.chips / 3600, calls.prompts, calls.samples, tokens)


def _training(
    config: RunConfig, cfg: LlamaConfig, topology: Topology, lengths: Lengths, work: TrainingWork
) -> StageHours:
    settings = work.settings
    mesh = dict(phase_mesh(settings.objective, config, topology).shape)
    step = train_cost(cfg, topology, mesh, settings, lengths.target_share)
    seconds = work.steps * step.expected_s
    if settings.objective == "dpo":  # reference log-probabilities of every row
        read = prefill_cost(cfg, topology, mesh, settings.batch_rows, settings.row_length)
        seconds += work.batches * read.expected_s
    hours = config.iterations * seconds * topology.chips / 3600
    return StageHours(work.stage, hours, 0, 0, config.iterations * work.steps * step.tokens)


def _merged(stages: list[StageHours]) -> list[StageHours]:
    """Returns the stages with their calls added up."""
    merged: dict[str, StageHours] = {}
    for call in stages:
        if before := merged.get(call.stage):
            call = StageHours(
                call.stage,
                before.chip_hours + call.chip_hours,
                before.prompts + call.prompts,
                max(before.samples, call.samples),
                before.tokens + call.tokens,
            )
        merged[call.stage] = call
    return [stage for stage in merged.values() if stage.tokens]
