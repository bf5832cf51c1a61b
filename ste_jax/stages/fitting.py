"""A training on the judgments of an iteration, which the stages `train` and `prefer` share.

Its folder holds the records (the examples of the objective), the metrics, and during training the
checkpoints and `best-N`, the model of the step N with the best held-out pairwise accuracy.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import jax
from etils import epath

from ste_jax.checkpoint.card import ModelCard
from ste_jax.checkpoint.folder import save_model
from ste_jax.checkpoint.orbax import TrainCheckpoints
from ste_jax.checkpoint.source import ModelSource, is_hub_name
from ste_jax.decode.resharding import reshard_model
from ste_jax.distributed import monitor, process
from ste_jax.errors import SteError
from ste_jax.judging.protocol import JudgingProtocol
from ste_jax.judging.selection import pair_with_rejected, yield_report
from ste_jax.judging.validation import validation_accuracy
from ste_jax.judging.verdict import PARSER
from ste_jax.models.llama import Llama
from ste_jax.pairs.splits import Splits
from ste_jax.pairs.used import text_hashes
from ste_jax.progress import Progress
from ste_jax.randomness import generator
from ste_jax.records import Comparison, Judgment, PairwiseExample, PreferenceExample, TrainingExample
from ste_jax.sharding import TRAIN
from ste_jax.stages.context import Context
from ste_jax.stages.examples import (
    ExampleBuilder,
    StoredExamples,
    select,
    store_pairwise_examples,
    store_preference_examples,
    store_training_examples,
)
from ste_jax.stages.pair_inputs import scored_digest
from ste_jax.storage.files import matching, remove
from ste_jax.storage.record_set import RecordSet
from ste_jax.storage.sink import Work
from ste_jax.storage.success import read_success, require_success
from ste_jax.training.batch import Batches
from ste_jax.training.loop import TrainResult, train
from ste_jax.training.lora import add_lora
from ste_jax.training.metrics import MetricsLog
from ste_jax.training.pairwise import PairwiseBatches
from ste_jax.training.preference import PreferenceBatches
from ste_jax.training.settings import Objective, TrainSettings
from ste_jax.training.step import reference_log_probs

_EXAMPLES: dict[Objective, type[TrainingExample | PreferenceExample | PairwiseExample]] = {
    "sft": TrainingExample,
    "dpo": PreferenceExample,
    "pairwise": PairwiseExample,
}


class _StepProgress:
    """Reports the steps of training on the terminal and, for `ste status`, in the record set."""

    def __init__(self, progress: Progress, records: RecordSet):
        self._progress, self._records = progress, records

    def advance(self, records: int = 0, tokens: int = 0) -> None:
        self._progress.advance(records, tokens)
        if process.is_process_zero():
            self._records.work.done += records
            self._records.flush()


@dataclasses.dataclass(frozen=True)
class Training:
    """One training of an iteration.

    Attributes:
      context: Run that it belongs to.
      iteration: Number of the iteration.
      stage: "train" or "prefer".
      settings: Settings of the training.
      source: Model that it starts from.
    """

    context: Context
    iteration: int
    stage: str
    settings: TrainSettings
    source: ModelSource

    @property
    def folder(self) -> epath.Path:
        """Folder of its records and checkpoints."""
        return self.context.iteration(self.iteration) / self.stage


def fit(training: Training, judgments: Sequence[Judgment], splits: Splits) -> None:
    """Does a training, unless it is done: its records, and `iteration_k/model`.

    Args:
      training: The training.
      judgments: Judgments of the iteration; they are iterated over and may be on disk.
      splits: Pairs of training and validation.

    Raises:
      SteError: "no_training_data" if no judgment was selected; everything made so far stays.
    """
    context, iteration, settings = training.context, training.iteration, training.settings
    records = RecordSet(
        training.folder, _EXAMPLES[settings.objective], _fingerprint(training, splits), divided=True
    )
    if read_success(training.folder):
        _publish_model(training.folder)
        return
    protocol = JudgingProtocol(context.judging, training.source.tokenizer)
    too_long = _too_long(training, protocol, splits.validation)
    selected = select(context, judgments, splits.train)
    if not selected:
        raise SteError("no_training_data", _why_nothing(iteration, judgments))
    context.release()
    batches, ids, left_out = _batches(training, splits, selected, judgments, records)
    _set_work(records, total=batches.total_steps)
    result = _train(training, batches, protocol, splits.validation, records)
    _require_best(training.folder, result.best_step)
    tokens = batches.packing.tokens * result.steps // batches.steps_per_epoch
    _set_work(records, total=batches.total_steps, done=len(ids), prompt_tokens=tokens)
    summary = _summary(iteration, settings.epochs, batches, result) | left_out
    summary["validation_too_long"] = len(too_long)
    # Of this selection: the settings of the selection may have changed since the judgments were made.
    report = yield_report(judgments, selected, splits.train, both_orders=context.config.annotate.both_orders)
    summary["yield"] = report.to_json()
    records.finish(ids, summary)
    _publish_model(training.folder)


def _batches(
    training: Training,
    splits: Splits,
    selected: Sequence[Judgment],
    judgments: Sequence[Judgment],
    records: RecordSet,
) -> tuple[Batches, Sequence[str], dict[str, int]]:
    """Stores the examples of a training, of the kind that its method needs.

    Returns:
      Their batches, their ids in order, and how many of the selected judgments are left out, by reason.
    """
    settings, seed, iteration = training.settings, training.context.config.seed, training.iteration
    builder = ExampleBuilder(training.context, training.source, splits.train)
    if settings.objective == "sft":
        examples = store_training_examples(builder, selected, records)
        return Batches(examples, settings, seed, iteration), examples.ids, {}
    if settings.objective == "pairwise":
        labelled = store_pairwise_examples(builder, splits.train, records)
        return PairwiseBatches(labelled, settings, seed, iteration), labelled.ids, {}
    matched = pair_with_rejected(selected, judgments, seed=seed)
    preferences = _preferences(training, builder, matched.pairs, records)
    left_out = {"without_wrong": matched.without_wrong, "unbalanced": matched.unbalanced}
    return PreferenceBatches(preferences, settings, seed, iteration), preferences.ids, left_out


def _set_work(records: RecordSet, **counts: int) -> None:
    """Sets the progress of a training: that of process zero, since all processes do the same steps."""
    values = counts if process.is_process_zero() else {}
    records.work = Work(seconds=records.work.seconds, **values)


def _fingerprint(training: Training, splits: Splits) -> dict:
    context = training.context
    return context.fingerprint(
        training.stage,
        judgments=require_success(context.iteration(training.iteration) / "annotate").content_hash,
        model=training.source.digest(),
        prompt=context.prompt.digest(),
        validation=scored_digest(
            training.folder, splits.validation, by_kind=training.settings.choose_by == "worst_kind"
        ),
    )


def _too_long(training: Training, protocol: JudgingProtocol, validation: list[Comparison]) -> list[str]:
    """Returns the ids of the validation pairs that do not fit, by which no checkpoint is measured.

    Raises:
      SteError: "data_unusable" if none fits.
    """
    limits = training.context.config.decode.limits(training.source.architecture.context_length)
    too_long = [pair.id for pair in validation if protocol.prompts(pair, limits) is None]
    if validation and len(too_long) == len(validation):
        raise SteError(
            "data_unusable",
            f"{training.folder}: none of the {len(validation)} validation pairs fits decode.buckets and the "
            "model's context, so no checkpoint can be chosen by them; raise decode.buckets, lower "
            "annotate.max_new_tokens, or hold out shorter pairs",
        )
    return too_long


def _best(folder: epath.Path, step: int) -> epath.Path:
    return folder / f"best-{step}"


def _require_best(folder: epath.Path, step: int) -> None:
    if not _best(folder, step).exists():
        raise SteError(
            "model_not_found",
            f"{_best(folder, step)} is missing: training resumed from a later checkpoint than that of its "
            f"best model; pass --redo={folder.parent.name}/{folder.name} to train again",
        )


def _publish_model(folder: epath.Path) -> None:
    """Moves the best model to `iteration_k/model`, and removes the checkpoints.

    Only after SUCCESS: no other stage uses the model of an unfinished training, and no training can resume
    from half a checkpoint.
    """

    def move() -> None:
        for best in matching(folder, "best-*"):  # one, or none if an earlier process was killed after this
            remove(folder.parent / "model")
            best.rename(folder.parent / "model")
        if (folder / "checkpoints").exists():
            (folder / "checkpoints").rmtree()

    process.on_process_zero(move)


def _preferences(
    training: Training,
    builder: ExampleBuilder,
    matched: Sequence[tuple[Judgment, Judgment]],
    records: RecordSet[PreferenceExample],
) -> StoredExamples[PreferenceExample]:
    """Returns the examples with the log-probabilities of the starting model, computed and stored once."""
    context, settings = training.context, training.settings
    if not matched:
        raise SteError(
            "no_training_data",
            f"iteration {training.iteration}: no pairs were judged both correctly and wrongly in one order, "
            "with A and with B as the right verdict, so there is nothing to prefer. To fix this: more "
            "annotate.samples or pairs, or fine-tuning alone "
            '(prefer.epochs=0, train.objective="sft")',
        )
    ids = [chosen.id for chosen, _ in matched]
    if not all(records.is_done(id_) for id_ in ids):
        folder = training.folder / "unscored"
        unscored = RecordSet(folder, PreferenceExample, {"stage": training.stage}, divided=True)
        examples = store_preference_examples(builder, matched, unscored)
        batches = PreferenceBatches(examples, settings, context.config.seed, training.iteration)
        mesh = context.train_mesh
        model = training.source.load(TRAIN, mesh, param_dtype=settings.model_dtype, dtype=settings.dtype)
        known = reference_log_probs(model, batches, settings, mesh)
        del model
        for index in range(process.index(), len(ids), process.count()):
            # An example that no row holds is left out of training and has none.
            scored = dataclasses.replace(examples[index], reference=known.get(ids[index], []))
            records.add(ids[index], [scored])
        records.share()
        process.on_process_zero(lambda: remove(folder))
    return StoredExamples(records, ids)


def _why_nothing(iteration: int, judgments: Iterable[Judgment]) -> str:
    verdicts = Counter((judgment.verdict, judgment.correct) for judgment in judgments)
    unparsed = verdicts[None, False] + verdicts[None, True]
    return (
        f"iteration {iteration}: none of {verdicts.total()} judgments can be trained on. Correct ones: "
        f"{verdicts['A', True]} with verdict A, {verdicts['B', True]} with verdict B (both are needed, to "
        f"balance them); without a verdict: {unparsed}. All are kept in annotate/. To fix this: more "
        "annotate.samples, more pairs, annotate.force_verdict=True for a model that does not follow the "
        "format, or a stronger seed model"
    )


def _card(training: Training, validation: Sequence[Comparison]) -> ModelCard:
    """Returns the card of the model, which records how the judge is trained to answer."""
    context, source = training.context, training.source
    config = context.config
    chosen_by = text_hashes(validation) if config.labelled_pairs else ()
    inherited = source.card.chosen_by if source.card else ()
    return ModelCard(
        name=f"{config.name}-iteration-{training.iteration}",
        architecture=source.architecture,
        tokenizer_hash=source.tokenizer.fingerprint(),
        stop_ids=source.tokenizer.stop_ids,
        parent=source.digest(),
        judge_prompt=context.prompt.to_json(),
        parser=PARSER,
        max_new_tokens=config.annotate.max_new_tokens,
        force_verdict=config.annotate.force_verdict,
        dtype=config.decode.dtype,
        chosen_by=tuple(sorted({*chosen_by, *inherited})),
        base_model=_base_model(training),
    )


def _base_model(training: Training) -> str:
    """Returns the name of the model that the first iteration started from."""
    source, model = training.source, training.context.config.model
    known = source.card.base_model if source.card else None
    return known or (model if is_hub_name(model) else source.name)


def _train(
    training: Training,
    batches: Batches,
    protocol: JudgingProtocol,
    validation: list[Comparison],
    records: RecordSet,
) -> TrainResult:
    context, iteration, source = training.context, training.iteration, training.source
    config, settings, folder = context.config, training.settings, training.folder
    card = _card(training, validation)

    def accuracy(model: Llama, step: int) -> float:
        decoding = reshard_model(model, context.mesh, config.decode.dtype)
        engine = context.engine_of(decoding, source)
        return validation_accuracy(protocol, engine, validation, settings.choose_by)

    def save(model: Llama, step: int) -> None:
        dtype, best = config.model_dtype or config.decode.dtype, _best(folder, step)
        stop_requested = partial(monitor.stop_requested_anywhere, context.train_mesh)
        save_model(Path(best), model, card, source.tokenizer, dtype, stop_requested)
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
    if process.is_process_zero():
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
