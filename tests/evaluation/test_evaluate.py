"""`ste evaluate` with a real (tiny, random) model: one object on stdout, killed and resumed, refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from ste_jax.evaluation.result import read_result
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
    """(flags, result file, printed output) of an uninterrupted evaluation with three votes and probes."""
    out = tmp_path_factory.mktemp("out") / "deep" / "result.jsonl"
    flags = ["evaluate", f"--model={tiny_model}", f"--data={pairs_file}", "--votes=3", "--max_new_tokens=4"]
    flags.append("--probes=3")
    code, printed, err = ended(ste.start(*flags, f"--out={out}", "--json"))
    assert code == 0, err
    return flags, out, json.loads(printed)


def test_it_prints_one_object_with_every_key(evaluated):
    _, out, report = evaluated
    assert report.keys() >= KEYS
    assert (report["n"], report["ties"], report["too_long"]) == (6, 3, 1)
    assert report["tied"]["n"] == 3
    assert report["subsets"].keys() == {"rivers"}
    assert len(report["votes"]["curve"]) == 3
    assert report["forced"] == 1.0
    run = read_result(out).run
    assert run["prompt"]["user"] == BUILT_IN["short"].user  # a small model's
    assert run["sampling"] == {"temperature": 0.7, "top_p": 0.9}
    for field in ("prompt_hash", "tokenizer_hash", "template_hash", "parser", "versions", "stop_ids", "seed"):
        assert run[field] is not None
    assert run["model"]["hash"]
    assert run["orders"] == ["as_given", "swapped"]
    assert run["data"]["revision"] is None  # the hub's commit


def test_probes_are_judged_and_kept_apart_from_the_pairs(evaluated):
    _, out, report = evaluated
    made = read_result(out)
    pairs = {comparison.id for comparison in made.comparisons} | {"long"}
    assert {probe.pair for probe in made.probes} < pairs
    assert not pairs & {probe.comparison.id for probe in made.probes}
    probes = report["shortcuts"]["probes"]
    judged = {judgment.pair_id for judgment in made.probe_judgments}
    assert len(judged) == len(made.probes) - probes["not_judged"] > 30
    assert made.run["probes"]["comparisons"] == len(made.probes)
    assert report["shortcuts"]["panel"]["summary"]


def test_votes_are_drawn_anew_when_a_pair_is_judged_again(evaluated):
    made = read_result(evaluated[1])
    again = [judgment for judgment in made.probe_judgments if judgment.pair_id.startswith("probe/retest/")]
    first = {(j.pair_id, j.order, j.sample): j.tokens for j in made.judgments}
    assert again
    assert any(first[j.pair_id.removeprefix("probe/retest/"), j.order, j.sample] != j.tokens for j in again)


def test_a_finished_evaluation_is_only_read_again(ste, evaluated):
    flags, out, report = evaluated
    before = out.read_bytes()
    code, printed, err = ended(ste.start(*flags, f"--out={out}", "--json"))
    assert (code, json.loads(printed)) == (0, report), err
    assert out.read_bytes() == before
    code, printed, err = ended(ste.start("stats", str(out), "--json"))
    assert (code, json.loads(printed)) == (0, report), err


def test_another_evaluation_is_refused_before_the_weights_are_read(ste, evaluated, tmp_path):
    flags, whole, _ = evaluated
    out = tmp_path / "mine.jsonl"
    out.write_bytes(whole.read_bytes())
    code, printed, err = ended(ste.start(*flags, f"--out={out}", "--seed=1", "--json"))
    assert (code, printed) == (1, "")
    assert "mine.jsonl" in err
    assert "seed: 0 -> 1" in err
    assert "Traceback" not in err
    assert out.read_bytes() == whole.read_bytes()
