"""Numbers that show what the models of a run decide by, from their judgments of test pairs and probes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ste_jax.checkpoint.folder import update_card
from ste_jax.checkpoint.source import read_card
from ste_jax.evaluation.probes.probe import Probe, make_probes
from ste_jax.evaluation.shortcuts import shortcuts
from ste_jax.judging.decision import results_of
from ste_jax.metrics.policy import WRONG
from ste_jax.pairs.splits import Splits
from ste_jax.records import Comparison, ComparisonResult, Judgment
from ste_jax.stages.context import Context
from ste_jax.storage.readers import read_records
from ste_jax.storage.success import read_success


def probes_of(context: Context, splits: Splits) -> list[Probe]:
    """Returns the probes of the test pairs, the same for every model."""
    return make_probes(
        splits.test,
        context.config.evaluate.probes,
        seed=context.config.seed,
        pointwise=context.prompt.is_pointwise,
    )


def shortcuts_of(context: Context, iteration: int, splits: Splits) -> dict[str, Any]:
    """Returns the numbers and the panel of a model whose judgments are there."""
    probes = probes_of(context, splits) if _is_finished(context, iteration, "probes") else []
    judged = _results(context, iteration, "probes", [probe.comparison for probe in probes])
    has_previous = iteration > 0 and _is_finished(context, iteration - 1, "evaluate")
    return shortcuts(
        _results(context, iteration, "evaluate", splits.test),
        WRONG,
        seed=context.config.seed,
        probes=probes,
        pointwise=context.prompt.is_pointwise,
        judged={result.id: result for result in judged},
        previous=_results(context, iteration - 1, "evaluate", splits.test) if has_previous else None,
    )


def write_card(context: Context, iteration: int, panel: dict[str, Any]) -> None:
    """Writes the panel into the card of the model of an iteration, if there is a model and it lacks it."""
    folder = Path(context.iteration(iteration)) / "model"
    card = read_card(folder) if iteration else None
    if card is not None and card.shortcuts != panel:
        update_card(folder, shortcuts=panel)


def _is_finished(context: Context, iteration: int, name: str) -> bool:
    return read_success(context.iteration(iteration) / name) is not None


def _results(
    context: Context, iteration: int, name: str, comparisons: Sequence[Comparison]
) -> list[ComparisonResult]:
    if not comparisons:
        return []
    judgments = read_records(context.iteration(iteration) / name, Judgment)
    return list(results_of(comparisons, judgments, seed=context.config.seed))
