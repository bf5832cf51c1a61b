"""Values of JSON files are checked against the types of the fields that they go into."""

import dataclasses
import json
from typing import Any, Literal

import pytest

from ste_jax.judging.ranking import RankResult
from ste_jax.judging.scoring import ScoreResult
from ste_jax.records import Comparison, ComparisonResult, Generation, Instruction, Judgment, OrderResult
from ste_jax.typed_json import accepts, build
from tests.errors import raises

WRONG_NUMBERS = [None, True, "1", [], {}, float("nan"), float("inf"), 10**30, -(10**30), 10**400]
JUDGMENT = {
    **{"id": "j", "pair_id": "p", "order": "swapped", "sample": 0, "text": "t", "tokens": [1, 2]},
    **{"verdict": "A", "status": "ok", "forced": False, "correct": None, "log_odds": 1},
}


@pytest.mark.parametrize(
    ("hint", "right", "wrong"),
    [
        (str, ["", "Zürich \u2028"], [None, 3, [], b"x"]),
        (int, [0, -7, 2**62], [*WRONG_NUMBERS, 1.0]),
        (float, [0, 1.5, -3], WRONG_NUMBERS),
        (bool, [True, False], [None, 0, 1, "true"]),
        (str | None, [None, "x"], [0, []]),
        (Literal["A", "B"] | None, ["A", None], ["C", 1, ["A"], {}]),
        (list[int], [[], [1, 2]], [None, [1, "2"], [True], [1.0], [10**30], "12", (1,)]),
        (list[float], [[], [1, 2.5]], [[float("nan")], [None], 1.0]),
        (dict[str, int], [{}, {"a": 1}], [[], {"a": "1"}, None]),
        (
            dict[str, Any],
            [{"a": [{"b": None}]}],
            [{"a": float("nan")}, {"a": [{"b": 10**30}]}],
        ),
    ],
)
def test_types(hint, right, wrong):
    check = accepts(hint)
    assert [value for value in right if not check(value)] == []
    assert [value for value in wrong if check(value)] == []


def test_the_fields_of_a_dataclass_are_checked():
    assert build(OrderResult, {"order": "swapped", "forced": 0}) == OrderResult(order="swapped", forced=0)
    for value, place in (
        ({}, "order"),
        ({"order": "x"}, "order"),
        ({"order": "swapped", "more": 1}, "more"),
        ({"order": "swapped", "samples": None}, "samples"),
        ([], "list"),
        (None, "NoneType"),
    ):
        with pytest.raises(ValueError, match=place):
            build(OrderResult, value)


@pytest.mark.parametrize("field", JUDGMENT)
def test_no_field_of_a_record_holds_another_type(field):
    assert Judgment.from_json(JUDGMENT).to_json() == JUDGMENT | {"finish": "stop"}
    for wrong in ({"a": 1}, [[]], 10**30, "\ud800"):
        with raises("data_invalid", "Judgment", field):
            Judgment.from_json(JUDGMENT | {field: wrong})


def test_records_of_all_kinds_are_read_back():
    records = (
        Instruction(id="i", text="t", source="s", complexity=3),
        Generation(id="g", text="", tokens=[], finish="length"),
        Comparison(
            id="c", instruction="q", response_a="a", response_b="b", votes={"A": 1}, metadata={"k": [1.5]}
        ),
    )
    for record in records:
        assert type(record).from_json(json.loads(json.dumps(record.to_json()))) == record


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *(("orders", None), ("orders", [3]), ("orders", [{"order": "x"}]), ("winner", "C")),
        *(("usage", {"a": "b"}), ("log_odds", float("nan")), ("error", 3), ("confidence", True)),
    ],
)
def test_the_result_of_a_comparison_is_checked(field, wrong):
    comparison = Comparison(id="c7", instruction="q", response_a="a", response_b="b")
    made = ComparisonResult(comparison=comparison, winner="A", orders=(OrderResult(order="as_given"),))
    value = json.loads(json.dumps(made.to_dict()))
    assert ComparisonResult.from_dict(comparison, value) == made
    with raises("data_invalid", "c7", field):
        ComparisonResult.from_dict(comparison, value | {field: wrong})
    with raises("data_invalid", "c7", field):
        ComparisonResult.from_dict(comparison, {name: v for name, v in value.items() if name != field})
    assert dataclasses.replace(made) == made


RANKING = RankResult(
    ranks=[1, 2],
    best=0,
    win_probabilities=[0.7, 0.3],
    strengths=[0.4, -0.4],
    method="round_robin",
    comparisons=1,
    abstained=0,
    cycles=[(0, 1, 2)],
)
SCORE = ScoreResult(value=0.5, method="anchors", trained=True, comparisons=({"id": "c"},))


@pytest.mark.parametrize(
    ("made", "field", "wrong"),
    [
        *((RANKING, "ranks", value) for value in (None, 3, ["1"], [1.5], {"0": 1})),
        *((RANKING, "cycles", value) for value in ([3], [[0, 1]], [[0, 1, 2, 3]], [[0, 1, "2"]])),
        *((RANKING, "method", value) for value in ("best", 3, None)),
        *((SCORE, "value", value) for value in ("5", float("nan"), [])),
        *((SCORE, "comparisons", value) for value in ({}, [3], "x")),
        (SCORE, "trained", 1),
        (SCORE, "usage", {"total_tokens": 0.5}),
    ],
)
def test_rankings_and_scores_are_checked(made, field, wrong):
    value = json.loads(json.dumps(made.to_dict()))
    assert type(made).from_dict(value | {"another column": [1]}) == made
    with raises("data_invalid", field):
        type(made).from_dict(value | {field: wrong})


@pytest.mark.parametrize("made", [RANKING, SCORE])
def test_a_ranking_or_score_without_a_field_is_refused(made):
    with raises("data_invalid", "method"):
        type(made).from_dict({name: item for name, item in made.to_dict().items() if name != "method"})
