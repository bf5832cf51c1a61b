"""Labelled pairs that a judge decides otherwise than their label: which are shown, and how."""

from html import unescape
from pathlib import Path
from typing import Any

import pytest

from ste_jax.records import Comparison, ComparisonResult, OrderResult
from ste_jax.report.disagreements import SHOWN, disagreements, shortened
from ste_jax.report.page import write_report

HOSTILE = "</p><script>alert(1)</script>{{ 7 * 7 }}"


def decided(id_: str, label: Any, winner: Any, confidence: float, **texts: Any) -> ComparisonResult:
    fields: dict[str, Any] = {"instruction": f"Question {id_}?", "response_a": "Yes.", "response_b": "No."}
    return ComparisonResult(
        comparison=Comparison(id=id_, label=label, subset="billing", **(fields | texts)),
        winner=winner,
        confidence=confidence,
        consistent=False,
        orders=(
            OrderResult(order="as_given", text=f"Because {id_}."),
            OrderResult(order="swapped", text="B"),
        ),
    )


def test_those_that_differ_are_shown_the_most_confident_first() -> None:
    results = [
        decided("right", "A", "A", 0.99),
        decided("sure", "A", "B", 0.9),
        decided("unsure", "B", "A", 0.6),
        decided("surest", "B", "A", 0.95),
        decided("tied", "tie", "A", 0.97),
        decided("silent", "A", None, 0.5),
    ]
    found = disagreements(2, results)
    assert [one.id for one in found.shown] == ["surest", "sure", "unsure"]
    assert (found.iteration, found.decided, found.differing) == (2, 4, 3)


def test_a_limited_number_is_shown() -> None:
    found = disagreements(1, [decided(f"p{i:02d}", "A", "B", 0.5 + i / 100) for i in range(30)])
    assert [one.id for one in found.shown] == [f"p{i:02d}" for i in range(29, 29 - SHOWN, -1)]
    assert found.differing == 30


@pytest.mark.parametrize(
    ("length", "is_cut"), [(2_000, False), (2_100, False), (2_200, True), (50_000, True)]
)
def test_long_texts_are_cut(length: int, is_cut: bool) -> None:
    text = shortened("x" * length)
    assert text.endswith(f"({length - 2_000:,} more characters)") == is_cut
    assert text.count("x") == (2_000 if is_cut else length)


def page(summary: dict[str, Any], folder: Path, *results: ComparisonResult) -> str:
    write_report(summary, [], folder / "report.html", disagreements(3, results))
    return " ".join((folder / "report.html").read_text("utf-8").split())


def test_the_page_shows_pair_label_and_judgments(young_summary: dict[str, Any], tmp_path: Path) -> None:
    text = page(young_summary, tmp_path, decided("d", "B", "A", 0.93), decided("e", "A", "A", 0.8))
    assert "Iteration 3 decides 1 of 2 labelled test pairs otherwise than their label." in text
    for part in ("Question d?", "judge: A, 93.0%", "you: B", "flips", "Because d.", "billing", "Pair d"):
        assert part in text, part
    assert "Question e?" not in text
    assert 'href="#disagreements"' in text


def test_texts_of_pairs_stay_text(young_summary: dict[str, Any], tmp_path: Path) -> None:
    texts = dict.fromkeys(("instruction", "response_a", "response_b"), HOSTILE)
    text = page(young_summary, tmp_path, decided("x", "A", "B", 0.9, **texts))
    assert "<script" not in text
    assert unescape(text).count(HOSTILE) == 4  # with the excerpt


def test_agreement_is_said_and_no_labelled_pairs_no_section(
    young_summary: dict[str, Any], tmp_path: Path
) -> None:
    assert "The judge agrees with every label." in page(young_summary, tmp_path, decided("a", "A", "A", 0.9))
    write_report(young_summary, [], tmp_path / "none.html")
    assert "disagrees with you" not in (tmp_path / "none.html").read_text("utf-8")
