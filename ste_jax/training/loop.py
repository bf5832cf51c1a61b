"""The training loop: resume, update, check for divergence, evaluate, keep the best model, checkpoint."""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from ste_jax.checkpoint.orbax import TrainCheckpoints, on_mesh
from ste_jax.config_field import values_affecting
from ste_jax.distributed import monitor, preemption
from ste_jax.errors import SteError
from ste_jax.models.llama import Llama, LlamaConfig, parameter_table
from ste_jax.sharding import Rules
from ste_jax.training.batch import Batches
from ste_jax.training.lora import replace_trainable, trainable
from ste_jax.training.metrics import MetricsLog
from ste_jax.training.settings import TrainSettings
from ste_jax.training.speed import log_step
from ste_jax.training.step import (
    TrainState,
    abstract_state,
    check_rows,
    choose_attention,
    init_state,
    make_optimizer,
    put_batch,
    train_step,
)


class DivergedError(SteError):
    """The loss, the gradient or the parameters are no longer finite numbers."""


class ProgressListener(Protocol):
    """Receives the progress of a run."""

    def advance(self, records: int = 0, tokens: int = 0) -> None:
        """Adds steps and tokens that were just done."""
        ...


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """Result of a run, of which earlier processes may have done a part.

    Attributes:
      steps: Number of updates; fewer than planned if the run stopped early.
      resumed_from: Step of the checkpoint that this process resumed from (None: it started the run).
      loss: Loss of the last step (None: this process made no step).
      evaluations: (step, value) of every evaluation of the run.
      best_step: Step of the parameters that `save_best` received last (see `best_step`).
    """

    steps: int
    resumed_from: int | None
    loss: float | None
    evaluations: tuple[tuple[int, float], ...]
    best_step: int


def train(
    load_model: Callable[[], Llama],
    cfg: LlamaConfig,
    batches: Batches,
    settings: TrainSettings,
    *,
    rules: Rules,
    mesh: jax.sharding.Mesh,
    checkpoints: TrainCheckpoints,
    evaluate: Callable[[Llama, int], float] | None,
    save_best: Callable[[Llama, int], None],
    metrics: MetricsLog,
    progress: ProgressListener,
) -> TrainResult:
    """Trains until `batches.total_steps` or the end of the patience, from the latest checkpoint if any.

    Args:
      load_model: Returns the model to start from, in `settings.model_dtype` on `mesh`, with its adapters if
        any (see `training.lora`). On resume it is called for the frozen part of the model, if any.
      cfg: Architecture of the model.
      batches: Batches by step.
      settings: See `TrainSettings`.
      rules: Sharding rules of training.
      mesh: Explicit mesh; a resumed run may have another one.
      checkpoints: Checkpoints of this run alone.
      evaluate: (model, step) -> value, the higher the better. It may raise `StopRequested`, in all processes
        or in none: a resumed run then evaluates the same step first.
      save_best: Stores the parameters of a model that evaluated better than all before it, in place of those
        stored earlier. The checkpoint of the step is on disk by then. A resumed run may call it again for the
        same step. It may raise `StopRequested`, in all processes or in none.
      metrics: Receives one line per step and one per evaluation.
      progress: Receives every step and its tokens.

    Raises:
      DivergedError: "diverged": the loss, the gradient or the parameters of a step are NaN or infinite.
      SteError: "config_invalid" if the settings do not fit the mesh, "checkpoint_mismatch" if the checkpoints
        belong to a run with other settings or examples.
      StopRequested: A stop was requested; the last step is on disk.
    """
    check_rows(settings, rules, mesh.shape)
    settings = choose_attention(settings, mesh)
    run = _Run(batches, settings, rules, mesh, checkpoints, evaluate, metrics)
    with jax.set_mesh(mesh):
        run.start(load_model, cfg)
        if run.resumed_from is not None and run.is_best:
            save_best(run.state.model, run.step)  # the process may have ended between checkpoint and model
        while not run.ended:
            progress.advance(records=1, tokens=run.update())
            run.evaluate_if_due()
            run.checkpoint_if_due()
            if run.is_best:
                save_best(run.state.model, run.step)
    return TrainResult(
        run.step,
        run.resumed_from,
        run.loss,
        tuple(run.evaluations),
        best_step(run.evaluations, batches.total_steps),
    )


class _Run:
    """A run between two steps.

    Attributes:
      state: State after `step` updates.
      step: Number of updates.
      resumed_from: Step of the checkpoint that the run was resumed from, or None.
      loss: Loss of the last update, or None before the first.
      evaluations: (step, value) of every evaluation.
    """

    state: TrainState

    def __init__(
        self,
        batches: Batches,
        settings: TrainSettings,
        rules: Rules,
        mesh: jax.sharding.Mesh,
        checkpoints: TrainCheckpoints,
        evaluate: Callable[[Llama, int], float] | None,
        metrics: MetricsLog,
    ):
        self.step = 0
        self.resumed_from: int | None = None
        self.loss: float | None = None
        self.evaluations: list[tuple[int, float]] = []
        self._batches, self._settings, self._rules, self._mesh = batches, settings, rules, mesh
        self._checkpoints, self._evaluate, self._metrics = checkpoints, evaluate, metrics
        self._total, self._facts = batches.total_steps, _describe(batches, settings)
        self._arrays: dict[str, np.ndarray] = {}
        self._parameters = 0

    @property
    def ended(self) -> bool:
        """True if no update is left, or the patience has ended."""
        return self.step == self._total or _out_of_patience(self.evaluations, self._settings.patience)

    @property
    def is_best(self) -> bool:
        """True if no earlier step evaluated better."""
        return best_step(self.evaluations, self._total) == self.step

    def start(self, load_model: Callable[[], Llama], cfg: LlamaConfig) -> None:
        """Restores the latest checkpoint, or loads the model to start from."""
        pending, settings = False, self._settings
        self.resumed_from = self._checkpoints.latest_step()
        if self.resumed_from is None:
            self.state = init_state(load_model(), make_optimizer(settings, self._total))
        else:
            shapes = abstract_state(cfg, self._rules, settings, self._total)
            self.state, meta = self._checkpoints.restore(
                self.resumed_from, checkpointed(on_mesh(shapes, self._mesh))
            )
            _refuse_other_run(meta["run"], self._facts)
            if settings.lora_rank:
                model = replace_trainable(load_model(), self.state.model)
                self.state = dataclasses.replace(self.state, model=model)
            self.step, self.evaluations = self.resumed_from, [(int(s), v) for s, v in meta["evaluations"]]
            pending = meta.get("evaluation_pending", False)
        self._parameters = sum(math.prod(p.shape) for p in parameter_table(cfg).values())
        self._metrics.begin(self.step, evaluated=not pending)
        if pending:  # a stop was requested during the evaluation of this step
            self._add_evaluation()
        self._arrays = self._batches.batch(self.step) if self.step < self._total else {}

    def update(self) -> int:
        """Makes one step, and the next batch while the devices work; returns the number of tokens.

        Raises:
          DivergedError: Before anything of the step is kept.
        """
        begin = time.monotonic()
        batch = put_batch(self._arrays, self._rules, self._mesh)
        self.state, values = train_step(self.state, batch, settings=self._settings, total_steps=self._total)
        tokens = int(np.count_nonzero(self._arrays["segments"]))
        self.step += 1
        if self.step < self._total:
            self._arrays = self._batches.batch(self.step)
        numbers = {name: float(value) for name, value in values.items()}
        self.loss = numbers["loss"]
        if not all(math.isfinite(numbers[name]) for name in ("loss", "grad_norm", "param_norm")):
            raise self._diverged(numbers)
        seconds = time.monotonic() - begin
        self._metrics.log(self.step, **numbers, tokens=tokens, seconds=seconds)
        log_step(
            self.step,
            self._total,
            tokens=tokens,
            seconds=seconds,
            parameters=self._parameters,
            mesh=self._mesh,
        )
        return tokens

    def _diverged(self, values: dict[str, float]) -> DivergedError:
        ids = ", ".join(self._batches.example_ids(self.step - 1))
        # The checkpoint of the step before, if there is one, holds the parameters that led here.
        earlier = [s for s in self._checkpoints.steps() if s < self.step - 1]
        return DivergedError(
            "diverged",
            f"train: loss {values['loss']}, gradient norm {values['grad_norm']}, then parameter norm "
            f"{values['param_norm']} at step {self.step} (examples: {ids}); last good checkpoint: "
            f"{f'step {earlier[-1]}' if earlier else 'there is none'}; lower learning_rate or look at these "
            "examples",
        )

    def evaluate_if_due(self) -> None:
        """Evaluates the model after the steps that the settings name.

        Raises:
          StopRequested: A stop was requested meanwhile; the checkpoint of the step records that it is not
            evaluated yet.
        """
        if not self._settings.evaluates_after(self.step, self._batches.steps_per_epoch):
            return
        try:
            self._add_evaluation()
        except preemption.StopRequested:
            self._save(evaluation_pending=True)
            raise

    def _add_evaluation(self) -> None:
        if self._evaluate is None:
            return
        value = float(self._evaluate(self.state.model, self.step))
        self._metrics.log(self.step, evaluation=value)
        self.evaluations.append((self.step, value))

    def checkpoint_if_due(self) -> None:
        """Stores a checkpoint where one is due. A best model is saved after it, so no resumed run undoes it.

        Raises:
          StopRequested: A stop was requested; a resumed run saves the best model first.
        """
        stop = monitor.stop_requested_anywhere(self._mesh)
        if stop or self.ended or self.is_best or self.step % self._settings.checkpoint_every == 0:
            self._save(evaluation_pending=False)
            # A save may take longer than the grace period.
            stop = monitor.stop_requested_anywhere(self._mesh)
        if stop and (self.is_best or not self.ended):
            raise preemption.StopRequested

    def _save(self, *, evaluation_pending: bool) -> None:
        meta = {
            "run": self._facts,
            "evaluations": self.evaluations,
            "evaluation_pending": evaluation_pending,
        }
        self._checkpoints.save(self.step, checkpointed(self.state), meta)


def best_step(evaluations: Sequence[tuple[int, float]], total: int) -> int:
    """Returns the earliest step of the highest value, or `total` without evaluations."""
    return max(evaluations, key=lambda e: (e[1], -e[0]))[0] if evaluations else total


def checkpointed(state: TrainState) -> TrainState:
    """Returns the part of a state that checkpoints store: no frozen model, which is on disk already."""
    return dataclasses.replace(state, model=trainable(state.model))


def _out_of_patience(evaluations: Sequence[tuple[int, float]], patience: int) -> bool:
    """Returns True if the last `patience` evaluations (0: never) are no better than the best before them."""
    values = [value for _, value in evaluations]
    return 0 < patience < len(values) and max(values[-patience:]) <= max(values[:-patience])


def _describe(batches: Batches, settings: TrainSettings) -> dict[str, Any]:
    fixed = values_affecting(settings, "train", ("train",))
    return {**fixed, "total_steps": batches.total_steps, "examples": batches.fingerprint}


def _refuse_other_run(saved: dict[str, Any], run: dict[str, Any]) -> None:
    changed = [f"{k}: {saved.get(k)!r} -> {run.get(k)!r}" for k in run if saved.get(k) != run[k]]
    if changed:
        raise SteError(
            "checkpoint_mismatch",
            f"train: the checkpoints belong to a run with other values ({'; '.join(changed)}); restore "
            "these to resume, or train into another folder",
        )
