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
    return json.loads((_HERE / "summary_example.json").read_text("utf-8")), samples


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
