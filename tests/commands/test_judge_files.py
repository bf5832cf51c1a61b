import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from absl import app

from ste_jax.commands.judge import score_rubric
from ste_jax.storage.jsonl_output import iter_output
from tests.judges import load_judge

X = "Name the capital of France."
ANSWERS = ["The capital of France is Paris.", "Bananas are yellow.", "Paris, I think."]
SETTINGS = ("--prompt=verdict", "--max_new_tokens=0")


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model, whose card may change."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def _write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"--data={path}"


def _run(ste: Any, *arguments: str) -> str:
    process = ste.start(*arguments)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out + err


def test_rank_and_score_write_what_python_returns(ste: Any, model: Path, tmp_path: Path):
    judge = load_judge(model, prompt="verdict", max_new_tokens=0)
    rankings = [
        {"instruction": f"{X} ({k})", "responses": ANSWERS, "id": f"r{k}", "city": 1} for k in range(2)
    ]
    data, out = _write(tmp_path / "rank.jsonl", rankings), tmp_path / "ranks.jsonl"
    text = _run(ste, "judge", "rank", f"--model={model}", data, f"--out={out}", *SETTINGS)
    assert "2 rankings: 6 comparisons" in text
    for record, row, result in zip(iter_output(out), rankings, judge.rank_many(rankings), strict=True):
        expected = {"id": row["id"], "city": 1} | json.loads(json.dumps(result.to_dict()))
        # The command has one device, this process eight: the last bits differ.
        for name in ("strengths", "win_probabilities"):
            assert record.pop(name) == pytest.approx(expected.pop(name), abs=1e-5)
        assert record == expected
    scorings = [
        {"instruction": X, "response": ANSWERS[0], "baseline": ANSWERS[1]},
        {"instruction": X, "response": ""},
    ]
    data, out = _write(tmp_path / "score.jsonl", scorings), tmp_path / "scores.jsonl"
    flags = (data, f"--out={out}", "--scale=0,3", "--rubric=Is it brief?")
    text = _run(ste, "judge", "score", f"--model={model}", *flags, *SETTINGS)
    assert "1 against a baseline, 1 on a scale" in text
    records = list(iter_output(out))
    results = judge.score_many(scorings, scale=(0, 3), rubric="Is it brief?")
    assert [record["value"] for record in records] == pytest.approx(
        [result.value for result in results], abs=1e-4
    )


@pytest.mark.parametrize("prompt", ["verdict", "pointwise"])
def test_scores_alone_and_against_anchors_are_those_of_python(
    ste: Any, model: Path, tmp_path: Path, prompt: str
):
    judge = load_judge(model, prompt=prompt, max_new_tokens=0)
    rows = [
        {"instruction": X, "response": ANSWERS[0]},
        {"instruction": X, "response": ANSWERS[0], "anchors": ANSWERS[1:]},
    ]
    data, out = _write(tmp_path / "score.jsonl", rows), tmp_path / "scores.jsonl"
    flags = (data, f"--out={out}", f"--prompt={prompt}", "--max_new_tokens=0")
    text = _run(ste, "judge", "score", f"--model={model}", *flags)
    alone, anchors = (judge.score(**row) for row in rows)
    assert alone.method == ("pointwise" if prompt == "pointwise" else "scale")
    assert ("1 by grading the response" if prompt == "pointwise" else "1 on a scale") in text
    assert "1 against anchors" in text
    for record, result in zip(iter_output(out), (alone, anchors), strict=True):
        assert record["method"] == result.method
        assert record["value"] == pytest.approx(result.value, abs=1e-4)


def test_a_pointwise_judge_is_shown_by_response_and_does_not_flip(ste: Any, model: Path, tmp_path: Path):
    data = _write(
        tmp_path / "p.jsonl", [{"instruction": X, "response_a": ANSWERS[0], "response_b": ANSWERS[1]}]
    )
    flags = (f"--model={model}", data, "--prompt=pointwise", "--max_new_tokens=0")
    text = _run(ste, "judge", "show", *flags)
    assert "===== response A: " in text
    assert "P(good)" in text
    # The prompt is exact: with the control tokens of the chat template.
    assert text.count("<|im_start|>assistant") == 2
    assert "flipped" not in _run(ste, "judge", "compare", *flags, f"--out={tmp_path / 'out.jsonl'}")


def test_a_broken_row_is_named_before_the_model_is_loaded(ste: Any, tmp_path: Path):
    data = _write(tmp_path / "rank.jsonl", [{"instruction": X, "responses": ANSWERS}, {"instruction": X}])
    process = ste.start("judge", "rank", "--model=nowhere", data, f"--out={tmp_path / 'out.jsonl'}")
    _, err = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "line 2" in err
    assert "Traceback" not in err


def test_calibrate_writes_into_the_card_that_load_reads(ste: Any, model: Path, tmp_path: Path):
    rows = [
        {
            "instruction": f"{X} ({k})",
            "response_a": ANSWERS[k % 3],
            "response_b": ANSWERS[(k + 1) % 3],
            "label": "A" if k % 2 else "B",
        }
        for k in range(60)
    ]
    data = _write(tmp_path / "pairs.jsonl", rows)
    text = _run(ste, "calibrate", f"--model={model}", data, "--json", *SETTINGS)
    found = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
    assert found["pairs"] == 60
    calibrated = load_judge(model, prompt="verdict", max_new_tokens=0)
    assert calibrated.calibration is not None
    assert calibrated.calibration.to_dict() == found
    assert load_judge(model, prompt="verdict", max_new_tokens=4).calibration is None
    plain = calibrated.compare(X, *ANSWERS[:2])
    assert plain.log_odds is not None
    calibrated.calibration = None
    raw = calibrated.compare(X, *ANSWERS[:2])
    assert raw.log_odds == plain.log_odds
    assert raw.probability_a != plain.probability_a
    process = ste.start("calibrate", f"--model={model}", _write(tmp_path / "few.jsonl", rows[:20]))
    _, err = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "20" in err


def test_a_rubric_is_the_question_of_a_scale():
    assert score_rubric("", "") is None
    assert score_rubric("", "Is it brief?") == score_rubric("Is it brief?", "") == "Is it brief?"
    with pytest.raises(app.UsageError):
        score_rubric("Is it brief?", "Is it kind?")
