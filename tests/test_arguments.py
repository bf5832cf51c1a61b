"""Mistakes in the arguments of the public API are user errors, raised before any weights are loaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ste_jax.judge import Judge
from tests.errors import raises
from tests.judges import BAD, GOOD, PAIRS, X, load_judge, load_model


@pytest.fixture(scope="module")
def judge(tiny_model: Path) -> Judge:
    return load_judge(tiny_model, max_new_tokens=4)


ONE = [{"instruction": X, "responses": [GOOD]}]
WRONG_CALLS: list[Callable[[Judge], Any]] = [
    lambda judge: judge.compare(X, GOOD, BAD, votes=1.5),
    lambda judge: judge.compare(X, GOOD, BAD, rubric=3),
    lambda judge: judge.compare_many(3),
    lambda judge: judge.compare_many(None),
    lambda judge: judge.compare_many("pairs.jsonl"),
    lambda judge: judge.rank(X, 3),
    lambda judge: judge.rank(X, [GOOD], votes=0),
    lambda judge: judge.rank(X, [GOOD], rubric=4),
    lambda judge: judge.rank(X, [GOOD, BAD], max_comparisons="1"),
    lambda judge: judge.rank(X, [GOOD, BAD], max_comparisons=2.5),
    lambda judge: judge.rank(X, [GOOD, BAD], max_comparisons=True),
    lambda judge: judge.rank_many(ONE, votes=0),
    lambda judge: judge.best_of(X, 3),
    lambda judge: judge.score(X, GOOD, votes=0),
    lambda judge: judge.score(X, GOOD, scale=5),
    lambda judge: judge.score(X, GOOD, scale="15"),
    lambda judge: judge.score(X, GOOD, scale=(1.0, 5.0)),
    lambda judge: judge.score(X, GOOD, anchors=3),
    lambda judge: judge.score(X, GOOD, anchors=[BAD], votes=0),
    lambda judge: judge.score(X, GOOD, baseline=BAD, rubric=3),
    lambda judge: judge.reward_function(votes=0),
    lambda judge: judge.reward_function(rubric=3),
    lambda judge: judge.reward_function(on_abstain="x"),
    lambda judge: judge.reward_function(on_abstain=None),
    lambda judge: judge.reward_function(on_abstain=float("nan")),
]


@pytest.mark.parametrize("call", WRONG_CALLS)
def test_a_wrong_argument_is_refused_before_weights_are_loaded(
    judge: Judge, call: Callable[[Judge], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(judge.model), "engine", property(lambda model: pytest.fail("an engine is made")))
    with raises("argument_invalid"):
        call(judge)


@pytest.mark.parametrize(
    "options",
    [
        *({"seed": value} for value in ("a", 1.5, None, True)),
        *({"max_new_tokens": value} for value in ("5", 2.5, -1, 1024, 5000)),
        *({"sequences": value} for value in (0, "4", None)),
    ],
)
def test_a_judge_is_not_opened_with_wrong_options(tiny_model: Path, options: dict[str, Any]) -> None:
    (name,) = options
    with raises("argument_invalid", name):
        load_judge(tiny_model, **options)


@pytest.mark.parametrize("mesh", [None, "auto", (1, 1), (1, -1, -1), (1, 0, 1), (1.0, 1, 1)])
def test_a_mesh_is_three_sizes(tiny_model: Path, mesh: Any) -> None:
    with raises("argument_invalid", "mesh"):
        Judge.load(tiny_model, mesh=mesh)


@pytest.mark.parametrize(
    "options",
    [
        *({"n": value} for value in (0, 1.5, "2")),
        *({"temperature": value} for value in ("a", -1.0, float("inf"), None)),
        *({"top_p": value} for value in (0.0, 2, "1")),
        *({"max_new_tokens": value} for value in (0, "9")),
        {"seed": "a"},
    ],
)
def test_generate_refuses_wrong_options(tiny_model: Path, options: dict[str, Any]) -> None:
    (name,) = options
    with raises("argument_invalid", name):
        load_model(tiny_model).generate([X], **options)


def test_generate_needs_a_list(tiny_model: Path) -> None:
    with raises("argument_invalid", "prompts"):
        load_model(tiny_model).generate(X)


def test_an_output_that_cannot_be_written_is_refused_first(
    judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(judge.model), "engine", property(lambda model: pytest.fail("an engine is made")))
    other = tmp_path / "pairs.jsonl"
    other.write_text('{"instruction": "q"}\n')
    rows = [{"instruction": X, "response": GOOD}]
    for out, code in (
        (tmp_path, "path_is_folder"),
        (other, "output_mismatch"),
    ):
        for call in (
            lambda out=out: judge.compare_many(PAIRS, out=out),
            lambda out=out: judge.rank_many(ONE, out=out),
            lambda out=out: judge.score_many(rows, out=out),
        ):
            with raises(code, str(out)):
                call()
    assert other.read_text() == '{"instruction": "q"}\n'


def test_levels_that_are_not_tokens_are_found_before_baselines_are_compared(
    judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(judge.model), "engine", property(lambda model: pytest.fail("an engine is made")))
    rows = [{"instruction": X, "response": GOOD, "baseline": BAD}, {"instruction": X, "response": GOOD}]
    with raises("argument_invalid", "1 to 10"):
        judge.score_many(rows, scale=(1, 10))


def test_the_best_of_an_iterator_is_found(judge: Judge) -> None:
    answers = [GOOD, BAD]
    assert judge.best_of(X, iter(answers)) == judge.best_of(X, answers)


def test_rewards_name_the_prompt_that_is_empty(judge: Judge) -> None:
    reward = judge.reward_function(baseline="answer")
    with raises("data_invalid", "prompts[1]"):
        reward([X, ""], [GOOD, GOOD], answer=[BAD, BAD])
