"""Do two results differ by more than chance? Paired tests on the pairs that both judged."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from ste_jax.evaluation.numbers import judged
from ste_jax.evaluation.result import Result
from ste_jax.metrics.stats import Policy, difference_interval, scores_of, sign_flip_test
from ste_jax.metrics.traits import surface_of
from ste_jax.records import Comparison, ComparisonResult

# Below so many pairs that differ, McNemar's test is exact; above, chi-squared with continuity correction.
_EXACT_BELOW = 25

# Of the header: how the judges were asked. Where it differs, so may the numbers for that reason alone.
_ASKED = ("prompt_hash", "samples", "sampling", "max_new_tokens", "force_verdict")


def compare(a: Result, b: Result, policy: Policy) -> dict[str, Any]:
    """Returns the paired comparison of two results as a JSON-ready dict; differences are B minus A.

    Ties by label are left out, and so are pairs of which the policy counts no judgment of one of the two.

    Raises:
      ValueError: they have no pair in common, none of which the policy counts a judgment of both, or a pair
        of the same id has other texts or another label.
    """
    _check_same(a, b)
    ours, theirs = ({p.id: p for p in judged(r, policy) if p.comparison.label in ("A", "B")} for r in (a, b))
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        raise ValueError(
            f"{a.path} and {b.path} have no judged pair in common; compare results on the same data"
        )
    scores_a, scores_b = (_scores([side[id_] for id_ in both], policy) for side in (ours, theirs))
    uncounted = np.isnan(scores_a).all(axis=1) | np.isnan(scores_b).all(axis=1)
    kept = [both[i] for i in np.flatnonzero(~uncounted)]
    if not kept:
        raise ValueError(
            f"{a.path} and {b.path}: no pair has a verdict of both judges, and policy {policy.name!r} leaves "
            "the others out; choose another --policy"
        )
    seed = a.run["seed"]
    sides = [[side[id_] for id_ in kept] for side in (ours, theirs)]
    return {
        "a": _who(a),
        "b": _who(b),
        "policy": {"name": policy.name, "score": policy.score, "text": policy.text},
        "n": len(kept),
        "prompts": len({pair.comparison.cluster for pair in sides[0]}),
        "only_in_a": len(ours) - len(both),
        "only_in_b": len(theirs) - len(both),
        "asked_differently": [name for name in _ASKED if a.run[name] != b.run[name]],
        "difference": _difference(*sides, policy=policy, seed=seed),
        "mcnemar": {
            "as_given": _mcnemar(scores_a[:, 0], scores_b[:, 0]),
            "swapped": _mcnemar(scores_a[:, 1], scores_b[:, 1]),
            "both_orders": _mcnemar(scores_a.min(axis=1), scores_b.min(axis=1)),
        },
    }


def _check_same(a: Result, b: Result) -> None:
    theirs = {comparison.id: comparison for comparison in b.comparisons}
    for comparison in a.comparisons:
        other = theirs.get(comparison.id)
        if other and _identity(other) != _identity(comparison):
            raise ValueError(
                f"pair {comparison.id} is not the same in {a.path} and {b.path}: texts or label differ; "
                "compare results on the same data"
            )


def _identity(comparison: Comparison) -> tuple:
    return surface_of(comparison).content, comparison.label


def _who(result: Result) -> dict[str, Any]:
    run = result.run
    return {
        "result": str(result.path),
        "model": run["model"]["name"],
        "model_hash": run["model"]["hash"],
        "prompt_hash": run["prompt_hash"],
        "samples": run["samples"],
    }


def _scores(pairs: Sequence[ComparisonResult], policy: Policy) -> np.ndarray:
    """Returns [pairs, orders]."""
    return np.array([scores_of(pair, policy) for pair in pairs])


def _difference(
    ours: Sequence[ComparisonResult], theirs: Sequence[ComparisonResult], *, policy: Policy, seed: int
) -> dict[str, Any]:
    """Returns the difference of the accuracies, its interval (bootstrap over prompts), and a test of it."""
    means = [np.nanmean(_scores(side, policy), axis=1) for side in (ours, theirs)]
    difference, clusters = means[1] - means[0], [pair.comparison.cluster for pair in ours]
    return {
        "accuracy_a": float(means[0].mean()),
        "accuracy_b": float(means[1].mean()),
        "accuracy": float(difference.mean()),
        "interval95": difference_interval(difference, clusters, seed=seed),
        "p_value": sign_flip_test(difference, clusters, seed=seed),
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
