"""Table that a run prints at its end."""

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from ste_jax.report.basis import basis_of
from ste_jax.report.formats import NOTHING, count, p_value
from ste_jax.report.headline import Headline, Measure, headline, measure_of
from ste_jax.visible import visible_cell

_SHARES = ("accuracy_as_given", "accuracy_swapped", "consistent_accuracy", "flip_rate", "first_preference")
_COUNTS = ("judgments", "parsed", "kept")
_HEADERS = (
    *("accuracy\n[95% interval]", "as\ngiven", "swapped", "con-\nsistent", "flips", "first"),
    *("judg-\nments", "parsed", "kept"),
)


def render_terminal_table(summary: dict[str, Any]) -> Table:
    """Returns a table of 80 columns with one row per model, the best in bold, and the conclusion below."""
    basis, measure = basis_of(summary), measure_of(summary)
    result = headline(basis.models, measure)
    lines = [
        result.verdict,
        *_by_kind(result),
        *_made_second(summary, result, measure),
        *_unpaired(summary["training"]),
        *_advice(summary),
    ]
    number = f"{count(basis.models[0]['n'])} " if basis.models else ""
    # Text instead of str: rich interprets square brackets in a str as markup.
    table = Table(
        title=Text(f"{visible_cell(summary['title'])}: {number}{basis.name}, all shares in %"),
        caption=Text("\n".join(lines)),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=0,
    )
    table.add_column(Text("iter-\nation"), no_wrap=True)
    for header in _HEADERS:
        table.add_column(Text(header), justify="right", no_wrap=True)
    for model in basis.models:
        style = "bold" if result.best is model else ""
        table.add_row(*(Text(cell) for cell in _cells(model, measure)), style=style)
    return table


def _by_kind(result: Headline) -> list[str]:
    """Returns a line with the accuracy of the decisions of seed and best model on each kind of pairs."""
    if not result.seed or not result.best or not result.best.get("kinds"):
        return []
    seed, best = result.seed["kinds"], result.best["kinds"]
    shares = [
        f"{visible_cell(kind)} {_points(seed[kind]['accuracy_pooled'])} to {_points(row['accuracy_pooled'])}"
        for kind, row in best.items()
        if kind in seed
    ]
    return [f"Decisions by kind of pairs: {', '.join(shares)}."]


def _made_second(summary: dict[str, Any], result: Headline, measure: Measure) -> list[str]:
    """Returns a line about the constructed pairs if the table is about labelled ones."""
    if result.seed is None or not basis_of(summary).is_labelled:
        return []
    seed, best = summary["models"][0], (result.best or result.seed)["iteration"]
    trained = next(model for model in summary["models"] if model["iteration"] == best)
    shares = _points(seed[measure.accuracy])
    if trained is not seed:
        shares += f" to {_points(trained[measure.accuracy])} ({p_value(trained[measure.p_value])})"
    return [f"On {count(seed['n'])} constructed pairs: {shares}."]


def _advice(summary: dict[str, Any]) -> list[str]:
    sentences = summary.get("advice", [])
    return ["", "What to do next:", *(f"- {sentence}" for sentence in sentences)] if sentences else []


def _unpaired(training: list[dict[str, Any]]) -> list[str]:
    return [
        f"Iteration {row['iteration']}: {count(row['without_wrong'])} selected judgments have no wrong "
        f"judgment to pair with, {count(row.get('unbalanced', 0))} more were dropped to balance A and B."
        for row in training
        if row.get("without_wrong") or row.get("unbalanced")
    ]


def _cells(model: dict[str, Any], measure: Measure) -> tuple[str, ...]:
    low, high = model[measure.interval]
    accuracy = f"{_points(model[measure.accuracy])} [{_points(low)}–{_points(high)}]"
    counts = [count(model[name]) for name in _COUNTS] if model["iteration"] else []
    shares = (_points(model[name] if measure.order_matters else None) for name in _SHARES)
    return str(model["iteration"] or "seed"), accuracy, *shares, *counts


def _points(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.1f}"
