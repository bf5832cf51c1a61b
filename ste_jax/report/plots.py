"""Figures of the report, each with a text alternative.

Only numbers of the summary and fixed labels are drawn, so no generated text gets into the markup.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ste_jax.report.basis import basis_of
from ste_jax.report.formats import NOTHING, interval, model_name, percent
from ste_jax.report.headline import Measure, measure_of
from ste_jax.report.svg import ACCENT, BAD, INK, MUTED, PAPER, Plot, render

Rows = list[dict[str, Any]]

_HEIGHT = 3.0  # inches


def draw_figures(summary: dict[str, Any]) -> dict[str, Plot]:
    """Returns the figures by name, without those whose numbers do not exist yet."""
    models, yields, training = basis_of(summary).models, summary["yields"], summary["training"]
    evaluated, measure = [row for row in training if row["evaluations"]], measure_of(summary)
    figures: list[tuple[str, Callable[[Figure, Rows], str], Rows, float]] = [
        ("accuracy", functools.partial(_accuracy, measure=measure), models, _HEIGHT),
        ("consistency", _consistency, models if measure.order_matters else [], _HEIGHT),
        ("position", _position, models, _HEIGHT),
        ("length", _length, models, _HEIGHT),
        ("yield", _yield, yields, 1.3 + 0.42 * len(yields)),
        ("balance", _balance, yields, 1.0 + 0.78 * len(yields)),
        ("correct", _correct, yields, 0.8 + 1.45 * len(yields)),
        ("loss", _loss, _updated(training, "sft"), _HEIGHT),
        ("decisions", _decisions, _updated(training, "pairwise"), _HEIGHT),
        ("preference", _preference, _updated(training, "dpo"), _HEIGHT),
        ("validation", _validation, evaluated, _HEIGHT),
    ]
    return {
        name: render(name, height, lambda figure, draw=draw, rows=rows: draw(figure, rows))
        for name, draw, rows, height in figures
        if rows
    }


def _floats(rows: Rows, key: str) -> np.ndarray:
    """Returns one field of all rows, with None as a gap."""
    return np.array([row[key] for row in rows], dtype=float)


def _iteration_axis(axes: Axes, models: Rows) -> np.ndarray:
    positions = np.arange(len(models))
    axes.set_xticks(positions, ["seed" if m["iteration"] == 0 else str(m["iteration"]) for m in models])
    axes.set_xlim(-0.5, len(models) - 0.5)
    axes.set_xlabel("iteration")
    axes.tick_params(axis="both", length=0)
    return positions


def _percent_axis(axes: Axes, low: float = 0.0, high: float = 1.0) -> None:
    axes.set_ylim(low, high)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))


def _legend(axes: Axes, columns: int = 3) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=columns,
        handlelength=1.4,
        columnspacing=1.1,
        borderpad=0.2,
    )


def _strengths(rows: Rows) -> Iterator[tuple[dict[str, Any], float]]:
    """Yields the iterations with their opacity, which increases with the iteration."""
    return zip(rows, np.linspace(1.0, 0.35, len(rows))[::-1], strict=True)


def _words(models: Rows, key: str) -> str:
    return ", ".join(f"{model_name(row['iteration'])} {percent(row[key])}" for row in models)


# ---- Models by iteration ----


def _interval_dots(
    axes: Axes, positions: np.ndarray, models: Rows, key: str, bounds: str, label: str
) -> None:
    values = _floats(models, key)
    low, high = np.array([model[bounds] for model in models], dtype=float).T
    axes.vlines(positions, low, high, color=ACCENT, alpha=0.3, linewidth=7, label="95% interval")
    axes.plot(positions, values, color=ACCENT, alpha=0.45, linewidth=1)
    axes.plot(positions, values, "o", color=ACCENT, markersize=6, label=label)
    for position, value in zip(positions, values, strict=True):
        near = {"xytext": (5, 2), "textcoords": "offset points"}
        axes.annotate(percent(value), (position, value), weight="bold", **near)


def _majority_dots(axes: Axes, models: Rows) -> None:
    """Marks majority votes to the left of the greedy dots."""
    voted = [position for position, model in enumerate(models) if model["majority"]]
    if voted:
        votes = [models[position]["majority"] for position in voted]
        positions = [position - 0.16 for position in voted]
        low, high = np.array([vote["interval95"] for vote in votes], dtype=float).T
        axes.vlines(positions, low, high, color=MUTED, linewidth=1)
        label = f"majority of {votes[0]['k']}"
        axes.plot(positions, _floats(votes, "accuracy"), "D", color=MUTED, markersize=4, label=label)


def _accuracy(figure: Figure, models: Rows, *, measure: Measure) -> str:
    axes = figure.add_subplot()
    positions = _iteration_axis(axes, models)
    _interval_dots(axes, positions, models, measure.accuracy, measure.interval, "greedy")
    _majority_dots(axes, models)
    bounds = [
        edge
        for m in models
        for edge in (*m[measure.interval], *(m["majority"] or {"interval95": []})["interval95"])
    ]
    axes.axhline(0.5, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    _percent_axis(axes, max(0.0, min(0.45, *bounds) - 0.05), min(1.0, max(0.55, *bounds) + 0.05))
    _legend(axes)
    texts = [
        f"{model_name(m['iteration'])} {percent(m[measure.accuracy])} ({interval(m[measure.interval])})"
        for m in models
    ]
    return f"Accuracy with 95% interval by iteration: {', '.join(texts)}. Chance is 50%."


def _consistency(figure: Figure, models: Rows) -> str:
    axes = figure.add_subplot()
    positions = _iteration_axis(axes, models)
    key = "consistent_accuracy"
    _interval_dots(axes, positions, models, key, "consistent_interval95", "right in both orders")
    _percent_axis(axes)
    _legend(axes)
    return f"Share of pairs judged right in both orders, by iteration: {_words(models, key)}."


def _two_lines(figure: Figure, models: Rows, first: tuple[str, str], second: tuple[str, str]) -> Axes:
    """Draws two shares by iteration, which differ in color, marker and line style."""
    axes = figure.add_subplot()
    positions = _iteration_axis(axes, models)
    axes.plot(positions, _floats(models, first[0]), "o-", color=ACCENT, label=first[1], clip_on=False)
    dashes = {"linestyle": (0, (2, 2)), "marker": "s", "markerfacecolor": PAPER}
    axes.plot(positions, _floats(models, second[0]), color=INK, label=second[1], clip_on=False, **dashes)
    _percent_axis(axes)
    _legend(axes)
    return axes


def _position(figure: Figure, models: Rows) -> str:
    axes = _two_lines(
        figure,
        models,
        ("first_preference", "picks the first response"),
        ("flip_rate", "flips with the order"),
    )
    axes.axhline(0.5, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    return (
        "Position bias by iteration. "
        f"Picks the first response (fair is 50%): {_words(models, 'first_preference')}. "
        f"Flips with the order (ideal is 0%): {_words(models, 'flip_rate')}."
    )


def _length(figure: Figure, models: Rows) -> str:
    _two_lines(
        figure,
        models,
        ("longer_preference", "picks the longer response"),
        ("longer_correct", "the longer one is better"),
    )
    return (
        f"Length bias by iteration. Picks the longer response: {_words(models, 'longer_preference')}. "
        f"The longer response is the better one: {_words(models, 'longer_correct')}."
    )


# ---- Yield of the annotation ----


def _stacked(axes: Axes, position: float, parts: Sequence[tuple[float, dict[str, Any], str]]) -> None:
    """Draws a horizontal bar of (width, style, text) parts; parts that are too narrow have no text."""
    total = sum(width for width, _, _ in parts)
    left = 0.0
    for width, style, text in parts:
        axes.barh(position, width, left=left, height=0.72, edgecolor=PAPER, linewidth=0.8, **style)
        if width > 0.012 * total * len(text) + 0.02 * total:
            solid = style.get("alpha", 1.0) == 1.0
            color = PAPER if solid else INK
            axes.text(left + width / 2, position, text, ha="center", va="center_baseline", color=color)
        left += width


def _plain_rows(axes: Axes, positions: Sequence[float], labels: Sequence[str]) -> None:
    axes.set_yticks(positions, labels)
    axes.invert_yaxis()
    axes.grid(False)
    axes.tick_params(axis="both", length=0)
    axes.spines["left"].set_visible(False)


def _yield_parts(row: dict[str, Any]) -> dict[str, int]:
    unbalanced = max(0, sum(row["kept_before_balance"].values()) - row["kept"])
    other = max(0, row["examples"] - row["kept"] - unbalanced - row["one_order"] - row["dropped"])
    return {
        "kept": row["kept"],
        "cut for balance": unbalanced,
        "correct in one order only": row["one_order"],
        "not used": other,
        "none correct": row["dropped"],
    }


_YIELD_STYLES = {
    "kept": {"color": ACCENT},
    "cut for balance": {"color": ACCENT, "alpha": 0.3},
    "correct in one order only": {"color": MUTED, "alpha": 0.6},
    "not used": {"color": MUTED, "alpha": 0.3},
    "none correct": {"color": BAD},
}


def _yield(figure: Figure, yields: Rows) -> str:
    axes = figure.add_subplot()
    rows = [_yield_parts(row) for row in yields]
    for position, parts in enumerate(rows):
        _stacked(axes, position, [(n, _YIELD_STYLES[part], f"{n:,}") for part, n in parts.items()])
    for part in (part for part in _YIELD_STYLES if any(parts[part] for parts in rows)):
        axes.barh(0, 0, label=part, **_YIELD_STYLES[part])
    _plain_rows(axes, range(len(yields)), [str(row["iteration"]) for row in yields])
    axes.set_ylabel("iteration")
    axes.set_xlabel("examples (a pair in one order)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    _legend(axes, columns=4)
    texts = (
        f"iteration {row['iteration']}: " + ", ".join(f"{n} {part}" for part, n in parts.items() if n)
        for row, parts in zip(yields, rows, strict=True)
    )
    return f"Use of the examples. {'; '.join(texts)}."


def _balance(figure: Figure, yields: Rows) -> str:
    axes = figure.add_subplot()
    stages = (("sampled", "verdicts"), ("correct", "kept_before_balance"), ("kept", "kept_verdicts"))
    positions, labels, texts = [], [], []
    for (index, row), (step, (label, key)) in itertools.product(enumerate(yields), enumerate(stages)):
        total = row[key]["A"] + row[key]["B"]
        share = row[key]["A"] / total if total else None
        positions.append(3.6 * index + step)
        labels.append(f"{row['iteration']} · {label}")
        texts.append(f"{row['iteration']} {label} {percent(share)}")
        if share is not None:
            first = (share, {"color": ACCENT}, f"A {share:.0%}")
            second = (1 - share, {"color": ACCENT, "alpha": 0.3}, f"B {1 - share:.0%}")
            _stacked(axes, positions[-1], (first, second))
    axes.axvline(0.5, color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
    _plain_rows(axes, positions, labels)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_xlabel("share of verdicts")
    return f"Share of A verdicts by iteration and step: {', '.join(texts)}."


def _correct(figure: Figure, yields: Rows) -> str:
    panels = figure.subplots(len(yields), sharex=True, squeeze=False)[:, 0]
    for axes, row in zip(panels, yields, strict=True):
        histogram = row["correct_histogram"]
        colors = [BAD, *[ACCENT] * (len(histogram) - 1)]
        bars = axes.bar(range(len(histogram)), histogram, color=colors, width=0.8)
        # Labels of more than eight bars would overlap, so only those at both ends are written.
        ends = (0, len(histogram) - 1)
        bar_labels = [f"{n:,}" if len(histogram) <= 8 or i in ends else "" for i, n in enumerate(histogram)]
        axes.bar_label(bars, bar_labels, color=MUTED, padding=1)
        axes.set_ylabel(f"iteration {row['iteration']}")
        axes.set_yticks([])
        axes.margins(y=0.25)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="both", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    longest = max(len(row["correct_histogram"]) for row in yields) - 1
    panels[-1].set_xlabel(f"correct judgments of {longest}")
    texts = [
        f"iteration {row['iteration']}: {', '.join(map(str, row['correct_histogram']))}" for row in yields
    ]
    return f"Examples by number of correct judgments, from 0 to {longest}. {'; '.join(texts)}."


# ---- Training ----

_DOT = {"linestyle": "", "marker": "o", "color": ACCENT, "markersize": 4, "markeredgewidth": 0}
_RING = {**_DOT, "markerfacecolor": PAPER, "markersize": 9, "markeredgewidth": 2}


def _checkpoints(axes: Axes, points: Sequence[tuple[float, float, bool]], strength: float) -> None:
    """Marks the evaluated checkpoints; the chosen checkpoint is a large ring."""
    for step, value, chosen in points:
        look = _RING if chosen else {**_DOT, "alpha": strength}
        axes.plot(step, value, zorder=3, **look)


def _finish_training(axes: Axes, rows: Rows) -> None:
    axes.plot([], [], label="chosen", **_RING)
    axes.set_xlabel("training step")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(axis="both", length=0)
    widest = 3 if any(row["method"] == "dpo" for row in rows) else 4
    _legend(axes, columns=min(widest, len(rows) + 1))


def _updated(training: Rows, method: str) -> Rows:
    return [row for row in training if row["steps"] and row["method"] == method]


def _loss(figure: Figure, training: Rows) -> str:
    return _losses(figure, training, "loss per judgment token", "Training loss")


def _decisions(figure: Figure, training: Rows) -> str:
    return _losses(figure, training, "loss per pair", "Training loss of the decisions")


def _preference(figure: Figure, training: Rows) -> str:
    return _losses(figure, training, "loss per pair, and per token", "Loss of the preference training")


def _losses(figure: Figure, training: Rows, unit: str, what: str) -> str:
    axes = figure.add_subplot()
    texts = []
    for row, strength in _strengths(training):
        losses = {step["step"]: step["loss"] for step in row["steps"]}
        label = model_name(row["iteration"])
        axes.plot(list(losses), list(losses.values()), color=ACCENT, alpha=strength, label=label)
        evaluations = [e for e in row["evaluations"] if e["step"] in losses]
        _checkpoints(axes, [(e["step"], losses[e["step"]], e["chosen"]) for e in evaluations], strength)
        texts.append(f"{label} from {row['steps'][0]['loss']:.2f} to {row['steps'][-1]['loss']:.2f}")
    axes.set_ylabel(unit)
    _finish_training(axes, training)
    return f"{what}: {', '.join(texts)}."


def _validation(figure: Figure, training: Rows) -> str:
    axes = figure.add_subplot()
    texts = []
    for row, strength in _strengths(training):
        points = [(e["step"], e["accuracy"], e["chosen"]) for e in row["evaluations"]]
        steps, values, _ = zip(*points, strict=True)
        label = model_name(row["iteration"]) + (", dpo" if row["method"] == "dpo" else "")
        line = (0, (2, 2)) if row["method"] == "dpo" else "-"
        axes.plot(steps, values, color=ACCENT, alpha=strength, label=label, linestyle=line)
        _checkpoints(axes, points, strength)
        chosen = next((f"step {step} at {percent(value)}" for step, value, best in points if best), NOTHING)
        texts.append(f"{label} {chosen}")
    axes.axhline(0.5, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    _finish_training(axes, training)
    return f"Validation accuracy of the checkpoints. Chosen: {', '.join(texts)}."
