"""The trial of own data that the README recommends, with 60 support tickets and the real small model."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TICKETS = ROOT / "tests" / "fixtures" / "tickets.csv"


def trial(smollm2_path: Path, workdir: Path) -> Path:
    """Runs the command as a user would, without the settings of the test process."""
    command = [
        *(sys.executable, "-m", "ste_jax", "run", "--config=company_data:runlocal", f"--workdir={workdir}"),
        *(f"--config.model={smollm2_path}", f"--config.instructions={TICKETS}"),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XLA_", "JAX_"))}
    environment |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600)
    assert done.returncode == 0, done.stderr
    return workdir


def summary_of(folder: Path) -> dict:
    return json.loads((folder / "SUCCESS.json").read_text())["summary"]


def test_the_tickets_are_sixty_with_replies():
    with TICKETS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["question"] for row in rows}) == len({row["reply"] for row in rows}) == 60
    assert all(row["reply"].strip() for row in rows)


@pytest.mark.trials
def test_most_tickets_give_pairs_and_the_report_is_written(smollm2_path: Path, tmp_path: Path) -> None:
    workdir = trial(smollm2_path, tmp_path / "trial")
    selected = {row["name"]: row["left"] for row in summary_of(workdir / "select")["funnel"]}["selected"]
    assert selected >= 54  # nothing in the tickets is a reason to leave one out
    parts = (workdir / "pairs").glob("part-*.jsonl")
    made = [json.loads(line) for part in parts for line in part.read_text().splitlines()]
    assert len({pair["prompt_id"] for pair in made}) >= 0.8 * selected
    summary = json.loads((workdir / "summary.json").read_text())
    assert [model["iteration"] for model in summary["models"]] == [0, 1]
    assert "company_data" in (workdir / "report.html").read_text()
    assert (workdir / "iteration_1" / "model" / "model.json").exists()
