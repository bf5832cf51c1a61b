"""Stage 4b, `ste prefer`, where `config.prefer` asks for it: from the fine-tuned model of the iteration on by
preference optimization of the kept judgments against wrong ones.

Reads `iteration_k/annotate` and the fine-tuned model, which gives its place to the one that is made here:
it moves from `iteration_k/model` to `iteration_k/train/model`. Writes `iteration_k/prefer` (see
`stages.train`) and `iteration_k/model`.
"""

from collections.abc import Sequence

from etils import epath

from ste_jax.distributed import process
from ste_jax.errors import SteError
from ste_jax.pairs.splits import Splits
from ste_jax.records import Judgment
from ste_jax.stages import train
from ste_jax.stages.context import Context
from ste_jax.storage.files import remove
from ste_jax.storage.success import require_success


def run(context: Context, iteration: int, judgments: Sequence[Judgment], splits: Splits) -> None:
    """Trains on, unless it is done already or not asked for.

    Raises:
      ValueError: the iteration has no fine-tuned model yet.
      SteError: "stage_stale": it was done before, but the configuration no longer asks for it.
      NothingToLearn: no judgment has a wrong one beside it; the fine-tuned model stays.
    """
    settings, folder = context.config.prefer, context.iteration(iteration)
    if settings is None:
        # Preferences that left no model yet are forgotten.
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
        raise ValueError(f"{folder / 'model'} is missing; run `ste train --iteration={iteration}` first")
    process.on_process_zero(lambda: has_started(folder) or (folder / "model").rename(_start(folder)))
    source = context.opened(_start(folder))
    train.fit(train.Training(context, iteration, "prefer", settings, source), judgments, splits)


def has_started(folder: epath.Path) -> bool:
    """Says whether the fine-tuned model of an iteration has left its place."""
    return _start(folder).exists()


def undo(folder: epath.Path) -> None:
    """Gives the fine-tuned model of an iteration its place back."""
    if has_started(folder):
        remove(folder / "model")
        _start(folder).rename(folder / "model")


def _start(folder: epath.Path) -> epath.Path:
    return folder / "train" / "model"
