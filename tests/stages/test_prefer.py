"""Fine-tuning and then preferences in one iteration: killed in either, undone, done again."""

import json
import runpy
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from etils import epath
from ml_collections import ConfigDict

from ste_jax import pipeline
from ste_jax.config import read_config
from ste_jax.stages import fitting
from ste_jax.stages.context import Context
from ste_jax.storage.journal import decode_line, encode_line
from tests.errors import raises

FLAGS = ("--config.iterations=1", "--config.prefer.epochs=2.0")


def copied(finished: Path, to: Path) -> Path:
    """Copies the first iteration of a run of fine-tuning alone."""
    return Path(shutil.copytree(finished, to, ignore=shutil.ignore_patterns("iteration_2")))


def hashes(workdir: Path) -> dict[str, str]:
    cards = {name: workdir / "iteration_1" / name / "model.json" for name in ("train/model", "model")}
    return {n: json.loads(card.read_text())["weights_hash"] for n, card in cards.items() if card.exists()}


def records(workdir: Path) -> dict[str, bytes]:
    return {str(p.relative_to(workdir)): p.read_bytes() for p in sorted(workdir.rglob("part-*.jsonl"))}


@pytest.fixture(scope="module")
def preferred(ste: Any, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of fine-tuning, continued with preferences."""
    workdir = copied(finished, tmp_path_factory.mktemp("preferred") / "run")
    made = ste.run("run", workdir, *FLAGS, "--redo=iteration_1/prefer")
    assert made.code == 0, made.err
    assert "train 1" not in made.err, "the fine-tuning is not done again"
    return workdir


def context(ste: Any, workdir: Path, **prefer: float) -> Context:
    value: ConfigDict = runpy.run_path(str(ste.config))["get_config"]()
    value.iterations = 1
    value.prefer.update(prefer)
    return Context(read_config(value.to_dict()), epath.Path(workdir))


def test_cards_state_how_the_judge_was_trained_to_answer(preferred: Path) -> None:
    for model in ("train/model", "model"):
        card = json.loads((preferred / "iteration_1" / model / "model.json").read_text())
        assert (card["max_new_tokens"], card["force_verdict"], card["dtype"]) == (6, True, "float32")
        assert card["calibration"] is None


def test_preferences_go_on_from_the_fine_tuned_model(finished: Path, preferred: Path) -> None:
    before = json.loads((finished / "iteration_1/model/model.json").read_text())
    card = json.loads((preferred / "iteration_1/model/model.json").read_text())
    assert hashes(preferred)["train/model"] == before["weights_hash"] != card["weights_hash"]
    start = json.loads((preferred / "iteration_1/train/model/model.json").read_text())
    assert card["parent"] == start["weights_hash"]
    assert not list(preferred.rglob("checkpoints"))

    made = json.loads((preferred / "summary.json").read_text())
    sft, dpo = made["training"]
    assert (sft["method"], dpo["method"], sft["iteration"], dpo["iteration"]) == ("sft", "dpo", 1, 1)
    assert sft["total_steps"] == len(sft["steps"]) > 0
    assert dpo["total_steps"] == len(dpo["steps"]) > 0
    assert sum(one["chosen"] for one in dpo["evaluations"]) == 1
    assert sft["examples"] == dpo["examples"] + dpo["without_wrong"] + dpo["unbalanced"]
    assert max(line["learning_rate"] for line in dpo["steps"]) == pytest.approx(5e-4)
    assert made["seconds"]["prefer"] > 0
    page = (preferred / "report.html").read_text()
    assert "Loss of the preference training: iteration 1 from" in page
    assert f"<td>{dpo['without_wrong']}</td>" in page
    assert f"<td>{dpo['unbalanced']}</td>" in page


def test_a_kill_changes_nothing(ste: Any, finished: Path, preferred: Path, tmp_path: Path) -> None:
    """Kills between the moves of the models; `tests/test_pipeline.py` tests the same for fine-tuning."""
    workdir = copied(finished, tmp_path / "run")
    process = ste.begin("prefer", workdir, *FLAGS)
    deadline = time.monotonic() + 200
    while not (workdir / "iteration_1/prefer/checkpoints/2").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    assert not (workdir / "iteration_1/prefer/SUCCESS.json").exists()
    assert not (workdir / "iteration_1/model").exists(), "the fine-tuned model is not the iteration's last"

    again = ste.run("prefer", workdir, *FLAGS)
    assert again.code == 0, again.err
    assert records(workdir / "iteration_1/prefer") == records(preferred / "iteration_1/prefer")
    assert hashes(workdir) == hashes(preferred)
    lines = [(run / "iteration_1/prefer/metrics.jsonl").read_text() for run in (workdir, preferred)]
    one, other = ([{**json.loads(line), "seconds": 0} for line in text.splitlines()] for text in lines)
    assert one == other


def test_log_probabilities_of_the_starting_model_are_made_once(
    ste: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir = copied(finished, tmp_path / "run")

    def killed(*arguments: Any, **options: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(fitting, "train", killed)
        with pytest.raises(KilledError):
            pipeline.run_stage(context(ste, workdir, epochs=1.0), "prefer", 1)
    (journal,) = (workdir / "iteration_1/prefer/journal").iterdir()
    lines = [decode_line(line) for line in journal.read_bytes().split(b"\n")[:-1]]
    first, *others = (json.loads(record) for line in lines if line for record in line[1])
    first["reference"] = [-1.0, -2.0]
    journal.write_bytes(
        b"".join(encode_line(example["id"], [json.dumps(example)]) for example in (first, *others))
    )
    pipeline.run_stage(context(ste, workdir, epochs=1.0), "prefer", 1)
    ((_, part),) = records(workdir / "iteration_1/prefer").items()
    found = {example["id"]: example["reference"] for example in map(json.loads, part.splitlines())}
    assert found == {example["id"]: example["reference"] for example in (first, *others)}


class KilledError(Exception):
    """Simulates a process that dies."""


def test_other_preferences_leave_the_fine_tuning_alone(ste: Any, preferred: Path, tmp_path: Path) -> None:
    workdir = Path(shutil.copytree(preferred, tmp_path / "run"))
    before = hashes(workdir)
    changed = context(ste, workdir, epochs=2.0, beta=0.5)
    assert "iteration_1/prefer" in pipeline.stage_folders(changed)
    with raises("stage_stale", "config.prefer.beta", "--redo=iteration_1/prefer"):
        pipeline.run_stage(changed, "prefer", 1)
    pipeline.redo(changed, "iteration_1/prefer")
    assert not (workdir / "iteration_1/prefer").exists()
    assert hashes(workdir) == {"model": before["train/model"]}


def test_fine_tuning_alone_again_wants_a_redo(ste: Any, preferred: Path, tmp_path: Path) -> None:
    workdir = Path(shutil.copytree(preferred, tmp_path / "run"))
    alone = context(ste, workdir)
    with raises("stage_stale", "--redo=iteration_1/prefer"):
        pipeline.run_stages(alone)
    pipeline.redo(alone, "iteration_1/prefer")
    assert hashes(workdir) == {"model": hashes(preferred)["train/model"]}
    assert not (workdir / "iteration_1/evaluate").exists(), "made by the other model"
    with raises("config_invalid", "prefer.epochs"):
        pipeline.run_stage(alone, "prefer", 1)
    # A kill between the two steps of a redo: the model is gone, the other not yet back.
    (workdir / "iteration_1/model").rename(workdir / "iteration_1/train/model")
    assert "iteration_1/prefer" in pipeline.stage_folders(alone)
    pipeline.run_stage(alone, "train", 1)
    pipeline.run_stages(alone)
    assert hashes(workdir) == {"model": hashes(preferred)["train/model"]}
    pipeline.redo(alone, "iteration_1/train")
    assert hashes(workdir) == {}
