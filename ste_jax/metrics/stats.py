"""Accuracy of a judge on labelled comparisons that were judged in both orders, with intervals and tests.

Comparisons of one prompt are not independent observations, so intervals are bootstraps over prompts.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from ste_jax.errors import SteError
from ste_jax.metrics.policy import WRONG, Policy
from ste_jax.metrics.traits import surface_of
from ste_jax.randomness import generator
from ste_jax.records import ComparisonResult


def scores_of(result: ComparisonResult, policy: Policy) -> tuple[float, ...]:
    """Returns the score of the verdict of each order: 1 right, 0 wrong, NaN left out."""
    label = result.comparison.label
    return tuple(policy.unparsed_score if p is None else float(p == label) for p in result.preferred)


def pooled_score(result: ComparisonResult, policy: Policy) -> float:
    """Returns the score of the pooled decision: 1 right, 0 wrong, 0.5 where the log-odds are exactly 0."""
    if result.log_odds is None:
        return policy.unparsed_score
    if result.log_odds == 0.0:
        return 0.5
    return float(("A" if result.log_odds > 0 else "B") == result.comparison.label)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metrics:
    """Metrics of one judge on one set of comparisons. A share over no judgments is None.

    Attributes:
      n: number of comparisons that have a better response.
      ties: number of comparisons labelled as ties, which enter no other number here.
      accuracy_as_given, accuracy_swapped: mean score of the verdicts in that order.
      accuracy: mean score of all verdicts.
      interval95: interval of `accuracy`; bootstrap over prompts (both orders go together).
      accuracy_pooled: accuracy of the pooled decision, the sign of `ComparisonResult.log_odds`.
      pooled_interval95: interval of `accuracy_pooled`; bootstrap over prompts.
      consistent_accuracy: share of comparisons whose verdicts are right in both orders.
      consistent_interval95: interval of `consistent_accuracy`; bootstrap over prompts.
      flip_rate: share of comparisons whose two verdicts prefer different responses, among those with both.
      first_preference: share of verdicts that say "A".
      unparsed: number of the 2n judgments without a verdict, by status.
      forced: share of the 2n judgments (of votes: of their samples) whose verdict was forced.
      longer_preference: share of verdicts that prefer the longer response, where lengths differ.
      longer_correct: share of comparisons whose better response is the longer one, where lengths differ.
      scores: (as given, swapped) by comparison id, which `paired_test` compares. Not part of the JSON.
      pooled_scores: score of the pooled decision by comparison id. Not part of the JSON.
      clusters: `Comparison.cluster` by comparison id. Not part of the JSON.
    """

    n: int
    ties: int
    accuracy_as_given: float | None
    accuracy_swapped: float | None
    accuracy: float | None
    interval95: tuple[float, float] | None
    accuracy_pooled: float | None
    pooled_interval95: tuple[float, float] | None
    consistent_accuracy: float | None
    consistent_interval95: tuple[float, float] | None
    flip_rate: float | None
    first_preference: float | None
    unparsed: dict[str, int]
    forced: float
    longer_preference: float | None
    longer_correct: float | None
    scores: dict[str, tuple[float, ...]]
    pooled_scores: dict[str, float]
    clusters: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Returns the metrics as a JSON-ready dict."""
        value = dataclasses.asdict(self)
        del value["scores"], value["pooled_scores"], value["clusters"]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in value.items()}


def evaluate_judgments(results: Sequence[ComparisonResult], *, seed: int, policy: Policy = WRONG) -> Metrics:
    """Returns the metrics of one judge.

    Args:
      results: judged in both orders; those without a better response only count as ties.
      seed: seed of the bootstrap.
      policy: score of a judgment without a verdict.

    Raises:
      SteError: there is no comparison with a better response, or an id occurs twice ("no_labels").
    """
    labelled = sorted((r for r in results if r.comparison.label in ("A", "B")), key=lambda r: r.id)
    ties = len(results) - len(labelled)
    scores = {result.id: scores_of(result, policy) for result in labelled}
    if not labelled or len(scores) != len(labelled):
        none = f"no judged comparison with a better response ({ties} ties); add at least one"
        raise SteError(
            "no_labels", f"evaluation: {'an id occurs twice; merge the rows' if labelled else none}"
        )
    score = np.array(list(scores.values()))
    pooled = np.array([pooled_score(result, policy) for result in labelled])
    consistent = np.where(np.isnan(score).any(axis=1), np.nan, (score == 1.0).all(axis=1))
    clusters = [result.comparison.cluster for result in labelled]
    orders = [order for result in labelled for order in result.orders]
    agreed = [result.agreed for result in labelled if result.agreed]
    longer_preferred, longer_right = _length_bias(labelled)
    unparsed = Counter(order.status for order in orders if order.verdict is None)
    return Metrics(
        n=len(labelled),
        ties=ties,
        accuracy_as_given=mean(score[:, 0]),
        accuracy_swapped=mean(score[:, 1]),
        accuracy=mean(score),
        interval95=bootstrap_interval(score, clusters, seed=seed),
        accuracy_pooled=mean(pooled),
        pooled_interval95=bootstrap_interval(pooled, clusters, seed=seed),
        consistent_accuracy=mean(consistent),
        consistent_interval95=bootstrap_interval(consistent, clusters, seed=seed),
        flip_rate=_share([outcome == "tie" for outcome in agreed]),
        first_preference=_share([order.verdict == "A" for order in orders if order.verdict]),
        unparsed=dict(sorted(unparsed.items())),
        forced=float(np.mean([order.forced for order in orders])),
        longer_preference=longer_preferred,
        longer_correct=longer_right,
        scores=scores,
        pooled_scores={result.id: float(one) for result, one in zip(labelled, pooled, strict=True)},
        clusters={result.id: result.comparison.cluster for result in labelled},
    )


def mean(values: np.ndarray) -> float | None:
    """Returns the mean of the values that are not NaN, or None if there are none."""
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _length_bias(results: Sequence[ComparisonResult]) -> tuple[float | None, float | None]:
    """Returns (longer_preference, longer_correct)."""
    unequal = [(r, longer) for r in results if (longer := surface_of(r.comparison).longer)]
    preferred = [choice == longer for r, longer in unequal for choice in r.preferred if choice]
    return _share(preferred), _share([r.comparison.label == longer for r, longer in unequal])


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def bootstrap_interval(
    values: np.ndarray, clusters: Sequence[str] | None = None, *, seed: int
) -> tuple[float, float] | None:
    """Returns the 95% percentile bootstrap interval of the mean of the values that count.

    Clusters of pairs are drawn, and the mean is taken over the values in them. Where all clusters have the
    same mean, or there is but one, resampling shows no spread at all; the Wilson interval for that many
    clusters is given instead.

    Args:
      values: [pairs] or [pairs, orders], within 0 and 1; NaN does not count.
      clusters: cluster of each pair; None: every pair is a cluster.
      seed: seed of the draw.

    Returns:
      (low, high), or None if no value counts.
    """
    sums, counts = cluster_sums(values, clusters)
    if not len(counts):
        return None
    if len(counts) == 1 or np.ptp(sums / counts) == 0:
        return wilson_interval(float(sums.sum() / counts.sum() * len(counts)), len(counts))
    return _bootstrap(sums, counts, generator(seed, "bootstrap"))


def difference_interval(
    differences: np.ndarray, clusters: Sequence[str] | None = None, *, seed: int
) -> tuple[float, float] | None:
    """Returns the same interval for differences [pairs] of two judges.

    None if all clusters have the same difference, such as 0: resampling then shows no spread.
    """
    sums, counts = cluster_sums(differences, clusters)
    if np.ptp(sums / counts) == 0:
        return None
    return _bootstrap(sums, counts, generator(seed, "paired bootstrap"))


def cluster_sums(values: np.ndarray, clusters: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sum of the values that count, and their number, of each cluster that has any."""
    values = values[:, None] if values.ndim == 1 else values
    _, index = np.unique(clusters if clusters is not None else np.arange(len(values)), return_inverse=True)
    sums = np.bincount(index, np.nansum(values, axis=1))
    counts = np.bincount(index, (~np.isnan(values)).sum(axis=1))
    return sums[counts > 0], counts[counts > 0]


def _bootstrap(sums: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    interval = stats.bootstrap(
        (sums, counts),
        lambda total, count, axis: total.sum(axis) / count.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=9999,
        batch=250,
        method="percentile",
        rng=rng,
    ).confidence_interval
    return float(interval.low), float(interval.high)


def wilson_interval(successes: float, n: int) -> tuple[float, float]:
    """Returns the 95% Wilson interval of a share; a fractional number of successes is rounded outwards."""
    successes = round(successes, 6)  # a weighted mean times n is a whole number but for the last bits
    low = stats.binomtest(math.floor(successes), n).proportion_ci(method="wilson").low
    high = stats.binomtest(math.ceil(successes), n).proportion_ci(method="wilson").high
    return float(low), float(high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedTest:
    """A sign-flip permutation test of the accuracies of two judges on the same pairs.

    Attributes:
      n: number of pairs; both orders of a pair go together, and so do all pairs of a prompt.
      better: number of pairs on which the second judge is right more often than the first.
      worse: number of pairs on which it is right less often.
      p_value: two-sided p-value of the mean difference; 1 if the judges never differ.
    """

    n: int
    better: int
    worse: int
    p_value: float

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a JSON-ready dict."""
        return dataclasses.asdict(self)


def paired_test(first: Metrics, second: Metrics, *, seed: int, pooled: bool = False) -> PairedTest:
    """Tests whether two judges differ in accuracy.

    Args:
      first, second: evaluations of the judges on the same comparisons.
      seed: seed of the draws of signs.
      pooled: True to test the pooled decisions, False to test the verdicts of both orders.

    Raises:
      SteError: they did not judge the same comparisons ("pairs_differ").
    """
    if first.scores.keys() != second.scores.keys():
        stray = min(first.scores.keys() ^ second.scores.keys())
        raise SteError(
            "pairs_differ",
            f"paired test: {stray} was judged by one model only; evaluate both on the same comparisons",
        )
    ids = sorted(first.scores)
    by_pair = [e.pooled_scores if pooled else e.scores for e in (second, first)]
    scores = [np.array([np.mean(one[pair]) for pair in ids]) for one in by_pair]
    difference = scores[0] - scores[1]
    return PairedTest(
        n=len(ids),
        better=int((difference > 0).sum()),
        worse=int((difference < 0).sum()),
        p_value=sign_flip_test(difference, [first.clusters[pair] for pair in ids], seed=seed),
    )


def sign_flip_test(differences: np.ndarray, clusters: Sequence[str] | None = None, *, seed: int) -> float:
    """Returns the two-sided p-value of the mean of `differences` [pairs]; 1 if there are none.

    Under the null hypothesis the sign of each cluster's difference is random. With few clusters all signs are
    enumerated, otherwise 9,999 are drawn.
    """
    sums, _ = cluster_sums(differences, clusters)
    # With a single cluster both signs are equally extreme.
    if len(sums) < 2 or not np.any(sums):
        return 1.0
    test = stats.permutation_test(
        (sums,),
        np.mean,
        permutation_type="samples",
        n_resamples=9999,
        batch=500,
        rng=generator(seed, "paired test"),
    )
    return float(test.pvalue)
