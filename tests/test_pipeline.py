"""Whole runs in processes of their own: killed, started again, redone, starved, out of disk."""

import dataclasses
import json
import math
import os
import re
import runpy
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from etils import epath

from ste_jax import pipeline
from ste_jax.config import read_config
from ste_jax.pairs.splits import Splits
from ste_jax.randomness import generator
from ste_jax.records import Comparison, Judgment
from ste_jax.stages import annotate, fitting, pairs, train
from ste_jax.stages.context import Context
from ste_jax.storage.readers import read_records
from ste_jax.storage.success import require_success
from ste_jax.training.loop import TrainResult
from tests.errors import raises

_SECONDS = ("seconds", "total_seconds", "peak_rss_mib")
PAIRS = "pairs/part-00000-of-00001.jsonl"
ANNOTATED = "iteration_1/annotate/part-00000-of-00001.jsonl"
TRAINED = "iteration_1/train/part-00000-of-00001.jsonl"


def parts(workdir: Path) -> dict[str, bytes]:
    return {str(p.relative_to(workdir)): p.read_bytes() for p in sorted(workdir.rglob("part-*.jsonl"))}


def weights(workdir: Path) -> list[str]:
    cards = sorted(workdir.glob("iteration_*/model/model.json"))
    return [json.loads(card.read_text())["weights_hash"] for card in cards]


def numbers(value: Any) -> Any:
    """Returns a summary without the fields that depend on time and memory."""
    if isinstance(value, dict):
        return {name: numbers(inner) for name, inner in value.items() if name not in _SECONDS}
    return [numbers(inner) for inner in value] if isinstance(value, list) else value


def summary(workdir: Path) -> Any:
    """Returns the summary of a run without what differs between equal runs: its command and its times."""
    made = json.loads((workdir / "summary.json").read_text())
    assert f"--workdir={workdir}" in made.pop("command")
    return numbers(made)


def copied(finished: Path, to: Path, *left_out: str) -> Path:
    shutil.copytree(finished, to)
    for name in left_out:
        shutil.rmtree(to / name)
    return to


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "what the test waits for never came"
        time.sleep(0.002)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()


class Survivor(NamedTuple):
    """A run that was killed several times, and the output of a second run and of `ste status` in between."""

    workdir: Path
    refusal: Any
    status: Any
    end: Any


@pytest.fixture(scope="module")
def survivor(ste: Any, tmp_path_factory: pytest.TempPathFactory) -> Survivor:
    workdir = tmp_path_factory.mktemp("killed") / "run"
    refusal = None

    def killed_with_records(name: str, meanwhile: Callable[[], Any] = lambda: None) -> Any:
        """Kills a run that has some of the records of a stage on disk."""
        process = ste.begin("run", workdir)
        wait_for(process, (workdir / name / "STARTED.json").exists)
        # Records are flushed when the last flush is 5 seconds old: a process that is asleep comes to be late.
        process.send_signal(signal.SIGSTOP)
        begin, answer = time.monotonic(), meanwhile()
        time.sleep(max(0.0, begin + 5.5 - time.monotonic()))
        process.send_signal(signal.SIGCONT)
        wait_for(process, (workdir / name / "PROGRESS.json").exists)
        kill(process)
        return answer

    def killed_at(path: str) -> None:
        process = ste.begin("run", workdir)
        wait_for(process, lambda: any(workdir.glob(path)))
        kill(process)

    refusal = killed_with_records("select/labels", lambda: ste.run("run", workdir))
    killed_at("pairs/degraded/STARTED.json")
    killed_with_records("iteration_1/annotate")
    status = ste.run("status", workdir)
    killed_at("iteration_1/train/checkpoints/2")
    killed_at("iteration_2/train/best-2*")
    return Survivor(workdir, refusal, status, ste.run("run", workdir))


def test_an_uninterrupted_run_makes_everything(finished: Path) -> None:
    made = summary(finished)
    assert [model["iteration"] for model in made["models"]] == [0, 1, 2]
    assert all(model["n"] == 3 for model in made["models"])
    assert [one["judgments"] for one in made["yields"]] == [42, 42]
    assert [one["total_steps"] for one in made["training"]] == [4, 4]
    assert len(set(weights(finished))) == 2
    assert "<html" in (finished / "report.html").read_text().lower()
    leftovers = [path for path in finished.rglob("*") if ".tmp" in path.name or path.name == "journal"]
    assert not leftovers
    assert not list(finished.glob("iteration_*/train/checkpoints"))
    judgments = [
        Judgment(**json.loads(line))
        for line in (finished / "iteration_1/annotate/part-00000-of-00001.jsonl").read_text().splitlines()
    ]
    # Random weights have no opinion: what is kept has both verdicts, and what is wrong is stored as well.
    assert {(j.verdict, j.correct) for j in judgments} == {(v, c) for v in "AB" for c in (True, False)}
    assert all(j.status == "ok" and j.text.endswith("]]") for j in judgments if j.forced)


def test_a_run_killed_anywhere_ends_with_the_same_bytes(finished: Path, survivor: Survivor) -> None:
    assert survivor.end.code == 0, survivor.end.err
    assert parts(survivor.workdir) == parts(finished)
    assert weights(survivor.workdir) == weights(finished)
    assert summary(survivor.workdir) == summary(finished)


def test_a_second_run_in_the_same_workdir_is_refused(survivor: Survivor) -> None:
    assert survivor.refusal.code == 1
    assert survivor.refusal.err == (
        f"ste: another run works in {survivor.workdir}; wait for it, or choose another --workdir\n"
    )


def test_the_status_of_a_killed_run(survivor: Survivor) -> None:
    assert survivor.status.code == 0, survivor.status.err
    states = {words[0]: words[1:] for line in survivor.status.out.splitlines() if (words := line.split())}
    assert states["select"][:2] == ["finished", "12"]
    assert states["labels"][:2] == ["finished", "14"]
    state, counts, spent, left, *_ = states["iteration_1/annotate"]
    assert state == "started"
    done, total = map(int, counts.split("/"))
    assert 0 < done < total == 14
    assert all(re.fullmatch(r"(\d+:)?\d+:\d\d", duration) for duration in (spent, left))
    assert states["iteration_2/evaluate"] == ["pending"]


def test_a_finished_run_is_left_alone(ste: Any, finished: Path, tmp_path: Path) -> None:
    workdir = copied(finished, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*.jsonl")}
    again = ste.run("run", workdir)
    assert again.code == 0, again.err
    assert "rec/s" not in again.err
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("*.jsonl")}
    assert parts(workdir) == parts(finished)
    assert summary(workdir) == summary(finished)
    assert "seed" in again.out


def test_a_changed_configuration_stops_until_it_is_redone(ste: Any, finished: Path, tmp_path: Path) -> None:
    workdir = copied(finished, tmp_path / "run")
    stale = ste.run("run", workdir, "--config.annotate.samples=2")
    assert stale.code == 1
    assert stale.err.startswith(
        f"ste: {workdir}/iteration_1/annotate was made with other settings or inputs:\n"
    )
    assert "\n  config.annotate.samples: 3 -> 2\n" in stale.err
    assert "--redo=iteration_1/annotate" in stale.err
    assert parts(workdir) == parts(finished)

    # One stage alone; what follows from it is gone, what it follows from is not.
    redone = ste.run("annotate", workdir, "--config.annotate.samples=2", "--redo=iteration_1/annotate")
    assert redone.code == 0, redone.err
    assert json.loads(redone.out)["yield"]["judgments"] == 28
    made, old = parts(workdir), parts(finished)
    name = "iteration_1/annotate/part-00000-of-00001.jsonl"
    # Every draw belongs to its sample: fewer samples are the same samples.
    kept = [line for line in old[name].splitlines() if json.loads(line)["sample"] < 2]
    assert made.pop(name).splitlines() == kept
    before = ("select", "pairs", "iteration_0")
    assert made == {part: content for part, content in old.items() if part.startswith(before)}
    assert not list(workdir.glob("iteration_*/model"))


def opened(ste: Any, workdir: Path, **annotating: Any) -> tuple[Context, Splits, list[Judgment]]:
    """Returns a finished run's context, its pairs and the judgments of its first iteration."""
    value = runpy.run_path(str(ste.config))["get_config"]()
    value.annotate.update(annotating)
    config = read_config(value.to_dict())
    context = Context(config, epath.Path(workdir))
    splits = pairs.split(config, read_records(context.workdir / "pairs", Comparison))
    return context, splits, read_records(context.workdir / "iteration_1/annotate", Judgment)


@pytest.mark.parametrize("change", [{"both_orders": True}, {"max_per_example": 2}])
def test_what_is_kept_of_judgments_makes_training_stale_and_not_them(
    ste: Any, finished: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    context, splits, judgments = opened(ste, copied(finished, tmp_path / "run"), **change)
    assert list(annotate.run(context, 1, splits.train)) == judgments
    (name,) = change
    with raises("stage_stale", f"config.annotate.{name}: ", "--redo=iteration_1/train"):
        train.run(context, 1, judgments, splits)


def test_the_model_of_an_unfinished_training_is_no_model(ste: Any, finished: Path, tmp_path: Path) -> None:
    """The model is renamed after SUCCESS, by the next start if a kill comes between."""
    workdir = copied(finished, tmp_path / "run[1]")  # a pattern to some
    context, splits, judgments = opened(ste, workdir)
    success, made = workdir / "iteration_1/train/SUCCESS.json", weights(workdir)
    success.rename(tmp_path / "away")
    with raises("stage_unfinished", "ste train --iteration=1"):
        context.model(1)
    (tmp_path / "away").rename(success)
    (workdir / "iteration_1/model").rename(workdir / "iteration_1/train/best-2")
    with raises("stage_unfinished", "ste train --iteration=1"):
        context.model(1)
    train.run(context, 1, judgments, splits)
    assert weights(workdir) == made
    assert not list(workdir.rglob("best-*"))
    context.model(1)


def test_a_best_model_that_is_gone_is_asked_for(
    ste: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a manual return to a checkpoint, the model that it names as the best may be missing."""
    workdir = copied(finished, tmp_path / "run", "iteration_1/train", "iteration_1/model")
    context, splits, judgments = opened(ste, workdir)
    ended = TrainResult(steps=4, resumed_from=2, loss=1.0, evaluations=((2, 0.5), (4, 0.1)), best_step=2)
    monkeypatch.setattr(fitting, "train", lambda *given, **named: ended)
    with raises("model_not_found", "best-2", "--redo=iteration_1/train"):
        train.run(context, 1, judgments, splits)
    assert not (workdir / "iteration_1/train/SUCCESS.json").exists()


def test_validation_pairs_that_nobody_can_judge_are_refused(ste: Any, finished: Path, tmp_path: Path) -> None:
    workdir = copied(finished, tmp_path / "run", "iteration_1/train", "iteration_1/model")
    context, splits, judgments = opened(ste, workdir)
    long = dataclasses.replace(splits.validation[0], id="long", response_a="A rose is a rose. " * 300)
    nothing = dataclasses.replace(splits, validation=[long])
    with raises("data_unusable", "iteration_1/train", "decode.buckets"):
        train.run(context, 1, judgments, nothing)
    some = dataclasses.replace(splits, validation=[long, *splits.validation])
    shutil.rmtree(workdir / "iteration_1/train")
    train.run(context, 1, judgments, some)
    assert require_success(context.workdir / "iteration_1/train").summary["validation_too_long"] == 1


def test_other_validation_pairs_make_training_stale(ste: Any, finished: Path, tmp_path: Path) -> None:
    context, splits, judgments = opened(ste, copied(finished, tmp_path / "run"))
    train.run(context, 1, judgments, splits)  # the very same: nothing to do
    other = dataclasses.replace(splits, validation=splits.validation[:1])
    with raises("stage_stale", "inputs.validation: ", "--redo=iteration_1/train"):
        train.run(context, 1, judgments, other)


@pytest.fixture(scope="module")
def starved(ste: Any, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A run whose judge gives no verdict and is not forced to."""
    workdir = tmp_path_factory.mktemp("starved") / "run"
    copied(finished, workdir, "iteration_0", "iteration_1", "iteration_2")
    return workdir, ste.run("run", workdir, "--config.annotate.force_verdict=False")


def test_a_run_without_correct_judgments_stops_and_keeps_them(starved: tuple[Path, Any]) -> None:
    workdir, end = starved
    assert end.code == 1
    message = end.err.splitlines()[-1]
    assert message.startswith(
        "ste: iteration 1: none of 42 judgments can be trained on. Correct ones: 0 with verdict A, 0 with "
        "verdict B (both are needed, to balance them); without a verdict: 42. "
    )
    assert "more annotate.samples" in message
    assert "Traceback" not in end.err
    judgments = parts(workdir)["iteration_1/annotate/part-00000-of-00001.jsonl"].splitlines()
    assert len(judgments) == 42
    assert {json.loads(line)["status"] for line in judgments} <= {"truncated", "missing"}
    assert not (workdir / "iteration_1/model").exists()


@pytest.mark.parametrize("command", ["status", "report"])
def test_a_workdir_alone_names_its_run(ste: Any, finished: Path, tmp_path: Path, command: str) -> None:
    copied(finished, tmp_path / "run")
    end = ste.run_bare(command, str(tmp_path / "run"))
    assert end.code == 0, end.err
    with_flags = ste.run(command, tmp_path / "run")
    assert end.out == with_flags.out


def test_a_workdir_without_a_run_is_named(ste: Any, tmp_path: Path) -> None:
    end = ste.run_bare("status", str(tmp_path))
    assert end.code == 1
    assert f"{tmp_path}/RUN.json: no such file" in end.err
    assert "--config" in end.err


def test_the_report_of_a_half_finished_run(ste: Any, starved: tuple[Path, Any]) -> None:
    workdir, _ = starved
    end = ste.run("report", workdir)
    assert end.code == 0, end.err
    made = summary(workdir)
    assert [model["iteration"] for model in made["models"]] == [0]
    assert [one["kept"] for one in made["yields"]] == [0]
    assert made["training"] == []
    assert "tiny" in (workdir / "report.html").read_text()


def test_the_report_opens_no_model_and_shows_a_draw_from_all_judgments(
    ste: Any, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read_config(runpy.run_path(str(ste.config))["get_config"]().to_dict())
    config = dataclasses.replace(config, model="somebody/elsewhere")
    context = Context(config, epath.Path(copied(finished, tmp_path / "run")))
    shown: list[Any] = []
    monkeypatch.setattr("ste_jax.summary.write_report", lambda _, samples, __: shown.extend(samples))
    assert pipeline.report(context)["model"] == "tiny"
    found = [
        (k, judgment)
        for k in (1, 2)
        for judgment in read_records(context.iteration(k) / "annotate", Judgment)
    ]
    draw = generator(config.seed, "report").permutation(len(found))[:10]
    assert [(s.iteration, s.judgment) for s in shown] == [found[i] for i in sorted(draw)]
    assert {s.iteration for s in shown} == {1, 2}
    assert all(s.pair.id == s.judgment.pair_id for s in shown)
    (tmp_path / "new").mkdir()
    assert pipeline.report(Context(config, epath.Path(tmp_path / "new")))["model"] == "somebody/elsewhere"


class Disk:
    """A file system of a few kilobytes in memory."""

    def __init__(self, folder: Path):
        self.folder = folder

    def resize(self, size: str, *options: str) -> None:
        mount = ["mount", "-t", "tmpfs", "-o", ",".join((*options, f"size={size}")), "tmpfs"]
        subprocess.run([*mount, str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can make a small file system")
    made = Disk(tmp_path / "disk")
    made.folder.mkdir()
    try:
        made.resize("120k")
    except subprocess.CalledProcessError:
        pytest.skip("no right to mount a file system here")
    yield made
    subprocess.run(["umount", str(made.folder)], check=True)


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(ste: Any, finished: Path, disk: Disk) -> None:
    workdir = disk.folder / "run"
    small = ste.run("run", workdir, "--config.iterations=1")
    # 2 MB hold all records and no model.
    disk.resize("2m", "remount")
    larger = ste.run("run", workdir, "--config.iterations=1")
    for end in (small, larger):
        assert end.code == 1
        last = end.err.splitlines()[-1]
        assert last.startswith("ste: cannot use "), end.err
        assert "No space left on device. What was finished is safe; make room" in last
        assert "Traceback" not in end.err
    disk.resize("200m", "remount")
    end = ste.run("run", workdir, "--config.iterations=1")
    assert end.code == 0, end.err
    expected = {n: content for n, content in parts(finished).items() if not n.startswith("iteration_2")}
    assert parts(workdir) == expected
    assert weights(workdir) == weights(finished)[:1]


def test_preferences_are_trained_with_the_starting_models_log_probabilities(
    ste: Any, finished: Path, tmp_path: Path
) -> None:
    """Trains adapters, which are merged into the final model."""
    workdir = copied(finished, tmp_path / "run")
    flags = ("--config.train.objective=dpo", "--config.train.row_length=1280", "--config.train.lora_rank=4")
    made = ste.run("train", workdir, *flags, "--iteration=1", "--redo=iteration_1/train")
    assert made.code == 0, made.err
    summary = json.loads(made.out)
    lines = (workdir / "iteration_1/train/part-00000-of-00001.jsonl").read_text().splitlines()
    examples = [json.loads(line) for line in lines]
    assert len(examples) == summary["examples"] > 0
    assert all(e["chosen"] != e["rejected"] and max(e["reference"]) < 0.0 for e in examples)
    kept = json.loads((finished / "iteration_1/train/SUCCESS.json").read_text())["count"]
    assert summary["without_wrong"] + summary["unbalanced"] == kept - len(examples)
    judged = [json.loads(line) for line in parts(workdir)[ANNOTATED].splitlines()]
    wrong = {(j["pair_id"], j["order"]) for j in judged if j["verdict"] and not j["correct"]}
    alone = [json.loads(line) for line in parts(finished)[TRAINED].splitlines()]
    assert summary["without_wrong"] == sum((e["pair_id"], e["order"]) not in wrong for e in alone)
    # The model is its own reference before the first update: log 2, and 1.5 times a likelihood.
    first = json.loads((workdir / "iteration_1/train/metrics.jsonl").read_text().splitlines()[0])
    tokens = sum(len(e["chosen"]) for e in examples)
    likelihood = -sum(e["reference"][0] for e in examples) / tokens
    assert first["loss"] == pytest.approx(math.log(2.0) + 1.5 * likelihood, rel=0.1)
    changed = [a != b for a, b in zip(weights(workdir), weights(finished), strict=False)]
    assert changed[0], "the adapters are in the model"


def test_the_decision_over_both_orders_is_trained(ste: Any, finished: Path, tmp_path: Path) -> None:
    """The first loss follows from the log-odds that the seed model's judgments record."""
    workdir = Path(shutil.copytree(finished, tmp_path / "run", ignore=shutil.ignore_patterns("iteration_*")))
    flags = [
        *("--config.iterations=1", "--config.annotate.samples=1", "--config.annotate.max_new_tokens=0"),
        *("--config.train.objective=pairwise", "--config.train.row_length=1280"),
        *("--config.train.batch_rows=8", "--config.train.lean_penalty=0.5"),
        "--config.train.noise_exponent=0.0",
    ]
    made = ste.run("run", workdir, *flags)
    assert made.code == 0, made.err
    pairs = {p["id"]: p for p in map(json.loads, parts(workdir)[PAIRS].splitlines())}
    examples = [json.loads(line) for line in parts(workdir)[TRAINED].splitlines()]
    judged = [json.loads(line) for line in parts(workdir)[ANNOTATED].splitlines()]
    assert len(judged) == 2 * len(examples) > 0
    log_odds = {(j["pair_id"], j["order"]): j["log_odds"] for j in judged}
    losses = []
    for example in examples:
        assert example["probability_a"] == {"A": 1.0, "B": 0.0}[pairs[example["id"]]["label"]]
        given, swapped = (log_odds[example["id"], order] for order in ("as_given", "swapped"))
        sign = 2 * example["probability_a"] - 1
        losses.append(
            math.log1p(math.exp(-sign * (given - swapped) / 2)) + 0.5 * ((given + swapped) / 2) ** 2
        )
    steps = (workdir / "iteration_1/train/metrics.jsonl").read_text().splitlines()
    assert json.loads(steps[0])["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    changed = [a != b for a, b in zip(weights(workdir), weights(finished), strict=False)]
    assert changed[0]
    assert json.loads((workdir / "summary.json").read_text())["training"][0]["method"] == "pairwise"
