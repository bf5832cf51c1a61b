"""Stage 4, `ste train`: supervised fine-tuning of the seed model on selected judgments (the paper, section
3.4), or preference optimization of correct against wrong judgments.

Reads `iteration_k/annotate`. Writes `iteration_k/train` (see `stages.fitting`) and finally its best model as
`iteration_k/model`.
"""

from collections.abc import Sequence

from ste_jax.pairs.splits import Splits
from ste_jax.records import Judgment
from ste_jax.sharding import TRAIN
from ste_jax.stages.context import Context
from ste_jax.stages.fitting import Training, fit
from ste_jax.training.step import check_rows, choose_attention


def check(context: Context) -> None:
    """Checks, before hours of sampling, what training requires of the devices.

    Raises:
      SteError: "config_invalid" if the rows do not divide over the devices, or the devices lack the kernel.
    """
    mesh = context.train_mesh
    for settings in context.config.trainings.values():
        check_rows(settings, TRAIN, mesh.shape)
        choose_attention(settings, mesh)


def run(context: Context, iteration: int, judgments: Sequence[Judgment], splits: Splits) -> None:
    """Trains the model of an iteration, unless that is done already.

    Args:
      context: The run.
      iteration: Number of the iteration.
      judgments: Judgments of the iteration; they are iterated over and may be on disk.
      splits: Pairs of training and validation.

    Raises:
      SteError: "no_training_data" if no judgment was selected; everything made so far stays.
    """
    config = context.config
    source = context.model(0 if config.train_from == "seed" else iteration - 1)
    fit(Training(context, iteration, "train", config.train, source), judgments, splits)
