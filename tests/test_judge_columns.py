"""A judge whose prompt shows columns of the data, from Python and the shell."""

import json
from pathlib import Path
from typing import Any

import pytest

from ste_jax.benchmarks.benchmark import read_pairs_file
from ste_jax.data.comparisons import load_pairs
from ste_jax.data.named_columns import NamedColumns
from ste_jax.evaluation.run import evaluate
from ste_jax.judge import Judge
from tests.errors import raises
from tests.judges import BAD, GOOD, X, load_judge

USER = """\
### Policy
{policy}
### Instruction
{instruction}
### Response A
{response_a}
### Response B
{response_b}
### Question
Answer [[A]] or [[B]]."""
ROW = {"instruction": X, "response_a": GOOD, "response_b": BAD}
KIND, CURT = {"policy": "Be kind."}, {"policy": "Be curt, and name no more than one river."}


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompt") / "own.json"
    path.write_text(json.dumps({"user": USER}))
    return path


@pytest.fixture(scope="module")
def judge(tiny_model: Path, prompt: Path) -> Judge:
    return load_judge(tiny_model, prompt=str(prompt), max_new_tokens=0, force_verdict=True, sequences=16)


def lines(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_texts_are_shown_by_every_use_of_a_judge(judge: Judge, tmp_path: Path) -> None:
    assert judge.columns == ("policy",)
    kind, curt = (judge.compare(X, GOOD, BAD, texts=texts) for texts in (KIND, CURT))
    assert kind.log_odds != curt.log_odds
    path = lines(tmp_path / "p.jsonl", ROW | KIND | {"id": "k"}, ROW | CURT | {"id": "c", "city": "Ulm"})
    many = judge.compare_many(load_pairs(path, shown=judge.columns))
    assert [one.log_odds for one in many] == pytest.approx([kind.log_odds, curt.log_odds], abs=1e-4)
    assert many[1].to_dict()["policy"] == CURT["policy"]
    assert many[1].to_dict()["city"] == "Ulm"
    ranked = judge.rank(X, [GOOD, BAD], texts=CURT)
    assert ranked.win_probabilities[0] == pytest.approx(curt.probability_a, abs=1e-4)
    scored = judge.score_many([{"instruction": X, "response": GOOD, "baseline": BAD, **CURT}])
    assert scored[0].value == pytest.approx(curt.probability_a, abs=1e-4)
    reward = judge.reward_function(baseline="old")
    assert reward([X], [GOOD], old=[BAD], **{name: [text] for name, text in CURT.items()}) == [
        pytest.approx(curt.probability_a, abs=1e-4)
    ]
    shown = judge.model.source.tokenizer.decode(judge.protocol().prompt_ids(many[1].comparison, "swapped"))
    assert f"### Policy\n{CURT['policy']}\n### Instruction\n{X}\n" in shown


def test_texts_that_are_missing_or_not_shown_are_refused_before_anything_is_judged(
    tiny_model: Path, prompt: Path, tmp_path: Path
) -> None:
    judge = load_judge(tiny_model, prompt=str(prompt), max_new_tokens=0, force_verdict=True)
    for call in (
        lambda: judge.compare(X, GOOD, BAD),
        lambda: judge.compare_many([ROW | KIND, ROW]),
        lambda: judge.compare_many(load_pairs(lines(tmp_path / "p.jsonl", ROW | KIND | {"id": "x"}, ROW))),
        lambda: judge.rank(X, [GOOD, BAD]),
        lambda: judge.score(X, GOOD, baseline=BAD),
        lambda: judge.reward_function(baseline="b")([X], [GOOD], b=[BAD]),
    ):
        with raises("data_invalid", "policy"):
            call()
    with raises("argument_invalid", "'polcy'"):
        judge.compare(X, GOOD, BAD, texts=KIND | {"polcy": "x"})
    with raises("argument_invalid", "'policy'"):
        load_judge(tiny_model, prompt="verdict").compare(X, GOOD, BAD, texts=KIND)
    path = lines(tmp_path / "l.jsonl", ROW | {"label": "A"})
    with raises("data_invalid", "l.jsonl", "{policy}"):
        read_pairs_file(path, NamedColumns(shown=judge.columns))
    with raises("data_invalid", "{policy}"):
        evaluate(judge, read_pairs_file(path))
    assert judge.model._engine is None


def test_the_commands_read_the_columns_of_the_prompt(
    ste: Any, tiny_model: Path, prompt: Path, tmp_path: Path
) -> None:
    rows = [{"body": X, "response_a": GOOD, "response_b": BAD, **CURT}]
    data = f"--data={lines(tmp_path / 'p.jsonl', *rows)}"
    flags = (f"--model={tiny_model}", f"--prompt={prompt}", "--column=body")
    done = ste.run_bare("judge", "show", *flags, data, "--max_new_tokens=0", "--force_verdict")
    assert done.code == 0, done.err
    assert f"### Policy\n{CURT['policy']}\n### Instruction\n{X}" in done.out
    del rows[0]["policy"]
    bare = f"--data={lines(tmp_path / 'b.jsonl', *rows)}"
    done = ste.run_bare("judge", "compare", *flags, bare, f"--out={tmp_path / 'out.jsonl'}")
    assert done.code == 1
    assert "{policy}" in done.err
    assert not (tmp_path / "out.jsonl").exists()
