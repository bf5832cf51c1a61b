"""The report of a run: one HTML file that needs no network, no scripts and no other files.

Text from models, data sets and users is escaped by the template. Only the style sheet and the figures, which
contain no such text, are markup. A content security policy in the page forbids scripts and requests.
"""

import importlib.util
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from etils import epath
from markupsafe import Markup

from ste_jax.records import Comparison, Judgment, Label
from ste_jax.report import formats
from ste_jax.report.basis import basis_of
from ste_jax.report.disagreements import Disagreements, shortened
from ste_jax.report.headline import headline, measure_of

_EXCERPT = 140


@dataclass(frozen=True)
class SampledJudgment:
    """A judgment to show, with its pair and the iteration of its annotation."""

    iteration: int
    pair: Comparison
    judgment: Judgment


@dataclass(frozen=True)
class _Shown:
    """A sampled judgment with the responses in the order of the prompt; `better` is None for a tie."""

    sample: SampledJudgment
    excerpt: str
    responses: tuple[tuple[Label, str], tuple[Label, str]]
    better: Label | None


def write_report(
    summary: dict[str, Any],
    samples: list[SampledJudgment],
    out: epath.Path | Path,
    differing: Disagreements | None = None,
) -> None:
    """Writes the report of a finished or unfinished run; an older report is replaced atomically.

    Args:
        summary: content of summary.json (see `ste_jax.summary`).
        samples: judgments to show in full, in order.
        out: path of the HTML file; its folder is created if missing.
        differing: decisions of the last model that differ from labels; None: there are no labelled pairs.
    """
    page = _render(summary, samples, differing)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Of its own, since a run and `ste report` may write at the same time.
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex}.tmp")
    # Generated text may contain lone surrogates, which UTF-8 cannot encode.
    temporary.write_bytes(page.encode("utf-8", errors="replace"))
    temporary.replace(out)


def _render(summary: dict[str, Any], samples: list[SampledJudgment], differing: Disagreements | None) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ste_jax.report", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("percent", "interval", "count", "signed", "duration", "p_value", "model_name"):
        environment.filters[name] = getattr(formats, name)
    environment.filters["shortened"], environment.filters["excerpt"] = shortened, _excerpt
    figures, measure, basis = _draw(summary), measure_of(summary), basis_of(summary)
    return environment.get_template("report.html.jinja").render(
        run=summary,
        basis=basis,
        result=headline(basis.models, measure),
        differing=differing,
        measure=measure,
        figures=figures or {},
        has_figures=figures is not None,
        judgments=[_show(sample) for sample in samples],
        stages=list(dict.fromkeys([*summary["seconds"], *summary["tokens"]])),
    )


def _draw(summary: dict[str, Any]) -> dict[str, Markup] | None:
    """Returns the figures by name, or None without the extra [report]."""
    if importlib.util.find_spec("matplotlib") is None:
        return None
    from ste_jax.report.plots import draw_figures  # here: it loads matplotlib

    return {name: Markup(plot.svg) for name, plot in draw_figures(summary).items()}


def _show(sample: SampledJudgment) -> _Shown:
    first, second = sample.pair.shown(sample.judgment.order)
    better = sample.pair.correct_verdict(sample.judgment.order)
    return _Shown(sample, _excerpt(sample.pair.instruction), (("A", first), ("B", second)), better)


def _excerpt(text: str) -> str:
    """Returns the beginning of a text in one line."""
    words = " ".join(text.split())
    return words if len(words) <= _EXCERPT else words[:_EXCERPT].rstrip() + "…"
