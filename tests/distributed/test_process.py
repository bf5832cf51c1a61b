"""`ste` as four processes, killed and stopped, and finished as two, compared with an undisturbed one."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ste_jax.evaluation.result import read_result
from ste_jax.training.metrics import read_metrics
from tests.pods import Pod, same

pytestmark = pytest.mark.pods
FLAGS = (
    "--config.mesh=(1,-1,2)",
    "--config.train_mesh=(2,-1,1)",
    "--config.iterations=1",
    "--config.train.batch_rows=8",
    "--config.train.micro_rows=8",
    "--config.train.row_length=320",
    "--config.train.epochs=6.0",
)
STAGES = ("select/labels", "select", "pairs/answers", "pairs/degraded", "pairs", "iteration_0/evaluate")
ANNOTATE = "iteration_1/annotate"


def parts(workdir: Path) -> dict[str, bytes]:
    folders = (*STAGES, ANNOTATE)
    return {f"{n}/{p.name}": p.read_bytes() for n in folders for p in sorted((workdir / n).glob("part-*"))}


def losses(workdir: Path) -> dict[int, float]:
    lines = read_metrics(workdir / "iteration_1/train")
    return {int(line["step"]): line["loss"] for line in lines if "loss" in line}


@pytest.fixture(scope="module")
def alone(ste: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("alone") / "run"
    with Pod(lambda more: ste.begin("run", workdir, *FLAGS, more=more), workers=1, devices=8) as pod:
        same(pod.ends(), 0)
    return workdir


def test_a_whole_run(ste: Any, alone: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"

    def start(more: dict[str, str]) -> Any:
        return ste.begin("run", workdir, *FLAGS, more=more)

    with Pod(start, workers=4, devices=2, heartbeat=10) as pod:
        pod.signal_when((workdir / ANNOTATE / "STARTED.json").exists, 2, signal.SIGKILL)
        killed = pod.ends()
    assert killed.pop(2).code == -signal.SIGKILL
    same(killed, 76)
    assert all("ste: worker 2 of 4 was lost: no sign of life\n" in end.err for end in killed)
    with Pod(start, workers=4, devices=2) as pod:
        pod.signal_when(lambda: len(losses(workdir)) > 0, 1, signal.SIGTERM)
        same(pod.ends(), 75)
    with Pod(start, workers=2, devices=4) as pod:
        first, second = pod.ends()
    same([first, second], 0)
    assert "summary: " in first.out
    # Gloo prints lines of its own; of the program only process zero prints.
    assert [line for line in second.out.splitlines() if not line.startswith("[Gloo] ")] == []
    assert parts(workdir) == parts(alone)
    assert len(parts(alone)) == len(STAGES) + 1
    found, expected = losses(workdir), losses(alone)
    assert found.keys() == expected.keys()
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-4)
    evaluations = [
        [line["evaluation"] for line in read_metrics(folder / "iteration_1/train") if "evaluation" in line]
        for folder in (workdir, alone)
    ]
    assert evaluations[0] == evaluations[1] != []
    assert (workdir / "iteration_1/model/model.json").exists()


def test_the_loss_of_process_zero_ends_the_others(ste: Any, alone: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "run"

    def start(more: dict[str, str]) -> Any:
        return ste.begin("run", workdir, *FLAGS, more=more)

    with Pod(start, workers=2, devices=4, heartbeat=10) as pod:
        pod.signal_when((workdir / ANNOTATE / "STARTED.json").exists, 0, signal.SIGKILL)
        lost = time.monotonic()
        _, other = pod.ends()
    # Process zero hosts JAX's coordination service, whose client ends the process with a message of its own.
    assert other.code == -signal.SIGABRT
    assert time.monotonic() - lost < 30
    assert "the leader task was preempted/died" in " ".join(other.err.split())
    with Pod(start, workers=2, devices=4) as pod:
        same(pod.ends(), 0)
    assert parts(workdir) == parts(alone)


def test_workers_with_different_configs_are_refused(ste: Any, alone: Path, tmp_path: Path) -> None:
    started = iter(("--config.seed=0", "--config.seed=1"))

    def start(more: dict[str, str]) -> Any:
        return ste.begin("run", tmp_path / "run", next(started), more=more)

    with Pod(start, workers=2, devices=4) as pod:
        for end in pod.ends():
            assert end.code == 1
            assert "ste: the workers differ:\n  config: " in end.err


def test_an_evaluation_by_two_has_the_judgments_of_one(ste: Any, tiny_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    row = {"instruction": "Name a river.", "response_a": "The Rhine.", "response_b": "A rose.", "label": "A"}
    rows = [row | {"id": f"r{i}", "instruction": f"Name {i} rivers."} for i in range(8)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = []
    for workers in (1, 2):
        out = tmp_path / f"{workers}.jsonl"
        flags = (f"--model={tiny_model}", f"--data={data}", f"--out={out}", "--max_new_tokens=6")

        def start(more: dict[str, str], flags: tuple[str, ...] = flags) -> Any:
            return ste.start("evaluate", *flags, more=more)

        with Pod(start, workers=workers, devices=8 // workers) as pod:
            same(pod.ends(), 0)
        result = read_result(out)
        assert (result.missing, len(result.sessions)) == (0, workers)
        found.append({judgment.id: judgment for judgment in result.judgments})
    assert found[0] == found[1]
    assert not list(tmp_path.glob(".*of-host*"))
