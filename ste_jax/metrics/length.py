"""The part of a judge's decisions that the lengths of the responses explain.

A judge that prefers the longer response is right wherever the better response is the longer one. Its
length-balanced accuracy, in which pairs with a longer and with a shorter better response weigh the same, is
50% whatever the share of either in the data.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy import optimize, special

from ste_jax.metrics.policy import Policy
from ste_jax.metrics.stats import bootstrap_interval, mean, pooled_score, scores_of, wilson_interval
from ste_jax.metrics.subsets import Scored, Subsets
from ste_jax.metrics.traits import surface_of
from ste_jax.records import ComparisonResult

_LONGER, _SHORTER = "longer", "shorter"
_HALVES = {_LONGER: 0.5, _SHORTER: 0.5}
_GAP = {_LONGER: 1.0, _SHORTER: -1.0}
# Bounds the probabilities that the coefficient of the length is fitted to.
_LEAST = 0.01

Score = Callable[[ComparisonResult], float | tuple[float, ...]]


def length_balance(
    results: Sequence[ComparisonResult], policy: Policy, *, seed: int
) -> dict[str, dict[str, Any]]:
    """Returns the length-balanced accuracy of single verdicts, `verdicts`, and of pooled decisions, `pooled`.

    Each is a dict of `accuracy`, the mean of the accuracies where the better response is longer and where it
    is shorter, their difference `gap`, the intervals of both, and `longer` and `shorter` with the number and
    the accuracy of these pairs. Pairs of equal lengths do not count. Without pairs of one kind, accuracy and
    gap are None.
    """
    return {
        "verdicts": _balance(results, lambda result: scores_of(result, policy), seed),
        "pooled": _balance(results, lambda result: pooled_score(result, policy), seed),
    }


def _balance(results: Sequence[ComparisonResult], score: Score, seed: int) -> dict[str, Any]:
    subsets = Subsets(by_longer(results, score), seed=seed)
    balanced = subsets.mean(_HALVES)
    gap, gap_interval = None, None
    if not balanced["missing"]:
        gap, gap_interval = subsets.contrast(_GAP)
        gap_interval = gap_interval or _newcombe(subsets)
    return {
        "accuracy": balanced["accuracy"],
        "interval95": balanced["interval95"],
        "gap": gap,
        "gap_interval95": None if gap_interval is None else list(gap_interval),
        **{name: _row(subsets, name) for name in _HALVES},
    }


def by_longer(results: Sequence[ComparisonResult], score: Score) -> Iterator[Scored]:
    """Yields scores as rows of `Subsets`: "longer" where the better response is the longer one, "shorter"
    where it is the shorter one.
    """
    for result in results:
        comparison = result.comparison
        if comparison.label in ("A", "B") and (longer := surface_of(comparison).longer):
            name = _LONGER if longer == comparison.label else _SHORTER
            yield comparison.cluster, name, np.atleast_1d(np.array(score(result), float))


def balanced_difference(
    first: Sequence[ComparisonResult], second: Sequence[ComparisonResult], policy: Policy, *, seed: int
) -> dict[str, Any]:
    """Returns the length-balanced accuracies of the pooled decisions of two judges and their difference.

    Args:
      first: results of the first judge.
      second: results of the second judge on the same comparisons, in the same order.
      policy: score of a comparison without a decision.
      seed: seed of the draws.
    """
    a, b = (_balance(results, lambda r: pooled_score(r, policy), seed) for results in (first, second))
    found: dict[str, Any] = {"accuracy_a": a["accuracy"], "accuracy_b": b["accuracy"]}
    before = {result.id: pooled_score(result, policy) for result in first}
    rows = by_longer(second, lambda result: pooled_score(result, policy) - before[result.id])
    differences = Subsets(rows, seed=seed)
    if differences.missing(list(_HALVES)):
        return found | {"accuracy": None, "interval95": None}
    difference, interval = differences.contrast(_HALVES)
    return found | {"accuracy": difference, "interval95": None if interval is None else list(interval)}


def _row(subsets: Subsets, name: str) -> dict[str, Any]:
    n = subsets.count(name)
    return {"n": n, "accuracy": subsets.accuracy(name) if n else None}


def _newcombe(subsets: Subsets) -> tuple[float, float]:
    """Returns Newcombe's interval of the gap from the Wilson intervals, for draws without any spread."""
    longer, shorter = (subsets.accuracy(name) for name in _HALVES)
    numbers = [subsets.prompts(name) for name in _HALVES]
    bounds = [wilson_interval(p * n, n) for p, n in zip((longer, shorter), numbers, strict=True)]
    below = math.hypot(longer - bounds[0][0], bounds[1][1] - shorter)
    above = math.hypot(bounds[0][1] - longer, shorter - bounds[1][0])
    return longer - shorter - below, longer - shorter + above


def by_length_ratio(
    results: Sequence[ComparisonResult], policy: Policy, *, seed: int
) -> list[dict[str, Any]]:
    """Returns the accuracy of pooled decisions in the quartiles of the ratio of lengths, better to worse.

    Each row has the lowest and highest `ratio`, the number of pairs, the accuracy and its interval. Equal
    ratios are in one row, so there may be fewer than four.
    """
    labelled = [result for result in results if result.comparison.label in ("A", "B")]
    if not labelled:
        return []
    ratios = np.exp([-_log_ratio(result, worse_first=True) for result in labelled])
    quartile = np.searchsorted(np.quantile(ratios, (0.25, 0.5, 0.75)), ratios)
    scores = np.array([pooled_score(result, policy) for result in labelled])
    rows = []
    for number in np.unique(quartile):
        here = np.flatnonzero(quartile == number)
        clusters = [labelled[i].comparison.cluster for i in here]
        rows.append(
            {
                "ratio": [float(ratios[here].min()), float(ratios[here].max())],
                "n": len(here),
                "accuracy": mean(scores[here]),
                "interval95": bootstrap_interval(scores[here], clusters, seed=seed),
            }
        )
    return rows


def _log_ratio(result: ComparisonResult, *, worse_first: bool = False) -> float:
    """Returns log(length of A / length of B), or of the worse to the better response."""
    surface = surface_of(result.comparison)
    # An empty response counts as one character.
    ratio = math.log(max(surface.length_a, 1) / max(surface.length_b, 1))
    return -ratio if worse_first and result.comparison.label == "A" else ratio


def length_calibration(results: Sequence[ComparisonResult], policy: Policy, *, seed: int) -> dict[str, Any]:
    """Returns the accuracy of pooled decisions after the part that lengths explain is subtracted.

    The coefficient c of P(A) = sigmoid(c log(length of A / length of B)) is fitted to the probabilities of
    the judge, without labels, and c log(...) is subtracted from the log-odds. Where longer responses are
    better, this also removes what is right about them.

    Returns:
      `coefficient` and its interval (robust to pairs of one prompt), `n`, the pairs that it is fitted on, the
      accuracy of pooled decisions with its interval, and `length_balance` of pooled decisions.
    """
    decided = [result for result in results if result.log_odds is not None]
    x = np.array([_log_ratio(result) for result in decided])
    probability = special.expit(np.array([result.log_odds for result in decided], float))
    clusters = [result.comparison.cluster for result in decided]
    coefficient, interval = _fit(x, probability, clusters)
    corrected = [_without_length(result, coefficient) for result in results]
    labelled = [result for result in corrected if result.comparison.label in ("A", "B")]
    scores = np.array([pooled_score(result, policy) for result in labelled])
    return {
        "coefficient": coefficient,
        "coefficient_interval95": interval,
        "n": len(decided),
        "accuracy_pooled": mean(scores),
        "pooled_interval95": bootstrap_interval(
            scores, [result.comparison.cluster for result in labelled], seed=seed
        ),
        "length_balance": _balance(labelled, lambda result: pooled_score(result, policy), seed),
    }


def _fit(x: np.ndarray, probability: np.ndarray, clusters: Sequence[str]) -> tuple[float, list[float] | None]:
    """Returns the coefficient of maximum likelihood, 0 if all lengths are equal, and its interval."""
    if not np.any(x):
        return 0.0, None
    # Bounded, so that the coefficient is finite and no comparison decides it alone.
    probability = np.clip(probability, _LEAST, 1 - _LEAST)

    def slope(c: float) -> float:
        """Returns the derivative of the log-likelihood, which falls with c."""
        return float(x @ (probability - special.expit(c * x)))

    bound = 1.0
    while slope(bound) > 0 or slope(-bound) < 0:
        bound *= 2
    coefficient = float(optimize.root_scalar(slope, bracket=(-bound, bound), method="brentq").root)
    fitted = special.expit(coefficient * x)
    curvature = float(np.sum(x**2 * fitted * (1 - fitted)))
    _, index = np.unique(clusters, return_inverse=True)
    by_prompt = np.bincount(index, x * (probability - fitted))
    error = 1.96 * float(np.sqrt(np.sum(by_prompt**2))) / curvature
    return coefficient, [coefficient - error, coefficient + error]


def _without_length(result: ComparisonResult, coefficient: float) -> ComparisonResult:
    if result.log_odds is None:
        return result
    return dataclasses.replace(result, log_odds=result.log_odds - coefficient * _log_ratio(result))
