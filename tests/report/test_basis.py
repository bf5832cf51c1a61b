"""Labelled pairs lead headline, tables and figures; constructed pairs come second."""

from pathlib import Path
from typing import Any

from ste_jax.report.basis import basis_of
from ste_jax.report.headline import headline, measure_of
from ste_jax.report.page import write_report
from ste_jax.report.plots import draw_figures
from tests.report.test_terminal import _printed


def test_labelled_numbers_replace_those_of_constructed_pairs(labelled_summary: dict[str, Any]) -> None:
    basis = basis_of(labelled_summary)
    assert basis.is_labelled
    assert [(m["iteration"], m["n"], m["accuracy"]) for m in basis.models] == [
        *((0, 40, 0.5), (1, 40, 0.6), (2, 40, 0.8), (3, 40, 0.95))
    ]
    # What the model was trained on is not of the pairs.
    assert basis.models[3]["kept"] == labelled_summary["models"][3]["kept"]
    result = headline(basis.models, measure_of(labelled_summary))
    assert (result.tone, result.verdict) == (
        *("gain", "Significant gain over the seed (+45.0 points, p = 0.003)."),
    )


def test_a_model_without_labelled_numbers_leaves_the_constructed_pairs(
    summary: dict[str, Any], labelled_summary: dict[str, Any]
) -> None:
    labelled_summary["models"][1]["labelled"] = None
    basis = basis_of(labelled_summary)
    assert not basis.is_labelled
    assert basis.models is labelled_summary["models"]
    assert not basis_of(summary | {"models": []}).is_labelled


def test_the_terminal_shows_labelled_pairs_first(labelled_summary: dict[str, Any]) -> None:
    text = _printed(labelled_summary)
    assert "quickstart: 40 labelled pairs" in text
    *_, last = [line.split() for line in text.splitlines() if "[" in line and "interval" not in line]
    assert last[:3] == ["3", "95.0", "[85.0–100.0]"]
    assert "Significant gain over the seed (+45.0 points, p = 0.003)." in text
    assert "On 24 constructed pairs: 50.0 to 66.7 (p = 0.12)." in text
    assert text.index("Significant gain") < text.index("constructed")


def test_figures_are_of_labelled_pairs(labelled_summary: dict[str, Any]) -> None:
    labelled_summary |= {"yields": [], "training": []}
    alt = draw_figures(labelled_summary)["accuracy"].alt
    assert "iteration 3 95.0% (85.0–100.0%)" in alt


def test_the_page_has_both_tables_and_accuracy_by_category(
    labelled_summary: dict[str, Any], tmp_path: Path
) -> None:
    labelled_summary |= {"yields": [], "training": []}
    group = {"n": 12, "accuracy_pooled": 0.25, "pooled_interval95": [0.1, 0.4]}
    for model in labelled_summary["models"]:
        model["categories"] = {"Coding": group, "none": group}
    write_report(labelled_summary, [], tmp_path / "report.html")
    text = " ".join((tmp_path / "report.html").read_text("utf-8").split())
    captions = (
        "All models on the labelled pairs",
        "Decisions on labelled pairs, by category",
        "All models on the held-out constructed pairs",
        "Decisions on constructed pairs, by category of the instruction",
    )
    positions = [text.index(f"<caption>{caption}</caption>") for caption in captions]
    assert positions == sorted(positions)
    rows = text[positions[1] : positions[2]]
    assert '<th scope="row">billing</th><td>20</td>' in rows
    assert "<strong>95.0%</strong>" in rows
    assert text.count("57.5%") == text.count("61.2%") == 4  # the length balance of either kind of pairs
    assert "Accuracy on 40 labelled pairs" in text
