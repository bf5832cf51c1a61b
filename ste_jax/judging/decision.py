"""Decisions of comparisons: samples are pooled within an order, and the two orders into one probability.

The decision of a comparison is half the difference of the log-odds of its two orders,

    l = (logit P(first wins | A first) - logit P(first wins | B first)) / 2,

so an additive preference for a position cancels, and exchanging the responses changes only the sign of l. The
letters of the verdicts are reported but do not decide.
"""

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from ste_jax.judging.verdict import Verdict, parse_verdict
from ste_jax.metrics.policy import Policy
from ste_jax.metrics.vote import majority
from ste_jax.records import (
    ORDERS,
    Abstention,
    Comparison,
    ComparisonResult,
    Judgment,
    Label,
    Order,
    OrderResult,
)

# Bounds the probability of a sample before samples are averaged: none of them decides an order alone.
MIN_PROBABILITY = 0.01

Reader = Callable[[Judgment], Verdict]


@dataclasses.dataclass(frozen=True)
class DecisionRule:
    """Settings of the step from judgments to a decision.

    Attributes:
      temperature: calibration temperature T in probability_a = sigmoid(log_odds / T).
      threshold: the judge abstains ("low_confidence") below this confidence; 0 disables it.
      on_flip: "abstain" to abstain where the verdicts of the orders disagree, "probability" to decide by
        probability alone.
      seed: seed of the draw between equally frequent verdicts.
    """

    temperature: float = 1.0
    threshold: float = 0.0
    on_flip: Literal["probability", "abstain"] = "probability"
    seed: int = 0


def stored_verdict(judgment: Judgment) -> Verdict:
    """Returns the verdict as it was read when the judgment was made."""
    return Verdict(judgment.verdict, judgment.status)


def reparse(judgment: Judgment, policy: Policy) -> Verdict:
    """Returns the verdict of a judgment's text under a policy."""
    verdict = parse_verdict(judgment.text, truncated=judgment.finish == "length")
    if policy.name == "rewardbench" and verdict.status == "both":
        # RewardBench looks for [[A]] before [[B]], wherever they stand.
        return Verdict("A", "both")
    return verdict


def sigmoid(x: float) -> float:
    """Returns 1 / (1 + exp(-x)) such that sigmoid(-x) is exactly 1 - sigmoid(x) as computed here."""
    p = 1.0 / (1.0 + math.exp(-abs(x))) if abs(x) < 700 else 1.0
    return p if x >= 0 else 1.0 - p


def logit(p: float) -> float:
    """Returns log(p / (1 - p))."""
    return math.log(p) - math.log1p(-p)


def _first_wins(judgment: Judgment, verdict: Label) -> float:
    """Returns the probability, by one sample, that the response shown first is better."""
    if judgment.log_odds is not None and verdict == judgment.verdict:
        return sigmoid(judgment.log_odds)
    return 1.0 if verdict == "A" else 0.0


def pooled_log_odds(samples: Sequence[tuple[Judgment, Label]]) -> float | None:
    """Returns the log-odds that the first response is better, over (judgment, verdict) of one order.

    One sample keeps its own log-odds. Probabilities of several are clipped to [`MIN_PROBABILITY`,
    1 - `MIN_PROBABILITY`] and averaged. None if there are no samples.
    """
    if not samples:
        return None
    if len(samples) == 1:
        judgment, verdict = samples[0]
        if judgment.log_odds is not None and verdict == judgment.verdict:
            return judgment.log_odds
    # Both halves of the average are summed the same way, so that exchanging the letters negates the result.
    first = [min(max(_first_wins(j, v), MIN_PROBABILITY), 1.0 - MIN_PROBABILITY) for j, v in samples]
    total, rest = math.fsum(first), math.fsum(1.0 - p for p in first)
    return math.log(total) - math.log(rest)


def order_result(
    key: str, order: Order, judgments: Sequence[Judgment], *, seed: int, read: Reader = stored_verdict
) -> OrderResult:
    """Returns the result of one order from its samples.

    Args:
      key: id of the comparison and order; the draw between equally frequent verdicts depends on it.
      order: the order.
      judgments: samples of the order, at least one.
      seed: seed of the draw.
      read: reads the verdict of a judgment.
    """
    read_samples = [(judgment, read(judgment)) for judgment in judgments]
    with_verdict: list[tuple[Judgment, Label]] = [
        (judgment, verdict.label) for judgment, verdict in read_samples if verdict.label
    ]
    label = majority([verdict.label for _, verdict in read_samples], seed_key=(seed, key))
    shown, verdict = next((pair for pair in read_samples if pair[1].label == label), read_samples[0])
    reason = Counter(v.status for _, v in read_samples).most_common(1)[0][0]
    single = len(judgments) == 1
    log_odds = pooled_log_odds(with_verdict)
    return OrderResult(
        order=order,
        verdict=label,
        log_odds=log_odds,
        probability_first=None if log_odds is None else sigmoid(log_odds),
        text=shown.text,
        status=verdict.status if single else ("ok" if label else reason),
        finish_reason=shown.finish,
        forced=sum(judgment.forced for judgment in judgments) / len(judgments),
        samples=len(judgments),
    )


def decide(
    comparison: Comparison,
    orders: Sequence[OrderResult],
    rule: DecisionRule = DecisionRule(),
    *,
    usage: dict[str, int] | None = None,
    prompt_digest: str = "",
) -> ComparisonResult:
    """Returns the decision on a comparison from the results of one or both orders."""
    log_odds = _pooled_over_orders(orders)
    consistent = None
    if len(orders) == 2 and all(order.verdict for order in orders):
        consistent = orders[0].verdict != orders[1].verdict
    if log_odds is None:
        return ComparisonResult(
            comparison=comparison,
            orders=tuple(orders),
            abstained="no_verdict",
            usage=usage or {},
            prompt_digest=prompt_digest,
        )
    probability = sigmoid(log_odds / rule.temperature)
    confidence = max(probability, 1.0 - probability)
    abstained: Abstention | None = None
    if log_odds == 0.0:
        abstained = "tie"
    elif consistent is False and rule.on_flip == "abstain":
        abstained = "flip"
    elif confidence < rule.threshold:
        abstained = "low_confidence"
    return ComparisonResult(
        comparison=comparison,
        orders=tuple(orders),
        winner=None if abstained else ("A" if log_odds > 0 else "B"),
        probability_a=probability,
        log_odds=log_odds,
        confidence=confidence,
        consistent=consistent,
        abstained=abstained,
        usage=usage or {},
        prompt_digest=prompt_digest,
    )


def _pooled_over_orders(orders: Sequence[OrderResult]) -> float | None:
    """Returns the log-odds that response A is better, or None if an order has no verdict."""
    by_order = {order.order: order.log_odds for order in orders}
    if not by_order or None in by_order.values():
        return None
    if len(by_order) == 1:
        ((order, value),) = by_order.items()
        return value if order == "as_given" else -value  # type: ignore[operator]
    return (by_order["as_given"] - by_order["swapped"]) / 2  # type: ignore[operator]


def undecided(
    comparison: Comparison, reason: Abstention, *, prompt_digest: str = "", error: str | None = None
) -> ComparisonResult:
    """Returns the result of a comparison that was not judged. A tie has probability 0.5, others have none."""
    is_tie = reason == "tie"
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    return ComparisonResult(
        comparison=comparison,
        probability_a=0.5 if is_tie else None,
        log_odds=0.0 if is_tie else None,
        confidence=0.5 if is_tie else None,
        abstained=reason,
        usage=usage,
        prompt_digest=prompt_digest,
        error=error,
    )


def results_of(
    comparisons: Iterable[Comparison],
    judgments: Iterable[Judgment],
    *,
    seed: int,
    read: Reader = stored_verdict,
) -> Iterator[ComparisonResult]:
    """Yields the result of every comparison that was judged in both orders."""
    found: dict[tuple[str, Order], list[Judgment]] = defaultdict(list)
    for judgment in judgments:
        found[judgment.pair_id, judgment.order].append(judgment)
    rule = DecisionRule(seed=seed)
    for comparison in comparisons:
        samples = [found.get((comparison.id, order), []) for order in ORDERS]
        if all(samples):
            yield decide(
                comparison,
                [
                    order_result(
                        f"{comparison.id}/{order}",
                        order,
                        sorted(group, key=lambda judgment: judgment.sample),
                        seed=seed,
                        read=read,
                    )
                    for order, group in zip(ORDERS, samples, strict=True)
                ],
                rule,
            )


def unparsed_samples(judgments: Iterable[Judgment], *, read: Reader = stored_verdict) -> dict[str, int]:
    """Returns the number of samples without a verdict, by status."""
    verdicts = map(read, judgments)
    return dict(sorted(Counter(v.status for v in verdicts if v.label is None).items()))


def votes_by_example(
    comparisons: Iterable[Comparison], judgments: Iterable[Judgment], read: Reader = stored_verdict
) -> tuple[dict[str, Label], dict[str, list[Label | None]]]:
    """Returns correct verdicts and sampled verdicts by "ID/ORDER" of the labelled comparisons, for
    `metrics.vote.vote_curve`.
    """
    samples: dict[str, list[Judgment]] = defaultdict(list)
    for judgment in judgments:
        samples[f"{judgment.pair_id}/{judgment.order}"].append(judgment)
    labels, verdicts = {}, {}
    for comparison in comparisons:
        keys: dict[Order, str] = {order: f"{comparison.id}/{order}" for order in ORDERS}
        if comparison.label not in ("A", "B") or not all(key in samples for key in keys.values()):
            continue
        for order, key in keys.items():
            labels[key] = comparison.correct_verdict(order)
            verdicts[key] = [read(j).label for j in sorted(samples[key], key=lambda j: j.sample)]
    return labels, verdicts
