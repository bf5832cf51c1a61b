"""A finished run to report on: its summary and ten of its judgments."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from ste_jax.records import Comparison, Judgment
from ste_jax.report.page import SampledJudgment

_HERE = Path(__file__).parent

Run = tuple[dict[str, Any], list[SampledJudgment]]


@pytest.fixture(scope="session")
def finished_run() -> Run:
    rows = json.loads((_HERE / "samples_example.json").read_text("utf-8"))
    samples = [
        SampledJudgment(
            row["iteration"], Comparison.from_json(row["pair"]), Judgment.from_json(row["judgment"])
        )
        for row in rows
    ]
    summary = json.loads((_HERE / "summary_example.json").read_text("utf-8"))
    for model in summary["models"]:
        model["shortcuts"] = _shortcuts(model)
    return summary, samples


def _shortcuts(model: dict[str, Any]) -> dict[str, Any]:
    """Returns a panel with two of its lines."""
    flips = f"Its verdict changes with the order of the responses in {model['flip_rate']:.1%} of the pairs."
    empty = "An empty response beats the better response in 0.0% of the pairs."
    lines = (
        ("order flips", model["flip_rate"], [0.24, 0.61], flips, "order"),
        ("empty_answer", 0.0, [0.0, 0.16], empty, None),
    )
    names = ("name", "share", "interval95", "text", "warning")
    return {
        "probes": {"pairs": 20},
        "length_balance": {"pooled": {"accuracy": 0.575, "interval95": [0.41, 0.73]}},
        "length_ratios": [{"ratio": [0.25, 0.8], "n": 6, "accuracy": 0.5, "interval95": [0.1, 0.9]}],
        "panel": {
            "lines": [dict(zip(names, line, strict=True)) for line in lines],
            "summary": "Do not use it for verdicts from one order only.",
        },
    }


@pytest.fixture
def summary(finished_run: Run) -> dict[str, Any]:
    return copy.deepcopy(finished_run[0])


@pytest.fixture
def samples(finished_run: Run) -> list[SampledJudgment]:
    return list(finished_run[1])


@pytest.fixture
def young_summary(summary: dict[str, Any]) -> dict[str, Any]:
    """The run before its first judgment: no figures to draw, so quick to report."""
    return summary | {"models": [], "yields": [], "training": []}


@pytest.fixture
def labelled_summary(summary: dict[str, Any]) -> dict[str, Any]:
    """The run with 40 labelled pairs, on which accuracy rises from 50 to 95%."""
    for model, accuracy in zip(summary["models"], (0.5, 0.6, 0.8, 0.95), strict=True):
        bounds = [accuracy - 0.1, min(1.0, accuracy + 0.1)]
        group = {"n": 20, "accuracy": accuracy, "accuracy_pooled": accuracy, "pooled_interval95": bounds}
        own = {"n": 40, "prompts": 40, "accuracy": accuracy, "interval95": bounds, "majority": None}
        tests = dict.fromkeys(
            ("p_value_vs_seed", "p_value_pooled_vs_seed"), 0.001 if model["iteration"] else None
        )
        groups = {"kinds": {}, "categories": {"billing": group, "shipping": group}}
        balance = {"accuracy": 0.6123, "interval95": [0.5, 0.75]}
        model["labelled"] = {**own, **tests, **groups, "length_balance": balance, "flip_rate": 0.1}
    return summary
