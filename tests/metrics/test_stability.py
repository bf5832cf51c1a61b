"""Flips with the order and changes of decisions, counted by hand."""

import pytest

from ste_jax.metrics.stability import changed_decisions, order_flips, share_of
from tests import result_cases


def decided(i, label, log_odds):
    return result_cases.judged(f"c{i}", label, ("A", "B"), log_odds=log_odds)


def test_flips_count_where_both_orders_have_a_verdict():
    verdicts = [("A", "B"), ("A", "A"), ("B", "B"), ("A", None)]
    results = [result_cases.judged(f"c{i}", "A", pair) for i, pair in enumerate(verdicts)]
    found = order_flips(results, seed=0)
    assert (found["n"], found["share"]) == (3, pytest.approx(2 / 3))
    assert found["interval95"][0] < 2 / 3 < found["interval95"][1]


def test_changes_are_counted_by_direction():
    before = [decided(0, "A", 1.0), decided(1, "A", -1.0), decided(2, "B", -1.0), decided(3, "tie", 1.0)]
    after = [decided(0, "A", -2.0), decided(1, "A", 0.5), decided(2, "B", -9.0), decided(3, "tie", -1.0)]
    found = changed_decisions(before, after, seed=0)
    assert (found["n"], found["share"], found["to_right"], found["to_wrong"]) == (4, 0.75, 1, 1)


def test_what_only_one_judge_decided_does_not_count():
    before, after = (
        [decided(0, "A", 1.0), decided(1, "A", None)],
        [decided(1, "A", 1.0), decided(2, "A", 1.0)],
    )
    found = changed_decisions(before, after, seed=0)
    assert found == {"n": 0, "share": None, "interval95": None, "to_right": 0, "to_wrong": 0}


def test_exactly_even_log_odds_are_a_decision_of_their_own():
    found = changed_decisions([decided(0, "A", 0.0)], [decided(0, "A", 0.1)], seed=0)
    assert (found["share"], found["to_right"], found["to_wrong"]) == (1.0, 1, 0)


def test_values_that_are_missing_leave_the_share():
    found = share_of([1.0, float("nan"), 0.0], ["p", "q", "r"], seed=0)
    assert (found["n"], found["share"]) == (2, 0.5)
