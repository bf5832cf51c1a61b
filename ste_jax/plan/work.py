"""What a run does: the model calls and the training steps of each stage, from counts and mean lengths."""

import dataclasses
import math

from ste_jax.config import PairMode, PairsConfig, RunConfig
from ste_jax.evaluation.probes.probe import PROBE_KINDS
from ste_jax.pairs.certain import OF_TWO_ANSWERS
from ste_jax.pairs.kinds import KINDS
from ste_jax.pairs.splits import labelled_halves
from ste_jax.plan.assumptions import Lengths
from ste_jax.training.settings import TrainSettings


@dataclasses.dataclass(frozen=True)
class Calls:
    """Calls of a model with prompts and answers of similar length.

    Attributes:
      stage: stage of the run.
      prompts: number of prompts.
      samples: answers per prompt.
      prompt_tokens: mean tokens of a prompt.
      new_tokens: mean tokens of an answer.
    """

    stage: str
    prompts: int
    samples: int
    prompt_tokens: int
    new_tokens: int


@dataclasses.dataclass(frozen=True)
class TrainingWork:
    """Steps of a training in one iteration.

    Attributes:
      stage: stage of the run.
      settings: settings of the training.
      batches: batches per epoch.
    """

    stage: str
    settings: TrainSettings
    batches: int

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.settings.steps(self.batches)

    @property
    def validations(self) -> int:
        """Maximum number of validations."""
        steps = range(1, self.steps + 1)
        return sum(self.settings.evaluates_after(step, self.batches) for step in steps)


@dataclasses.dataclass(frozen=True)
class RunWork:
    """Work of a run.

    Attributes:
      pairs: pairs to train on, at most.
      calls: calls of each stage, over all iterations.
      trainings: trainings of one iteration.
    """

    pairs: int
    calls: tuple[Calls, ...]
    trainings: tuple[TrainingWork, ...]


def run_work(
    config: RunConfig,
    lengths: Lengths,
    *,
    kept: float,
    instructions: int | None = None,
    judge_prompt: int | None = None,
) -> RunWork:
    """Returns the work of a run.

    Args:
      config: configuration of the run.
      lengths: mean numbers of tokens.
      kept: share of the pairs and orders that give a training example. The same share is assumed to give a
        preference, which also needs a wrong judgment.
      instructions: number of instructions that are left of those that were read. None: as many as the
        configuration selects; an unbounded `select.pool` then counts as `select.size`.
      judge_prompt: mean tokens of a judge prompt. None: those of `lengths`.
    """
    available = instructions or config.select.pool or config.select.size
    size = min(config.select.size, available)
    pool = min(config.select.pool or available, available) if config.select.categories else 0
    judged = judge_prompt or lengths.judge_prompt
    pairs = max(0, _pairs_of(config.pairs, size) - config.held_out)
    trainings = tuple(_trainings(config, pairs, judged, lengths, kept))
    calls = [
        Calls("select", pool, 1, lengths.template + lengths.instruction, config.select.max_new_tokens),
        *_answers(config, size, lengths),
        *_judgments(config, pairs, trainings, judged, lengths.judgment),
    ]
    return RunWork(pairs, tuple(call for call in calls if call.prompts), trainings)


def _answers(config: RunConfig, size: int, lengths: Lengths) -> list[Calls]:
    """Returns the calls of the stage that makes pairs."""
    plain, templated = lengths.instruction, lengths.template + lengths.instruction
    # (tokens of the prompt, tokens of the answer) of every call.
    answer, worse = (plain, lengths.response), (templated + lengths.response, lengths.response)
    calls: dict[PairMode, list[tuple[int, int]]] = {
        "modified": [(templated, lengths.instruction), answer],
        "modified_one_call": [(worse[0], lengths.instruction + lengths.response)],
        "degraded": [worse],
        "high_temperature": [answer],
    }
    better = [] if config.pairs.better_from else [answer]
    made = [*better, *(call for mode in config.pairs.modes for call in calls.get(mode, []))]
    # Kinds of two answers to an instruction take those of `high_temperature`.
    if OF_TWO_ANSWERS.intersection(config.pairs.modes) and "high_temperature" not in config.pairs.modes:
        made.append(answer)
    return [Calls("pairs", size, 1, *call) for call in made]


def _judgments(
    config: RunConfig, pairs: int, trainings: tuple[TrainingWork, ...], judged: int, new: int
) -> list[Calls]:
    """Returns the calls of annotation, validation and evaluation."""
    models, settings = config.iterations + 1, config.annotate
    anchors, labelled = map(len, labelled_halves(config.seed, config.labelled_pairs))
    validation = anchors or config.pairs.validation
    checks = sum(training.validations for training in trainings)
    annotated = min(pairs, settings.max_pairs or pairs)
    tested = config.pairs.test
    probes = len(PROBE_KINDS) * min(config.evaluate.probes, tested)
    return [
        Calls("annotate", config.iterations * annotated * 2, settings.samples, judged, new),
        Calls("validate", config.iterations * checks * validation * 2, 1, judged, new),
        Calls("evaluate", models * tested * 2, 1 + config.evaluate.votes, judged, new),
        Calls("evaluate", models * labelled * 2, 1, judged, new),
        Calls("evaluate", models * probes * 2, 1, judged, new),
    ]


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


def _trainings(
    config: RunConfig, pairs: int, judged: int, lengths: Lengths, kept: float
) -> list[TrainingWork]:
    of_judgments = round(pairs * 2 * config.annotate.max_per_example * kept)
    found = []
    for stage, settings in config.trainings.items():
        # An example of the objective "pairwise" is a pair in both orders, one of "dpo" two judgments.
        examples, sequences = (pairs, 2) if settings.objective == "pairwise" else (of_judgments, 1)
        sequences = 2 if settings.objective == "dpo" else sequences
        rows = math.ceil(examples * sequences * (judged + lengths.judgment) / settings.row_length)
        found.append(TrainingWork(stage, settings, math.ceil(rows / settings.batch_rows)))
    return found
