"""Runs that get SIGTERM while they sample and while they train."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FLAGS = ("--config.train.checkpoint_every=100", "--config.iterations=1")
PARTS = ("select", "pairs", "iteration_1/annotate", "iteration_1/train", "iteration_1/evaluate")


def stop_when(ste: Any, workdir: Path, condition: Callable[[], bool]) -> str:
    """Starts the run, sends SIGTERM when `condition` holds, and returns its last line of output."""
    process = ste.begin("run", workdir, *FLAGS)
    try:
        deadline = time.monotonic() + 240
        while not condition():
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 75, err
    return err.splitlines()[-1]


def steps_on_disk(workdir: Path) -> list[str]:
    folder = workdir / "iteration_1" / "train" / "checkpoints"
    return sorted(f.name for f in folder.glob("*") if f.name.isdecimal()) if folder.exists() else []


@pytest.fixture(scope="module")
def stopped(ste: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A run that was stopped twice, and its last line of each time."""
    workdir = tmp_path_factory.mktemp("stopped") / "run"
    lines = [stop_when(ste, workdir, (workdir / "select" / "labels" / "STARTED.json").exists)]
    metrics = workdir / "iteration_1" / "train" / "metrics.jsonl"
    lines.append(stop_when(ste, workdir, lambda: metrics.exists() and '"loss"' in metrics.read_text()))
    return workdir, lines


def test_the_last_line_is_one_of_a_safe_stop(stopped: tuple[Path, list[str]]) -> None:
    expected = "ste: stopped; what was finished is safe, the same command goes on from there"
    assert stopped[1] == [expected] * 2


def test_the_step_is_on_disk(stopped: tuple[Path, list[str]]) -> None:
    workdir, _ = stopped
    lines = [
        json.loads(line) for line in (workdir / "iteration_1/train/metrics.jsonl").read_text().splitlines()
    ]
    last = max(line["step"] for line in lines if "loss" in line)
    # No other checkpoint was due.
    assert steps_on_disk(workdir) == [str(last)]


def test_started_again_it_ends_with_the_same_bytes(
    ste: Any, stopped: tuple[Path, list[str]], finished: Path
) -> None:
    workdir, _ = stopped
    done = ste.run("run", workdir, *FLAGS)
    assert done.code == 0, done.err
    for name in PARTS:
        for part in sorted((finished / name).glob("part-*.jsonl")):
            assert (workdir / name / part.name).read_bytes() == part.read_bytes(), (name, part.name)
    resumed, undisturbed = (
        json.loads((folder / "iteration_1" / "model" / "model.json").read_text())
        for folder in (workdir, finished)
    )
    assert resumed["weights_hash"] == undisturbed["weights_hash"]
