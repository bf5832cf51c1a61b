"""Paired tests of two results on the comparisons that both judges decided."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from ste_jax.errors import SteError
from ste_jax.evaluation.numbers import judged
from ste_jax.evaluation.result import Result
from ste_jax.metrics.length import balanced_difference
from ste_jax.metrics.policy import Policy
from ste_jax.metrics.stability import changed_decisions
from ste_jax.metrics.stats import difference_interval, pooled_score, scores_of, sign_flip_test
from ste_jax.metrics.traits import surface_of
from ste_jax.records import Comparison, ComparisonResult

# Below so many pairs that differ, McNemar's test is exact; above, chi-squared with continuity correction.
_EXACT_BELOW = 25

# Settings of the header that change the numbers of one and the same model.
_SETTINGS = ("prompt_hash", "samples", "sampling", "max_new_tokens", "force_verdict")


def compare(a: Result, b: Result, policy: Policy) -> dict[str, Any]:
    """Returns the paired comparison of two results as a JSON-ready dict; differences are B minus A.

    Ties by label are left out, and so are comparisons for which the policy counts no judgment of one judge.

    Raises:
      SteError: there is no comparison that both judged and the policy counts ("nothing_in_common"), or one of
        the same id has other texts or another label ("data_differs").
    """
    _check_same(a, b)
    judged_a, judged_b = (
        {r.id: r for r in judged(result, policy) if r.comparison.label in ("A", "B")} for result in (a, b)
    )
    common = sorted(judged_a.keys() & judged_b.keys())
    if not common:
        raise SteError(
            "nothing_in_common",
            f"{a.path} and {b.path} have no judged comparison in common; compare results on the same data",
        )
    scores_a, scores_b = (_scores([side[id_] for id_ in common], policy) for side in (judged_a, judged_b))
    uncounted = np.isnan(scores_a).all(axis=1) | np.isnan(scores_b).all(axis=1)
    kept = [common[i] for i in np.flatnonzero(~uncounted)]
    if not kept:
        raise SteError(
            "nothing_in_common",
            f"{a.path} and {b.path}: no comparison has a verdict of both judges, and policy {policy.name!r} "
            "leaves the others out; choose another --policy",
        )
    sides = [[side[id_] for id_ in kept] for side in (judged_a, judged_b)]
    clusters = [result.comparison.cluster for result in sides[0]]
    single_a, single_b = (np.nanmean(_scores(side, policy), axis=1) for side in sides)
    pooled_a, pooled_b = (np.array([pooled_score(result, policy) for result in side]) for side in sides)
    return {
        "a": _summary(a),
        "b": _summary(b),
        "policy": {"name": policy.name, "score": policy.score, "text": policy.text},
        "n": len(kept),
        "prompts": len(set(clusters)),
        "only_in_a": len(judged_a) - len(common),
        "only_in_b": len(judged_b) - len(common),
        "settings_differ": [name for name in _SETTINGS if a.run[name] != b.run[name]],
        "difference": _difference(single_a, single_b, clusters, seed=a.run["seed"]),
        "difference_pooled": _difference(pooled_a, pooled_b, clusters, seed=a.run["seed"]),
        "difference_length_balanced": balanced_difference(sides[0], sides[1], policy, seed=a.run["seed"]),
        "changed_decisions": changed_decisions(sides[0], sides[1], seed=a.run["seed"]),
        "mcnemar": {
            "as_given": _mcnemar(scores_a[:, 0], scores_b[:, 0]),
            "swapped": _mcnemar(scores_a[:, 1], scores_b[:, 1]),
            "both_orders": _mcnemar(scores_a.min(axis=1), scores_b.min(axis=1)),
        },
    }


def _check_same(a: Result, b: Result) -> None:
    by_id = {comparison.id: comparison for comparison in b.comparisons}
    for comparison in a.comparisons:
        other = by_id.get(comparison.id)
        if other and _identity(other) != _identity(comparison):
            raise SteError(
                "data_differs",
                f"comparison {comparison.id} is not the same in {a.path} and {b.path}: texts or label "
                "differ; compare results on the same data",
            )


def _identity(comparison: Comparison) -> tuple:
    return surface_of(comparison).content, comparison.label


def _summary(result: Result) -> dict[str, Any]:
    run = result.run
    return {
        "result": str(result.path),
        "model": run["model"]["name"],
        "model_hash": run["model"]["hash"],
        "prompt_hash": run["prompt_hash"],
        "samples": run["samples"],
    }


def _scores(results: Sequence[ComparisonResult], policy: Policy) -> np.ndarray:
    """Returns the scores [comparisons, orders]."""
    return np.array([scores_of(result, policy) for result in results])


def _difference(a: np.ndarray, b: np.ndarray, clusters: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Returns the difference of two accuracies, its interval (bootstrap over prompts), and a test of it.

    Args:
      a: scores of the first judge [comparisons]; NaN does not count.
      b: scores of the second judge.
      clusters: prompt of each comparison.
      seed: seed of the draws.
    """
    counted = ~(np.isnan(a) | np.isnan(b))
    if not counted.any():
        return dict.fromkeys(("accuracy_a", "accuracy_b", "accuracy", "interval95", "p_value"))
    a, b, clusters = a[counted], b[counted], list(np.asarray(clusters)[counted])
    return {
        "accuracy_a": float(a.mean()),
        "accuracy_b": float(b.mean()),
        "accuracy": float((b - a).mean()),
        "interval95": difference_interval(b - a, clusters, seed=seed),
        "p_value": sign_flip_test(b - a, clusters, seed=seed),
    }


def _mcnemar(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """Returns McNemar's test of two judges' successes on the same pairs; half a point is no success.

    The test takes pairs as independent, which pairs of one prompt are not. Where no pair counts, the shares
    of right ones are None.
    """
    counted = ~(np.isnan(a) | np.isnan(b))
    right_a, right_b = a[counted] == 1.0, b[counted] == 1.0
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return {
        "n": int(counted.sum()),
        "right_a": float(right_a.mean()) if len(right_a) else None,
        "right_b": float(right_b.mean()) if len(right_b) else None,
        "only_a": only_a,
        "only_b": only_b,
        "p_value": _mcnemar_p_value(only_a, only_b),
    }


def _mcnemar_p_value(only_a: int, only_b: int) -> float:
    """Returns the two-sided p-value for the numbers of pairs that only one of two judges got right."""
    n = only_a + only_b
    if n < _EXACT_BELOW:
        return float(stats.binomtest(only_a, n).pvalue) if n else 1.0
    return float(stats.chi2.sf((abs(only_a - only_b) - 1) ** 2 / n, df=1))
