import dataclasses
import json

import numpy as np
import pytest
from scipy.stats import binom

from ste_jax.metrics.agreement import agreement
from ste_jax.metrics.stats import (
    WRONG,
    bootstrap_interval,
    evaluate_judgments,
    paired_test,
    wilson_interval,
)
from tests import result_cases
from tests.errors import raises


def judged(i, label, verdicts, statuses=("ok", "ok"), forced=(False, False), lengths=(10, 10), **fields):
    return result_cases.judged(f"pair-{i:05d}", label, verdicts, statuses, forced, lengths, **fields)


def other(label):
    return "B" if label == "A" else "A"


def test_planted_outcomes():
    pairs = [
        judged(0, "A", ("A", "B"), lengths=(20, 10)),  # right twice, prefers the longer
        judged(1, "B", ("B", "A"), lengths=(20, 10)),  # right twice, prefers the shorter
        judged(2, "A", ("A", "A"), lengths=(10, 20)),  # right, wrong: flips
        judged(3, "B", ("A", None), ("ok", "truncated"), (True, False)),  # wrong, none
        judged(4, "A", (None, "B"), ("missing", "both")),  # none, right
    ]
    result = evaluate_judgments(pairs, seed=0)
    assert result.n == 5
    assert result.accuracy_as_given == pytest.approx(3 / 5)
    assert result.accuracy_swapped == pytest.approx(3 / 5)
    assert result.accuracy == pytest.approx(6 / 10)
    assert result.consistent_accuracy == pytest.approx(2 / 5)
    assert result.flip_rate == pytest.approx(1 / 3)
    assert result.first_preference == pytest.approx(5 / 8)
    assert result.unparsed == {"missing": 1, "truncated": 1}
    assert result.forced == pytest.approx(1 / 10)
    assert result.longer_preference == pytest.approx(3 / 6)
    assert result.longer_correct == pytest.approx(1 / 3)
    assert result.scores["pair-00002"] == (True, False)
    value = json.loads(json.dumps(result.to_json()))
    assert value["interval95"] == list(result.interval95)
    assert not {"scores", "pooled_scores", "clusters"} & value.keys()
    assert evaluate_judgments(pairs[::-1], seed=0) == result


def test_always_a_is_right_half_of_the_time_and_never_consistent():
    pairs = [judged(i, "AB"[i % 2], ("A", "A")) for i in range(40)]
    result = evaluate_judgments(pairs, seed=0)
    assert (result.accuracy_as_given, result.accuracy_swapped, result.accuracy) == (0.5, 0.5, 0.5)
    assert (result.consistent_accuracy, result.flip_rate, result.first_preference) == (0.0, 1.0, 1.0)
    assert result.longer_preference is None
    low, high = result.interval95
    assert 0.3 < low < 0.5 < high < 0.7


def test_planted_position_and_length_bias():
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(2000):
        label = "AB"[int(rng.integers(2))]
        verdicts = tuple("A" if rng.random() < 0.8 else right for right in (label, other(label)))
        pairs.append(judged(i, label, verdicts, lengths=(9, 5) if label == "A" else (5, 9)))
    result = evaluate_judgments(pairs, seed=0)
    assert result.first_preference == pytest.approx(0.9, abs=0.02)
    assert result.accuracy == pytest.approx(0.6, abs=0.02)
    assert result.flip_rate == pytest.approx(0.8, abs=0.03)
    assert result.longer_preference == pytest.approx(result.accuracy)
    assert result.longer_correct == 1.0


def test_all_unparsed():
    result = evaluate_judgments(
        [judged(i, "A", (None, None), ("truncated", "missing")) for i in range(9)], seed=0
    )
    assert result.accuracy == result.consistent_accuracy == 0.0
    assert result.unparsed == {"missing": 9, "truncated": 9}
    assert result.flip_rate is None
    assert result.first_preference is None
    assert result.interval95[0] == 0.0
    assert 0.1 < result.interval95[1] < 0.5


def test_a_single_pair_and_a_perfect_judge_have_wide_enough_intervals():
    one = evaluate_judgments([judged(0, "A", ("A", "B"))], seed=0)
    assert one.accuracy == 1.0
    assert one.interval95 == one.consistent_interval95 == pytest.approx((0.2065, 1.0), abs=1e-4)
    half = evaluate_judgments([judged(0, "A", ("A", "A"))], seed=0)
    assert half.interval95[0] == 0.0
    assert half.interval95[1] == 1.0


def test_wilson_covers_at_the_nominal_rate():
    n, truth = 60, 0.8
    covered = [low <= truth <= high for low, high in (wilson_interval(k, n) for k in range(n + 1))]
    assert 0.93 < binom.pmf(np.arange(n + 1), n, truth) @ np.array(covered) < 0.97


def test_bootstrap_covers_at_about_the_nominal_rate_with_correlated_orders():
    rng = np.random.default_rng(1)
    trials, n = 60, 150
    covered = 0
    for trial in range(trials):
        skill = rng.beta(3, 1, size=(n, 1))  # mean 0.75; both orders of a pair share it
        low, high = bootstrap_interval((rng.random((n, 2)) < skill).mean(axis=1), seed=trial)
        covered += low <= 0.75 <= high
    assert covered >= binom.ppf(0.001, trials, 0.95)
    assert high - low > 1.96 * 2 * np.sqrt(0.75 * 0.25 / (2 * n))  # wider than for independent orders


def test_bootstrap_is_seeded():
    values = np.array([0, 0.5, 1, 1, 1, 0.5, 0, 1])
    assert bootstrap_interval(values, seed=5) == bootstrap_interval(values, seed=5)


def test_paired_test():
    right, wrong = ("A", "B"), ("B", "A")
    ids = range(20)
    a = evaluate_judgments([judged(i, "A", right) for i in ids], seed=0)
    b = evaluate_judgments([judged(i, "A", wrong if i < 5 else right) for i in ids], seed=0)
    result = paired_test(a, b, seed=0)
    assert (result.n, result.better, result.worse) == (20, 0, 5)
    # Only the five pairs that differ count, with both of their orders together: all signs equal, either way.
    assert result.p_value == pytest.approx(2 * 0.5**5, abs=0.01)
    assert paired_test(b, a, seed=0).better == 5
    assert paired_test(a, a, seed=0).p_value == 1.0
    assert json.loads(json.dumps(result.to_json()))["worse"] == 5


def test_paired_test_of_the_decisions():
    """A judge that always says A, but is surer where A is right, has all decisions right."""
    leaning = [judged(i, "A", ("A", "A")) for i in range(12)]
    sure = [
        dataclasses.replace(one, log_odds=1.0, probability_a=0.73, winner="A", abstained=None)
        for one in leaning
    ]
    a, b = (evaluate_judgments(results, seed=0) for results in (leaning, sure))
    assert paired_test(a, b, seed=0).better == 0
    pooled = paired_test(a, b, seed=0, pooled=True)
    assert (pooled.better, pooled.worse) == (12, 0)
    assert pooled.p_value < 0.01


def test_paired_test_flips_the_pairs_of_a_prompt_together():
    right, wrong = ("A", "B"), ("B", "A")

    def of_prompts(verdicts):
        pairs = [judged(i, "A", verdicts, prompt_id=f"q{i // 3}") for i in range(12)]
        return evaluate_judgments(pairs, seed=0)

    result = paired_test(of_prompts(wrong), of_prompts(right), seed=0)
    assert (result.n, result.better) == (12, 12)
    assert result.p_value == 2 * 0.5**4  # four coins, not twelve


def test_refusals():
    with raises("no_labels"):
        evaluate_judgments([], seed=0)
    with raises("no_labels"):
        evaluate_judgments([judged(0, "A", ("A", "A"))] * 2, seed=0)
    a, b = (evaluate_judgments([judged(i, "A", ("A", "A"))], seed=0) for i in (0, 1))
    with raises("pairs_differ", "pair-00000"):
        paired_test(a, b, seed=0)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(successes, n, low, high):
    # Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3.
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_kappa_of_a_textbook_table():
    # Two raters of 50 proposals: 20 times both yes, 15 times both no, 5 and 10 times they differ. Agreement
    # is 0.7, by chance 0.5.
    counts = {("A", "A"): 20, ("A", "B"): 5, ("B", "A"): 10, ("B", "B"): 15}
    both = [(says, label) for (says, label), n in counts.items() for _ in range(n)]
    pairs = [judged(i, label, (says, other(says))) for i, (says, label) in enumerate(both)]
    row = agreement(pairs, WRONG, 0)["with_ties"]
    assert (row["n"], row["agreement"], row["kappa"]) == (50, pytest.approx(0.7), pytest.approx(0.4))
