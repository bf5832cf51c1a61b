"""The training loop: resume, update, watch for divergence, evaluate, keep the best, checkpoint."""

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
from ste_jax.models.llama import Llama, LlamaConfig
from ste_jax.sharding import Rules
from ste_jax.training.batch import Batches
from ste_jax.training.lora import replace_trainable, trainable
from ste_jax.training.metrics import MetricsLog
from ste_jax.training.settings import TrainSettings
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


class DivergedError(ValueError):
    """The loss or the gradient is not a finite number any more."""


class ProgressListener(Protocol):
    """Whoever shows how far the run is."""

    def advance(self, records: int = 0, tokens: int = 0) -> None:
        """Counts what was just done."""
        ...


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """How a run ended; `evaluations` are (step, value) of the whole run, earlier processes included.

    `steps` is fewer than planned where the run stopped early. `loss` is that of the last step (None where
    there was nothing left to do); `best_step` is the one whose parameters `save_best` got last (see
    `best_step`).
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
    """Trains until `batches.total_steps`, or the patience ends, from the latest checkpoint if there is one.

    Args:
      load_model: makes the model to start from, in `settings.model_dtype` on `mesh`, with its adapters if it
        has any (see `training.lora`); on resume it is called for the frozen part, if there is one.
      cfg: its architecture.
      batches: step -> arrays.
      settings: see `TrainSettings`.
      rules: the sharding table of training.
      mesh: explicit mesh; a resumed run may have another one.
      checkpoints: of this run alone.
      evaluate: (model, step) -> value, the higher the better.
      save_best: keeps the parameters of a model that evaluated better than all before, in the place of those
        it kept earlier; the step is on disk by then. A run that goes on may call it again for that step.
      metrics: one line a step, one an evaluation.
      progress: told of every step and its tokens.

    Raises:
      DivergedError: the loss, the gradient or the parameters of a step are NaN or infinite.
      ValueError: the mesh does not fit, or the checkpoints belong to a run with other settings or examples.
      StopRequested: it was asked to stop; the last step is on disk.
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
        else:
            shapes = checkpointed(on_mesh(abstract_state(cfg, rules, settings, total), mesh))
            state, meta = checkpoints.restore(resumed_from, shapes)
            _refuse_other_run(meta["run"], run)
            if settings.lora_rank:
                state = dataclasses.replace(state, model=replace_trainable(load_model(), state.model))
            step, evaluations = resumed_from, [(int(s), v) for s, v in meta["evaluations"]]
            if best_step(evaluations, total) == step:  # a kill may have come between checkpoint and model
                save_best(state.model, step)
        metrics.begin(step)
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
                    f"train: loss {loss}, gradient norm {values['grad_norm']}, then parameter norm "
                    f"{values['param_norm']} at step {step} (examples: {ids}); last good checkpoint: {good}; "
                    "lower learning_rate or look at these examples"
                )
            metrics.log(step, **values, tokens=tokens, seconds=time.monotonic() - begin)
            progress.advance(records=1, tokens=tokens)

            # ---- evaluation: before the checkpoint, which remembers it -----------------------------------
            if evaluate is not None and settings.evaluates_after(step, batches.steps_per_epoch):
                value = float(evaluate(state.model, step))
                metrics.log(step, evaluation=value)
                evaluations.append((step, value))
            ended = step == total or _out_of_patience(evaluations, settings.patience)
            best = best_step(evaluations, total) == step

            # ---- checkpoint: before the model, which would else be of a step that a kill undoes ----------
            stop = monitor.stop_requested_anywhere(mesh)
            if stop or ended or best or step % settings.checkpoint_every == 0:
                checkpoints.save(step, checkpointed(state), {"run": run, "evaluations": evaluations})
            if best:
                save_best(state.model, step)
            if stop and not ended:
                raise preemption.StopRequested

    return TrainResult(step, resumed_from, loss, tuple(evaluations), best_step(evaluations, total))


def best_step(evaluations: Sequence[tuple[int, float]], total: int) -> int:
    """Returns the earliest step of the highest value; without evaluations the last of `total`."""
    return max(evaluations, key=lambda e: (e[1], -e[0]))[0] if evaluations else total


def checkpointed(state: TrainState) -> TrainState:
    """Returns what of a state a checkpoint holds: a frozen model lies on disk already."""
    return dataclasses.replace(state, model=trainable(state.model))


def _out_of_patience(evaluations: Sequence[tuple[int, float]], patience: int) -> bool:
    """Tells whether the last `patience` evaluations (0: never) are no better than the best before them."""
    values = [value for _, value in evaluations]
    return 0 < patience < len(values) and max(values[-patience:]) <= max(values[:-patience])


def _describe(batches: Batches, settings: TrainSettings) -> dict[str, Any]:
    fixed = values_affecting(settings, "train", ("train",))
    return {**fixed, "total_steps": batches.total_steps, "examples": batches.fingerprint}


def _refuse_other_run(saved: dict[str, Any], run: dict[str, Any]) -> None:
    changed = [f"{k}: {saved.get(k)!r} -> {run.get(k)!r}" for k in run if saved.get(k) != run[k]]
    if changed:
        raise ValueError(
            f"train: the checkpoints belong to a run with other values ({'; '.join(changed)}); put "
            "them back to resume, or train into another folder"
        )
