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
    check_attention,
    check_rows,
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
    check_attention(settings, mesh)
    total = batches.total_steps
    run = _describe(batches, settings)
    evaluations: list[tuple[int, float]] = []
    loss = None

    with jax.set_mesh(mesh):
        # ---- start: 1. the latest checkpoint, 2. the model that was given --------------------------------
        resumed_from = checkpoints.latest_step()
        if resumed_from is None:
            step, state = 0, init_state(load_model(), make_optimizer(settings, total))
            pending = False
        else:
            shapes = checkpointed(on_mesh(abstract_state(cfg, rules, settings, total), mesh))
            state, meta = checkpoints.restore(resumed_from, shapes)
            _refuse_other_run(meta["run"], run)
            if settings.lora_rank:
                state = dataclasses.replace(state, model=replace_trainable(load_model(), state.model))
            step, evaluations = resumed_from, [(int(s), v) for s, v in meta["evaluations"]]
            pending = meta.get("evaluation_pending", False)
        metrics.begin(step, evaluated=not pending)
        if pending and evaluate is not None:  # a stop was requested during the evaluation of this step
            evaluations.append((step, _evaluate(evaluate, state.model, step, metrics)))
        if resumed_from is not None and best_step(evaluations, total) == step:
            save_best(state.model, step)  # the process may have ended between the checkpoint and the model
        parameters = sum(math.prod(p.shape) for p in parameter_table(cfg).values())
        arrays = batches.batch(step) if step < total else {}

        ended = step == total or _out_of_patience(evaluations, settings.patience)
        while not ended:
            # ---- update: the next batch is made while the devices work -----------------------------------
            begin = time.monotonic()
            state, values = train_step(
                state, put_batch(arrays, rules, mesh), settings=settings, total_steps=total
            )
            tokens = int(np.count_nonzero(arrays["segments"]))
            if step + 1 < total:
                arrays = batches.batch(step + 1)
            values = {name: float(value) for name, value in values.items()}
            step, loss = step + 1, values["loss"]

            # ---- divergence: before anything of this step is kept ----------------------------------------
            if not all(map(math.isfinite, (loss, values["grad_norm"], values["param_norm"]))):
                ids = ", ".join(batches.example_ids(step - 1))
                # That of the step before, if there is one, holds the parameters that led here.
                earlier = [s for s in checkpoints.steps() if s < step - 1]
                good = f"step {earlier[-1]}" if earlier else "there is none"
                raise DivergedError(
                    "diverged",
                    f"train: loss {loss}, gradient norm {values['grad_norm']}, then parameter norm "
                    f"{values['param_norm']} at step {step} (examples: {ids}); last good checkpoint: {good}; "
                    "lower learning_rate or look at these examples",
                )
            seconds = time.monotonic() - begin
            metrics.log(step, **values, tokens=tokens, seconds=seconds)
            log_step(step, total, tokens=tokens, seconds=seconds, parameters=parameters, mesh=mesh)
            progress.advance(records=1, tokens=tokens)

            # ---- evaluation: before the checkpoint, which stores it --------------------------------------
            if evaluate is not None and settings.evaluates_after(step, batches.steps_per_epoch):
                try:
                    evaluations.append((step, _evaluate(evaluate, state.model, step, metrics)))
                except preemption.StopRequested:
                    meta = {"run": run, "evaluations": evaluations, "evaluation_pending": True}
                    checkpoints.save(step, checkpointed(state), meta)
                    raise
            ended = step == total or _out_of_patience(evaluations, settings.patience)
            best = best_step(evaluations, total) == step

            # ---- checkpoint: before the model, whose step a resumed run must not undo --------------------
            stop = monitor.stop_requested_anywhere(mesh)
            if stop or ended or best or step % settings.checkpoint_every == 0:
                meta = {"run": run, "evaluations": evaluations, "evaluation_pending": False}
                checkpoints.save(step, checkpointed(state), meta)
                stop = monitor.stop_requested_anywhere(mesh)  # a save may take longer than the grace period
            if stop and (best or not ended):
                raise preemption.StopRequested  # a resumed run saves the best model first
            if best:
                save_best(state.model, step)

    return TrainResult(step, resumed_from, loss, tuple(evaluations), best_step(evaluations, total))


def _evaluate(evaluate: Callable[[Llama, int], float], model: Llama, step: int, metrics: MetricsLog) -> float:
    value = float(evaluate(model, step))
    metrics.log(step, evaluation=value)
    return value


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
