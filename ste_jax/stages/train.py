"""Stage 4, `ste train`: supervised fine-tuning on the kept judgments, from the seed model (the paper,
section 3.4), or preference optimization of them against wrong ones.

Reads `iteration_k/annotate`, writes `iteration_k/train` (records: TrainingExample or PreferenceExample;
metrics; while it runs, checkpoints and `best-N`, the model of the step N with the best held-out pairwise
accuracy) and at its end that model as `iteration_k/model`.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import jax
from etils import epath

from ste_jax.checkpoint.card import ModelCard
from ste_jax.checkpoint.folder import save_model
from ste_jax.checkpoint.orbax import TrainCheckpoints
from ste_jax.checkpoint.source import ModelSource
from ste_jax.decode.engine import Engine
from ste_jax.decode.protocol import GREEDY
from ste_jax.decode.resharding import reshard_model
from ste_jax.distributed import monitor, preemption, process
from ste_jax.judging.decision import results_of
from ste_jax.judging.protocol import JudgingProtocol
from ste_jax.judging.selection import (
    pair_with_rejected,
    select_for_training,
    yield_report,
)
from ste_jax.judging.stream import StreamSettings, judge_stream
from ste_jax.judging.verdict import PARSER
from ste_jax.metrics.stats import WRONG, pooled_score
from ste_jax.models.llama import Llama
from ste_jax.pairs.splits import Splits
from ste_jax.progress import Progress
from ste_jax.randomness import generator
from ste_jax.records import Comparison, Judgment, PreferenceExample, TrainingExample
from ste_jax.sharding import TRAIN
from ste_jax.stages.context import Context
from ste_jax.stages.examples import preference_examples, training_examples
from ste_jax.storage.files import digest, matching, remove
from ste_jax.storage.record_set import RecordSet
from ste_jax.storage.success import read_success, require_success
from ste_jax.training.batch import Batches
from ste_jax.training.loop import TrainResult, train
from ste_jax.training.lora import add_lora
from ste_jax.training.metrics import MetricsLog
from ste_jax.training.preference import PreferenceBatches
from ste_jax.training.settings import TrainSettings
from ste_jax.training.step import check_attention, check_rows, reference_log_probs


class _StepProgress:
    """Tells the terminal and the record set, which `ste status` reads, how far training is."""

    def __init__(self, progress: Progress, records: RecordSet):
        self._progress, self._records = progress, records

    def advance(self, records: int = 0, tokens: int = 0) -> None:
        self._progress.advance(records, tokens)
        self._records.work.done += records
        self._records.flush()


class NothingToLearn(ValueError):
    """An iteration has no correct judgment to train on."""


def check(context: Context) -> None:
    """Refuses what training would refuse after hours of sampling.

    Raises:
      ValueError: the devices cannot share the rows, or not run the kernel.
    """
    mesh = context.train_mesh
    for settings in context.config.trainings.values():
        check_rows(settings, TRAIN, mesh.shape)
        check_attention(settings, mesh)


@dataclasses.dataclass(frozen=True)
class Training:
    """One training of an iteration: its stage, what it does, and the model that it starts from."""

    context: Context
    iteration: int
    stage: str
    settings: TrainSettings
    source: ModelSource

    @property
    def folder(self) -> epath.Path:
        """Where its records and checkpoints are."""
        return self.context.iteration(self.iteration) / self.stage


def run(context: Context, iteration: int, judgments: Sequence[Judgment], splits: Splits) -> None:
    """Trains the model of an iteration, unless it is there already.

    Raises:
      NothingToLearn: no judgment was kept; everything made so far stays.
    """
    config = context.config
    source = context.model(0 if config.train_from == "seed" else iteration - 1)
    fit(Training(context, iteration, "train", config.train, source), judgments, splits)


def fit(training: Training, judgments: Sequence[Judgment], splits: Splits) -> None:
    """Does a training, unless it is done: its records, and the model of the iteration; see `run`."""
    context, iteration, settings = training.context, training.iteration, training.settings
    preferring = settings.method == "dpo"
    kind = PreferenceExample if preferring else TrainingExample
    records = RecordSet(training.folder, kind, _fingerprint(training, splits))
    if read_success(training.folder):
        _publish_model(training.folder)
        return
    protocol = JudgingProtocol(context.judging, training.source.tokenizer)
    too_long = _too_long(training, protocol, splits.validation)
    chosen = select_for_training(judgments, splits.train, seed=context.config.seed, **context.selection)
    if not chosen:
        raise NothingToLearn(_why_nothing(iteration, judgments))
    context.release()
    if preferring:
        matched = pair_with_rejected(chosen, judgments, seed=context.config.seed)
        examples = _preferences(training, matched.pairs, splits.train, records)
        left_out = {"without_wrong": matched.without_wrong, "unbalanced": matched.unbalanced}
        batches = PreferenceBatches(examples, settings, context.config.seed, iteration)
    else:
        examples = training_examples(context, training.source, chosen, splits.train)
        batches, left_out = Batches(examples, settings, context.config.seed, iteration), {}
    records.work.total = batches.total_steps
    result = _train(training, batches, protocol, splits.validation, records)
    _require_best(training.folder, result.best_step)
    records.work.done = 0
    for example in examples:
        records.add(example.id, [example])
    records.work.prompt_tokens = batches.packing.tokens * result.steps // batches.steps_per_epoch
    summary = _summary(iteration, settings.epochs, batches, result) | left_out
    summary["validation_too_long"] = len(too_long)
    # As it was chosen here: settings that choose may have changed since the judgments were made.
    report = yield_report(judgments, chosen, splits.train, both_orders=context.config.annotate.both_orders)
    summary["yield"] = report.to_json()
    records.finish([e.id for e in examples], summary)
    _publish_model(training.folder)


def _fingerprint(training: Training, splits: Splits) -> dict:
    context = training.context
    return context.fingerprint(
        training.stage,
        judgments=require_success(context.iteration(training.iteration) / "annotate").content_hash,
        model=training.source.digest(),
        prompt=context.prompt.digest(),
        validation=digest([pair.to_json() for pair in splits.validation]),
    )


def _too_long(training: Training, protocol: JudgingProtocol, validation: list[Comparison]) -> list[str]:
    """Returns the validation pairs that no checkpoint will be measured by.

    Raises:
      ValueError: they are all of them.
    """
    limits = training.context.config.decode.limits(training.source.architecture.context_length)
    too_long = [pair.id for pair in validation if protocol.prompts(pair, limits) is None]
    if validation and len(too_long) == len(validation):
        raise ValueError(
            f"{training.folder}: none of the {len(validation)} validation pairs fits decode.buckets and the "
            "model's context, so no checkpoint can be chosen by them; raise decode.buckets, lower "
            "annotate.max_new_tokens, or hold out shorter pairs"
        )
    return too_long


def _best(folder: epath.Path, step: int) -> epath.Path:
    return folder / f"best-{step}"


def _require_best(folder: epath.Path, step: int) -> None:
    if not _best(folder, step).exists():
        raise ValueError(
            f"{_best(folder, step)} is missing: a checkpoint from before it was gone back to; pass "
            f"--redo={folder.parent.name}/{folder.name} to train again"
        )


def _publish_model(folder: epath.Path) -> None:
    """Makes the best model that of the iteration, and removes the optimizer's state.

    After SUCCESS only: no other stage takes the model of a training that is not finished, and nobody can go
    on from half of a checkpoint.
    """

    def move() -> None:
        for best in matching(folder, "best-*"):  # one, or none where a killed process came as far as here
            remove(folder.parent / "model")
            best.rename(folder.parent / "model")
        if (folder / "checkpoints").exists():
            (folder / "checkpoints").rmtree()

    process.on_process_zero(move)


def _preferences(
    training: Training,
    matched: Sequence[tuple[Judgment, Judgment]],
    pairs: Sequence[Comparison],
    records: RecordSet,
) -> list[PreferenceExample]:
    """Returns the examples with the starting model's log-probabilities, which are made and stored once."""
    context, settings, source = training.context, training.settings, training.source
    if not matched:
        raise NothingToLearn(
            f"iteration {training.iteration}: no pairs were judged both correctly and wrongly in one order, "
            "with A and with B as the right verdict, so there is nothing to prefer. Mend: more "
            "annotate.samples or pairs, or fine-tuning alone "
            '(prefer.epochs=0, train.method="sft")'
        )
    if all(records.is_done(good.id) for good, _ in matched):
        return [example for good, _ in matched for example in records.read(good.id)]
    examples = preference_examples(context, source, matched, pairs)
    batches = PreferenceBatches(examples, settings, context.config.seed, training.iteration)
    mesh = context.train_mesh
    model = source.load(TRAIN, mesh, param_dtype=settings.model_dtype, dtype=settings.dtype)
    known = reference_log_probs(model, batches, settings, mesh)
    # An example that no row holds is left out of training and has none.
    examples = [dataclasses.replace(e, reference=known.get(e.id, [])) for e in examples]
    for example in examples:
        records.add(example.id, [example])
    records.flush()
    return examples


def _why_nothing(iteration: int, judgments: Sequence[Judgment]) -> str:
    verdicts = {v: sum(j.verdict == v for j in judgments) for v in ("A", "B", None)}
    correct = {v: sum(j.verdict == v and j.correct for j in judgments) for v in ("A", "B")}
    return (
        f"iteration {iteration}: none of {len(judgments)} judgments can be trained on. Correct ones: "
        f"{correct['A']} that "
        f"say A, {correct['B']} that say B (both are needed, to balance them); without a verdict: "
        f"{verdicts[None]}. "
        "All are kept in annotate/. Mend: more annotate.samples, more pairs, "
        "annotate.force_verdict=True for a model "
        "that does not follow the format, or a stronger seed model"
    )


def _train(
    training: Training,
    batches: Batches,
    protocol: JudgingProtocol,
    validation: list[Comparison],
    records: RecordSet,
) -> TrainResult:
    context, iteration, source = training.context, training.iteration, training.source
    config, settings, folder = context.config, training.settings, training.folder
    card = ModelCard(
        name=f"{config.name}-iteration-{iteration}",
        architecture=source.architecture,
        tokenizer_hash=source.tokenizer.fingerprint(),
        stop_ids=source.tokenizer.stop_ids,
        parent=source.digest(),
        judge_prompt=context.prompt.to_json(),
        parser=PARSER,
        max_new_tokens=config.annotate.max_new_tokens,
        force_verdict=config.annotate.force_verdict,
        dtype=config.decode.dtype,
    )

    def accuracy(model: Llama, step: int) -> float:
        decoding = reshard_model(model, context.mesh, config.decode.dtype)
        engine = context.engine_of(decoding, source)
        return validation_accuracy(protocol, engine, validation, settings.choose_by)

    def save(model: Llama, step: int) -> None:
        dtype, best = config.model_dtype or config.decode.dtype, _best(folder, step)
        save_model(Path(best), model, card, source.tokenizer, dtype)
        process.on_process_zero(
            lambda: [remove(old) for old in matching(folder, "best-*") if old.name != best.name]
        )

    def load() -> Llama:
        dtypes = {"param_dtype": settings.model_dtype, "dtype": settings.dtype}
        draw = int(generator(config.seed, "adapters", iteration).integers(2**31))
        model = source.load(TRAIN, context.train_mesh, **dtypes)
        return add_lora(model, settings, jax.random.key(draw))

    checkpoints = TrainCheckpoints(folder / "checkpoints", settings.keep_checkpoints)
    metrics = MetricsLog(Path(folder))
    records.work.done = checkpoints.latest_step() or 0
    with Progress(
        f"{training.stage} {iteration}", batches.total_steps, records.work.done, unit="step"
    ) as progress:
        try:
            return train(
                load,
                source.architecture,
                batches,
                settings,
                rules=TRAIN,
                mesh=context.train_mesh,
                checkpoints=checkpoints,
                evaluate=accuracy if validation else None,
                save_best=save,
                metrics=metrics,
                progress=_StepProgress(progress, records),
            )
        finally:
            metrics.close()
            checkpoints.close()


def validation_accuracy(
    protocol: JudgingProtocol,
    engine: Engine,
    validation: list[Comparison],
    choose_by: Literal["accuracy", "accuracy_pooled"],
) -> float:
    """Returns the accuracy of a model on the validation pairs, of all processes together.

    Args:
      protocol: prompt and parser.
      engine: engine of the model.
      validation: pairs with a better response.
      choose_by: "accuracy" of the single verdicts, or "accuracy_pooled" over both orders.

    Raises:
      StopRequested: a stop was requested; every process raises it.
    """

    def check_stop(_: int) -> None:
        if monitor.stop_requested_anywhere(engine.replica_group.mesh):
            raise preemption.StopRequested

    judging = StreamSettings(stage="validate", samples=1, sampling=GREEDY)
    judgments, stopped = [], False
    try:
        for item in judge_stream(protocol, engine, validation, judging, on_tokens=check_stop):
            if item.error is not None:
                raise item.error
            judgments += item.judgments
    except preemption.StopRequested:
        stopped = True
    if not engine.replica_group.is_leader:
        judgments = []
    if choose_by == "accuracy":
        scores = [float(bool(judgment.correct)) for judgment in judgments]
    else:
        scores = [pooled_score(r, WRONG) for r in results_of(validation, judgments, seed=0)]
    # All processes take part in the exchange, so that none of them waits for one that stopped.
    counts = process.exchange([sum(scores), len(scores), stopped])
    total, number, stops = map(sum, zip(*counts, strict=True))
    if stops:
        raise preemption.StopRequested
    return total / number


def _summary(iteration: int, epochs: float, batches: Batches, result: TrainResult) -> dict:
    packing = batches.packing
    return {
        "iteration": iteration,
        "examples": packing.examples,
        "left_out": packing.left_out,
        "epochs": epochs,
        "tokens": packing.tokens,
        "target_tokens": packing.target_tokens,
        "padding": packing.padding,
        "total_steps": result.steps,
        "planned_steps": batches.total_steps,
        "evaluations": [
            {"step": step, "accuracy": value, "chosen": step == result.best_step}
            for step, value in result.evaluations
        ],
    }
