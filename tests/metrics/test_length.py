"""Accuracy by length, on planted decisions with numbers worked out by hand."""

import numpy as np
import pytest

from ste_jax.metrics.length import balanced_difference, by_length_ratio, length_balance, length_calibration
from ste_jax.metrics.policy import POLICIES, WRONG
from tests import result_cases

AGREES = {"A": ("A", "B"), "B": ("B", "A")}


def decided(i, label, choice, lengths, log_odds=2.0, **fields):
    """Returns a comparison on which both verdicts and the pooled decision prefer `choice`."""
    signed = log_odds if choice == "A" else -log_odds
    return result_cases.judged(f"c{i:04d}", label, AGREES[choice], lengths=lengths, log_odds=signed, **fields)


def test_the_balance_is_the_mean_of_two_accuracies():
    results = [
        # The better response is longer: right in 3 of 4.
        *(decided(i, "A", "A", (20, 10)) for i in range(3)),
        decided(3, "A", "B", (20, 10)),
        # Shorter: right in 1 of 2. Of equal length: no part of it.
        decided(4, "B", "B", (20, 10)),
        decided(5, "B", "A", (20, 10)),
        decided(6, "B", "A", (10, 10)),
    ]
    for row in length_balance(results, WRONG, seed=0).values():
        assert (row["accuracy"], row["gap"]) == (pytest.approx(5 / 8), pytest.approx(1 / 4))
        assert (row["longer"], row["shorter"]) == ({"n": 4, "accuracy": 0.75}, {"n": 2, "accuracy": 0.5})
        assert row["interval95"][0] < 5 / 8 < row["interval95"][1]
        assert row["gap_interval95"][0] < 1 / 4 < row["gap_interval95"][1]


def test_verdicts_and_pooled_decisions_are_told_apart():
    # Both verdicts say A; the pooled decision is right.
    results = [
        result_cases.judged(f"c{i}", "A", ("A", "A"), lengths=(9 + i % 2, 10 - i % 2), log_odds=1.0)
        for i in range(4)
    ]
    found = length_balance(results, WRONG, seed=0)
    assert (found["verdicts"]["accuracy"], found["pooled"]["accuracy"]) == (0.5, 1.0)


def test_a_judge_of_length_is_at_one_half_whatever_the_data():
    results = [decided(i, "AB"[i % 5 == 0], "A", (20, 10)) for i in range(100)]
    row = length_balance(results, WRONG, seed=0)["pooled"]
    assert (row["accuracy"], row["gap"]) == (0.5, 1.0)
    assert row["gap_interval95"][0] > 0.8
    assert row["interval95"][0] < 0.5 < row["interval95"][1]


def test_without_pairs_of_one_kind_there_is_no_balance():
    results = [decided(i, "A", "A", (20, 10)) for i in range(5)]
    row = length_balance(results, WRONG, seed=0)["pooled"]
    assert (row["accuracy"], row["interval95"], row["gap"], row["gap_interval95"]) == (None,) * 4
    assert row["shorter"] == {"n": 0, "accuracy": None}


def test_what_has_no_decision_counts_as_the_policy_says():
    results = [
        decided(0, "A", "A", (20, 10)),
        decided(1, "B", "B", (20, 10)),
        result_cases.judged("none", "B", (None, None), lengths=(20, 10)),
    ]
    shares = [
        length_balance(results, POLICIES[name], seed=0)["pooled"]["shorter"]["accuracy"]
        for name in ("wrong", "rewardbench", "dropped")
    ]
    assert shares == [0.5, 0.75, 1.0]


def test_intervals_draw_prompts():
    def width(prompts):
        results = [
            decided(
                i, "A", "AB"[i % prompts % 2], (20, 10) if i % 4 < 2 else (10, 20), prompt_id=str(i % prompts)
            )
            for i in range(400)
        ]
        low, high = length_balance(results, WRONG, seed=0)["pooled"]["interval95"]
        return high - low

    assert width(20) > 3 * width(400)


def test_quartiles_of_the_ratio_of_lengths():
    results = []
    for ratio, (better, worse) in enumerate(((10, 40), (10, 20), (20, 10), (40, 10))):
        for i in range(10):
            label = "AB"[i % 2]
            lengths = (better, worse) if label == "A" else (worse, better)
            longest = "A" if lengths[0] > lengths[1] else "B"
            results.append(decided(10 * ratio + i, label, longest, lengths))
    rows = by_length_ratio(results, WRONG, seed=0)
    assert [row["ratio"] for row in rows] == [pytest.approx([r, r]) for r in (0.25, 0.5, 2.0, 4.0)]
    assert [(row["n"], row["accuracy"]) for row in rows] == [(10, 0.0), (10, 0.0), (10, 1.0), (10, 1.0)]
    assert by_length_ratio([], WRONG, seed=0) == []


def test_equal_ratios_share_a_row():
    rows = by_length_ratio([decided(i, "A", "A", (0, 0)) for i in range(9)], WRONG, seed=0)
    assert [(row["ratio"], row["n"]) for row in rows] == [([1.0, 1.0], 9)]


def planted(coefficient, skill, count=2000):
    """Returns comparisons with log-odds `coefficient` * log ratio + `skill` for the better response."""
    rng = np.random.default_rng(0)
    results = []
    for i in range(count):
        lengths = tuple(int(n) for n in rng.integers(10, 200, 2))
        label = "AB"[i % 2]
        log_odds = coefficient * np.log(lengths[0] / lengths[1]) + (skill if label == "A" else -skill)
        log_odds += rng.normal() * 0.5
        results.append(
            result_cases.judged(f"c{i:04d}", label, ("A", "B"), lengths=lengths, log_odds=float(log_odds))
        )
    return results


def test_a_planted_coefficient_is_found_and_removed():
    results = planted(1.5, 0.6)
    before = length_balance(results, WRONG, seed=0)["pooled"]
    found = length_calibration(results, WRONG, seed=0)
    low, high = found["coefficient_interval95"]
    assert 1.2 < low < found["coefficient"] < high < 1.6
    assert before["gap"] > 0.4
    assert abs(found["length_balance"]["gap"]) < 0.1
    assert found["accuracy_pooled"] > 0.8


def test_without_a_preference_nothing_is_removed():
    results = planted(0.0, 1.0)
    found = length_calibration(results, WRONG, seed=0)
    low, high = found["coefficient_interval95"]
    assert low < 0 < high
    assert abs(found["coefficient"]) < 0.1


def test_extreme_log_odds_and_equal_lengths_have_a_coefficient():
    sure = [decided(i, "A", "A", (20, 10), log_odds=500.0) for i in range(5)]
    assert length_calibration(sure, WRONG, seed=0)["coefficient"] == pytest.approx(np.log(99) / np.log(2))
    alike = [decided(i, "A", "A", (10, 10)) for i in range(5)]
    found = length_calibration(alike, WRONG, seed=0)
    assert (found["coefficient"], found["coefficient_interval95"], found["accuracy_pooled"]) == (
        0.0,
        None,
        1.0,
    )


def test_the_difference_of_two_judges_is_balanced_too():
    lengths = [(20, 10)] * 9 + [(10, 20)]
    first = [decided(i, "A", "A", shape) for i, shape in enumerate(lengths)]
    longer = [decided(i, "A", "A" if shape[0] > 10 else "B", shape) for i, shape in enumerate(lengths)]
    found = balanced_difference(first, longer, WRONG, seed=0)
    assert (found["accuracy_a"], found["accuracy_b"], found["accuracy"]) == (1.0, 0.5, -0.5)
