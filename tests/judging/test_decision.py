import math

import pytest

from ste_jax.judging.decision import (
    MIN_PROBABILITY,
    DecisionRule,
    decide,
    order_result,
    pooled_log_odds,
    results_of,
    sigmoid,
    undecided,
)
from ste_jax.records import Comparison, ComparisonResult, Judgment, OrderResult

PAIR = Comparison(id="p", instruction="x", response_a="a", response_b="b", label="A")


def sample(verdict, log_odds=None, order="as_given", number=0, status="ok") -> Judgment:
    return Judgment(
        id=f"p/{order}/{number}",
        pair_id="p",
        order=order,
        sample=number,
        text=f"[[{verdict}]]" if verdict else "nothing",
        tokens=[],
        verdict=verdict,
        status=status if verdict else "missing",
        forced=False,
        correct=None,
        log_odds=log_odds,
    )


def order(name, *samples: Judgment) -> OrderResult:
    return order_result(f"p/{name}", name, samples, seed=0)


def decision(given: float | None, swapped: float | None, **rule) -> ComparisonResult:
    """Returns the decision from greedy judgments with these log-odds."""
    orders = [
        order(name, sample(None if value is None else "A" if value >= 0 else "B", value, name))
        for name, value in (("as_given", given), ("swapped", swapped))
    ]
    return decide(PAIR, orders, DecisionRule(**rule))


@pytest.mark.parametrize(("given", "swapped"), [(1.25, -0.5), (0.1, 0.3), (-7.0, 3.0), (2.0, 1.9999)])
def test_exchanging_the_responses_negates_the_log_odds_bit_for_bit(given, swapped):
    one, other = decision(given, swapped), decision(swapped, given)
    assert one.log_odds == -other.log_odds == (given - swapped) / 2
    assert one.probability_a == 1.0 - other.probability_a or other.probability_a == 1.0 - one.probability_a
    assert {one.winner, other.winner} == {"A", "B"}
    assert one.confidence == other.confidence


def test_an_additive_position_bias_cancels():
    plain = decision(0.5, -0.5)
    biased = decision(0.5 + 3.0, -0.5 + 3.0)
    assert biased.log_odds == plain.log_odds == 0.5
    assert (plain.consistent, biased.consistent) == (True, False)
    assert biased.winner == "A"


def test_abstentions_and_their_precedence():
    flipped = decision(3.5, 2.5, on_flip="abstain", threshold=0.99)
    assert (flipped.winner, flipped.abstained, flipped.consistent) == (None, "flip", False)
    assert flipped.probability_a == pytest.approx(sigmoid(0.5))
    unsure = decision(0.5, -0.5, threshold=0.9)
    assert (unsure.winner, unsure.abstained) == (None, "low_confidence")
    assert decision(0.5, -0.5, threshold=0.6).winner == "A"
    tie = decision(2.0, 2.0, on_flip="abstain")
    assert (tie.winner, tie.abstained, tie.probability_a, tie.log_odds) == (None, "tie", 0.5, 0.0)
    silent = decision(None, 1.0)
    assert (silent.winner, silent.abstained, silent.probability_a, silent.confidence) == (
        None,
        "no_verdict",
        None,
        None,
    )
    long = undecided(PAIR, "too_long")
    assert (long.abstained, long.probability_a, long.orders) == ("too_long", None, ())
    same = undecided(PAIR, "tie")
    assert (same.winner, same.probability_a, same.confidence) == (None, 0.5, 0.5)


def test_the_temperature_changes_the_probability_and_not_the_winner():
    plain, warm = decision(4.0, -4.0), decision(4.0, -4.0, temperature=4.0)
    assert warm.log_odds == plain.log_odds == 4.0
    assert warm.probability_a == pytest.approx(sigmoid(1.0))
    assert warm.winner == plain.winner == "A"


def test_one_order_has_no_consistency():
    result = decide(PAIR, [order("as_given", sample("B", -2.0))])
    assert (result.winner, result.consistent, result.log_odds) == ("B", None, -2.0)
    turned = decide(PAIR, [order("swapped", sample("B", -2.0, "swapped"))])
    assert (turned.winner, turned.log_odds) == ("A", 2.0)


def test_samples_are_averaged_as_clipped_probabilities():
    samples = [sample("A", 0.4, number=0), sample("B", -1.0, number=1), sample("A", 80.0, number=2)]
    expected = (sigmoid(0.4) + sigmoid(-1.0) + 1.0 - MIN_PROBABILITY) / 3
    result = order("as_given", *samples, sample(None, number=3))
    assert result.probability_first == pytest.approx(expected)
    assert (result.verdict, result.samples, result.text) == ("A", 4, "[[A]]")
    # However sure a single sample is, the others are heard.
    against = [sample("B", -0.5, number=i) for i in range(3)]
    assert order("as_given", sample("A", 500.0), *against).probability_first < 0.6


def test_samples_without_log_odds_vote_with_a_clipped_verdict():
    assert pooled_log_odds([(sample("A"), "A")]) == pytest.approx(math.log(99))
    assert pooled_log_odds([(sample("A"), "A"), (sample("B"), "B")]) == pytest.approx(0.0)
    assert pooled_log_odds([]) is None


def test_results_need_both_orders_and_round_trip_through_json():
    judgments = [sample("A", 1.0, "as_given"), sample("B", -2.0, "swapped")]
    (result,) = results_of(
        [PAIR, Comparison(id="q", instruction="x", response_a="a", response_b="b")], judgments, seed=0
    )
    assert (result.id, result.log_odds, result.agreed, result.preferred) == ("p", 1.5, "A", ("A", "A"))
    assert ComparisonResult.from_dict(PAIR, result.to_dict()) == result
