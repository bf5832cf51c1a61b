"""Scores that choose checkpoints, from planted judgments."""

import pytest

from ste_jax.judging.validation import validation_scores
from ste_jax.records import ORDERS, Comparison, Judgment, Order


def comparison(number: int, kind: str) -> Comparison:
    return Comparison(
        id=f"{kind}{number}", instruction="q", response_a="good", response_b="bad", label="A", subset=kind
    )


def judged(pair: Comparison, order: Order, log_odds: float) -> Judgment:
    verdict = "A" if log_odds > 0 else "B"
    return Judgment(
        id=f"{pair.id}/{order}/0",
        pair_id=pair.id,
        order=order,
        sample=0,
        text="",
        tokens=[],
        verdict=verdict,
        status="ok",
        forced=True,
        correct=verdict == pair.correct_verdict(order),
        log_odds=log_odds,
    )


PAIRS = [comparison(n, kind) for kind in ("crossed", "padded") for n in range(4)]
# A lean to A of 2. In both orders together, all crossed pairs are right and one padded pair of four.
SIGNS = {"crossed": (1, 1, 1, 1), "padded": (1, -1, -1, -1)}
JUDGMENTS = [
    judged(pair, order, 2.0 + SIGNS[pair.subset][index % 4] * (1 if order == "as_given" else -1))
    for index, pair in enumerate(PAIRS)
    for order in ORDERS
]


@pytest.mark.parametrize(
    ("choose_by", "wanted"),
    [
        ("accuracy", {"": (8.0, 16)}),
        ("accuracy_pooled", {"": (5.0, 8)}),
        ("worst_kind", {"crossed": (4.0, 4), "padded": (1.0, 4)}),
    ],
)
def test_each_metric_counts_what_it_names(choose_by, wanted):
    assert validation_scores(PAIRS, JUDGMENTS, choose_by) == wanted


def test_pairs_of_other_processes_are_not_counted():
    assert validation_scores(PAIRS, JUDGMENTS[:4], "worst_kind") == {"crossed": (2.0, 2)}
    assert validation_scores(PAIRS, [], "worst_kind") == {}
