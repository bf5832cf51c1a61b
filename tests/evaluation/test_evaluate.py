"""`ste evaluate` with a real (tiny, random) model: one object on stdout, killed and resumed, refused."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ste_jax.checkpoint.source import open_model
from ste_jax.decode.engine import DecodeSettings, decode_shape
from ste_jax.decode.protocol import Request
from ste_jax.evaluation.estimate import buckets_below, length_groups, time_and_estimate
from ste_jax.evaluation.result import read_result
from ste_jax.evaluation.settings import EvaluationSettings
from ste_jax.judging.prompts import BUILT_IN

KEYS = {
    *("n", "accuracy_as_given", "accuracy_swapped", "accuracy", "consistent_accuracy", "flip_rate"),
    *("first_preference", "unparsed", "interval95"),
}


def ended(process: Any) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {
            "id": f"x{i}",
            "instruction": f"Name river number {i}.",
            "response_a": "The Rhine. " * (1 + i % 3),
            "response_b": "A rose.",
            "label": ("A", "B", "tie")[i % 3],
            "subset": "rivers",
        }
        for i in range(9)
    ]
    rows.append(rows[0] | {"id": "long", "response_b": "A rose is a rose. " * 400})
    path = tmp_path_factory.mktemp("data") / "rivers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def evaluated(ste: Any, tiny_model: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(flags, result file, what was printed) of an uninterrupted evaluation of three votes."""
    out = tmp_path_factory.mktemp("out") / "deep" / "result.jsonl"
    flags = ["evaluate", f"--model={tiny_model}", f"--data={pairs_file}", "--votes=3", "--max_new_tokens=4"]
    code, printed, err = ended(ste.start(*flags, f"--out={out}", "--json"))
    assert code == 0, err
    assert "estimate: 54 judgments take" in err
    return flags, out, json.loads(printed)


def test_it_prints_one_object_with_every_key(evaluated):
    _, out, report = evaluated
    assert report.keys() >= KEYS
    assert (report["n"], report["ties"], report["too_long"], report["missing_judgments"]) == (6, 3, 1, 0)
    assert report["tied"]["n"] == 3
    assert report["subsets"].keys() == {"rivers"}
    assert len(report["votes"]["curve"]) == 3
    assert report["forced"] == 1.0
    header = read_result(out).header
    run = header["run"]
    assert run["prompt"]["user"] == BUILT_IN["short"].user  # a small model's
    assert run["sampling"] == {"temperature": 0.7, "top_p": 0.9}
    for field in ("prompt_hash", "tokenizer_hash", "template_hash", "parser", "versions", "stop_ids", "seed"):
        assert run[field] is not None
    assert run["model"]["hash"]
    assert run["orders"] == ["as_given", "swapped"]
    assert header["data_revision"] is None  # of the hub's commit
    assert read_result(out).sessions[0]["complete"]


def test_a_finished_evaluation_is_only_read_again(ste, evaluated):
    flags, out, report = evaluated
    before = out.read_bytes()
    code, printed, err = ended(ste.start(*flags, f"--out={out}", "--json"))
    assert (code, json.loads(printed)) == (0, report), err
    assert out.read_bytes() == before
    code, printed, err = ended(ste.start("stats", str(out), "--json"))
    assert (code, json.loads(printed)) == (0, report), err


def test_a_killed_evaluation_goes_on_and_ends_with_the_same_numbers(ste, evaluated, tmp_path):
    flags, whole, report = evaluated
    out = tmp_path / "killed.jsonl"
    process = ste.start(*flags, f"--out={out}", "--json")
    limit = time.monotonic() + 200
    while not (out.exists() and out.read_bytes().count(b'"kind":"judgment"') >= 3):
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    saved = len(read_result(out).judgments)
    code, printed, err = ended(ste.start(*flags, f"--out={out}", "--json"))
    assert code == 0, err
    assert json.loads(printed) | {"result": ""} == report | {"result": ""}
    assert {j.id: j.tokens for j in read_result(out).judgments} == {
        j.id: j.tokens for j in read_result(whole).judgments
    }
    assert saved >= 3


def test_another_evaluation_is_refused_before_the_weights_are_read(ste, evaluated, tmp_path):
    flags, whole, _ = evaluated
    out = tmp_path / "mine.jsonl"
    out.write_bytes(whole.read_bytes())
    code, printed, err = ended(ste.start(*flags, f"--out={out}", "--seed=1", "--json"))
    assert (code, printed) == (1, "")
    assert "mine.jsonl holds another evaluation:\n  seed: 0 -> 1\nChoose another --out" in err
    assert "evaluate 1/" not in err
    assert out.read_bytes() == whole.read_bytes()


def test_small_models_and_large_ones_are_asked_differently(tiny_model):
    settings = EvaluationSettings()
    small, large = settings.judging(10**8, None), settings.judging(8 * 10**9, None)
    assert (small.prompt.name, small.max_new_tokens, small.force_verdict) == ("short", 32, True)
    assert (large.prompt.name, large.max_new_tokens, large.force_verdict) == ("standard", 2048, False)
    own = BUILT_IN["standard"]
    assert settings.judging(10**8, own).prompt == own
    asked = EvaluationSettings(prompt="short", rubric="Be kind.", max_new_tokens=7, force_verdict=False)
    assert asked.judging(10**8, own).prompt.rubric == "Be kind."
    assert (asked.judging(1, None).max_new_tokens, asked.judging(1, None).force_verdict) == (7, False)
    assert open_model(tiny_model).architecture.parameter_count == 32 * 49152 + 2 * 9280 + 32
    alone = EvaluationSettings(max_new_tokens=0)
    assert (alone.judging(1, None).max_new_tokens, alone.judging(1, None).force_verdict) == (0, True)
    with pytest.raises(ValueError, match=r"--max_new_tokens must be 1 or more, or 0 with --force_verdict"):
        alone.judging(8 * 10**9, None)
    with pytest.raises(ValueError, match="--votes must be 1 or more, not 0"):
        EvaluationSettings(votes=0)


def request(i: int, length: int) -> Request:
    prompt = np.random.default_rng(i).integers(6, 64, length).tolist()
    return Request(f"r{i}", tuple(prompt), np.zeros((1, 2), np.uint32), 4)


def test_the_estimate_is_what_the_rest_then_takes():
    lengths = [100] * 40 + [200] * 30 + [900] * 20
    requests = [request(i, length) for i, length in enumerate(lengths)]
    settings = DecodeSettings(sequences=8, samples_per_slot=1, buckets=(128, 256, 1024))
    served: list[str] = []
    together: list[set[int]] = []

    def shape_of(part):
        longest = max(len(r.prompt) - 1 for r in part)
        sizes = {"requests": len(part), "samples": 1, "new_tokens": 4}
        return decode_shape(settings, settings.buckets, longest=longest, **sizes)

    def serve(label, part, only):
        assert {r.id for r in part} >= set(only)
        time.sleep(0.1 if label.startswith("compile") else 0.0)
        for id_ in only:
            time.sleep(lengths[int(id_[1:])] * 2e-5)
        served.extend(only)
        together.append({lengths[int(id_[1:])] for id_ in only})

    started = time.monotonic()
    parts = length_groups(requests)
    assert [len(part) for part in parts] == [70, 20]
    estimate = time_and_estimate(parts, {"r0", "r1"}, shape_of, serve, started)
    # Each length compiles alone, and the timed ones are of all.
    assert sorted(map(sorted, together[:2])) == [[100], [200]]
    assert together[2:] == [{100, 200}, {900}, {900}]
    # No more than a prefill of each length, and those that fill the slots of each round.
    assert len(served) == len(set(served)) <= (5 + 2 + 1) + 2 * (8 + 5)
    for part in parts:
        serve("evaluate", part, [r.id for r in part if r.id not in served and r.id not in ("r0", "r1")])
    assert estimate.total == pytest.approx(time.monotonic() - started, rel=0.2)


def test_every_length_that_a_model_can_read_has_a_program():
    assert buckets_below(1024) == (128, 256, 384, 512, 768, 1023)
    assert buckets_below(131072)[-2:] == (65536, 131071)
