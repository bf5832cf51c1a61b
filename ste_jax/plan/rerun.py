"""Cost of a whole run: chip-hours of each stage, from the counts of the configuration and mean lengths."""

import dataclasses
import math

from ste_jax.config import PairMode, PairsConfig, RunConfig
from ste_jax.evaluation.probes.probe import PROBE_KINDS
from ste_jax.models.llama import LlamaConfig
from ste_jax.pairs.kinds import KINDS
from ste_jax.pairs.splits import labelled_halves
from ste_jax.plan.assumptions import Lengths
from ste_jax.plan.cost import prefill_cost, train_cost
from ste_jax.plan.phases import decode_cost, engine_shape, phase_mesh
from ste_jax.plan.topology import Topology
from ste_jax.sharding import AnyMesh
from ste_jax.training.settings import TrainSettings


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
    config: RunConfig, cfg: LlamaConfig, topology: Topology, lengths: Lengths, kept: float
) -> list[StageHours]:
    """Returns the stages of a run in order.

    Args:
      config: configuration of the run; an unbounded `select.pool` counts as `select.size`.
      cfg: the model.
      topology: slice that all stages run on.
      lengths: mean numbers of tokens.
      kept: share of the pairs and orders that give a training example. The same share is assumed to give a
        preference, which also needs a wrong judgment.
    """
    mesh = phase_mesh("decode", config, topology)
    size, models = config.select.size, config.iterations + 1
    pairs = _pairs_of(config.pairs, size) - config.held_out
    anchors, labelled = map(len, labelled_halves(config.seed, config.labelled_pairs))
    validation = anchors or config.pairs.validation
    pool = (config.select.pool or size) if config.select.categories else 0
    judged, new = lengths.judge_prompt, lengths.judgment
    examples = round(pairs * 2 * config.annotate.max_per_example * kept)
    trained, checks = _trainings(config, cfg, topology, lengths, examples)

    def generate(stage: str, prompts: int, samples: int, prompt: int, tokens: int) -> StageHours:
        return _generation(
            config, cfg, topology, mesh, StageHours(stage, 0.0, prompts, samples, tokens), prompt
        )

    plain, templated = lengths.instruction, lengths.template + lengths.instruction
    # (tokens of the prompt, tokens of the answer) of every call.
    answer, worse = (plain, lengths.response), (templated + lengths.response, lengths.response)
    calls: dict[PairMode, list[tuple[int, int]]] = {
        "modified": [(templated, lengths.instruction), answer],
        "modified_one_call": [(worse[0], lengths.instruction + lengths.response)],
        "degraded": [worse],
        "high_temperature": [answer],
        "constraint": [answer],
    }
    made = [answer, *(call for mode in config.pairs.modes for call in calls.get(mode, []))]
    stages = [generate("select", pool, 1, templated, config.select.max_new_tokens)]
    stages += [generate("pairs", size, 1, *call) for call in made]
    stages += [
        generate("annotate", config.iterations * pairs * 2, config.annotate.samples, judged, new),
        *trained,
        generate("validate", config.iterations * checks * validation * 2, 1, judged, new),
        generate("evaluate", models * config.pairs.test * 2, 1 + config.evaluate.votes, judged, new),
        generate("evaluate", models * labelled * 2, 1, judged, new),
        generate("evaluate", models * _probes(config) * 2, 1, judged, new),
    ]
    return _merged(stages)


def _pairs_of(settings: PairsConfig, instructions: int) -> int:
    """Returns how many pairs are made of so many instructions, at most.

    Kinds that a model answers for have one pair for each instruction; other kinds have as many as a mixture
    needs of them.
    """
    shares = settings.shares_of("train")
    if not shares:
        return instructions * len(settings.modes_of("train"))
    largest = max((share for mode, share in shares.items() if mode in KINDS), default=max(shares.values()))
    return round(instructions * sum(shares.values()) / largest)


def _probes(config: RunConfig) -> int:
    """Returns the number of altered pairs that each model judges."""
    return len(PROBE_KINDS) * min(config.evaluate.probes, config.pairs.test)


def _generation(
    config: RunConfig,
    cfg: LlamaConfig,
    topology: Topology,
    mesh: AnyMesh,
    work: StageHours,
    prompt: int,
) -> StageHours:
    shape = engine_shape(config, cfg, mesh, prompt, work.samples, work.tokens)
    bucket = shape.buckets[-1]
    rows = shape.rows(bucket)
    read = prefill_cost(cfg, topology, dict(mesh.shape), rows, bucket)
    step = decode_cost(cfg, topology, dict(mesh.shape), shape, prompt, work.tokens // 2)
    tokens = work.prompts * work.samples * work.tokens
    seconds = work.prompts / rows * read.expected_s + tokens / step.tokens * step.expected_s
    return dataclasses.replace(work, chip_hours=seconds * topology.chips / 3600, tokens=tokens)


def _trainings(
    config: RunConfig, cfg: LlamaConfig, topology: Topology, lengths: Lengths, examples: int
) -> tuple[list[StageHours], int]:
    """Returns the training stages, and the maximum number of validations per iteration."""
    stages, checks = [], 0
    for stage, settings in config.trainings.items():
        mesh = dict(phase_mesh(settings.objective, config, topology).shape)
        batches = _batches(settings, lengths, examples)
        steps = settings.steps(batches)
        step = train_cost(cfg, topology, mesh, settings, lengths.target_share)
        seconds = steps * step.expected_s
        if settings.objective == "dpo":  # reference log-probabilities of every row
            read = prefill_cost(cfg, topology, mesh, settings.batch_rows, settings.row_length)
            seconds += batches * read.expected_s
        hours = config.iterations * seconds * topology.chips / 3600
        stages.append(StageHours(stage, hours, 0, 0, config.iterations * steps * step.tokens))
        checks += sum(settings.evaluates_after(step, batches) for step in range(1, steps + 1))
    return stages, checks


def _batches(settings: TrainSettings, lengths: Lengths, examples: int) -> int:
    """Returns the number of batches per epoch; an example of preferences is two judgments of one prompt."""
    sequences = examples * (2 if settings.objective == "dpo" else 1)
    rows = math.ceil(sequences * (lengths.judge_prompt + lengths.judgment) / settings.row_length)
    return math.ceil(rows / settings.batch_rows)


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
