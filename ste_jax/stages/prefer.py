"""Stage 4b, `ste prefer`, if `config.prefer` is set: preference optimization of correct against wrong
judgments, starting from the fine-tuned model of the iteration.

Reads `iteration_k/annotate` and the fine-tuned model, which moves from `iteration_k/model` to
`iteration_k/train/model`. Writes `iteration_k/prefer` (see `stages.fitting`) and `iteration_k/model`.
"""

from collections.abc import Sequence

from etils import epath

from ste_jax.distributed import process
from ste_jax.errors import SteError
from ste_jax.pairs.splits import Splits
from ste_jax.records import Judgment
from ste_jax.stages.context import Context
from ste_jax.stages.fitting import Training, fit
from ste_jax.storage.files import remove
from ste_jax.storage.success import require_success


def run(context: Context, iteration: int, judgments: Sequence[Judgment], splits: Splits) -> None:
    """Trains the fine-tuned model further, unless that is done already or the configuration has no `prefer`.

    Raises:
      SteError: "stage_unfinished": the iteration has no fine-tuned model yet. "stage_stale": the stage was
        done before, but the configuration no longer contains it. "no_training_data": no example has both a
        correct and a wrong judgment; the fine-tuned model stays.
    """
    settings, folder = context.config.prefer, context.iteration(iteration)
    if settings is None:
        # A preference optimization that was killed before its first model is undone.
        process.on_process_zero(lambda: (folder / "model").exists() or undo(folder))
        if has_started(folder):
            raise SteError(
                "stage_stale",
                f"{folder / 'model'} was made by preferences, for which the configuration asks no more; set "
                f"prefer back, or pass --redo={folder.name}/prefer to have the fine-tuned model again",
            )
        return
    require_success(folder / "train")
    if not (has_started(folder) or (folder / "model").exists()):
        raise SteError(
            "stage_unfinished",
            f"{folder / 'model'} is missing; run `ste train --iteration={iteration}` first",
        )
    process.on_process_zero(lambda: has_started(folder) or (folder / "model").rename(_start(folder)))
    source = context.opened(_start(folder))
    fit(Training(context, iteration, "prefer", settings, source), judgments, splits)


def has_started(folder: epath.Path) -> bool:
    """Returns True if preference optimization has moved the fine-tuned model of an iteration."""
    return _start(folder).exists()


def undo(folder: epath.Path) -> None:
    """Moves the fine-tuned model of an iteration back to `iteration_k/model`."""
    if has_started(folder):
        remove(folder / "model")
        _start(folder).rename(folder / "model")


def _start(folder: epath.Path) -> epath.Path:
    return folder / "train" / "model"
