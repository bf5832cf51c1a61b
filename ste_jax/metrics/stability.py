"""Stability of decisions: under exchanged responses, and from one judge or iteration to another."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ste_jax.metrics.stats import bootstrap_interval, cluster_sums, difference_interval, mean, wilson_interval
from ste_jax.records import ComparisonResult, Outcome


def share_of(values: Sequence[float] | np.ndarray, clusters: Sequence[str], *, seed: int) -> dict[str, Any]:
    """Returns the number of the values that are not NaN, their mean, and its interval by prompt."""
    array = np.array(values, float)
    n = int(np.count_nonzero(~np.isnan(array)))
    if not n:
        return {"n": 0, "share": None, "interval95": None}
    interval = bootstrap_interval(array, clusters, seed=seed)
    return {"n": n, "share": mean(array), "interval95": None if interval is None else list(interval)}


def difference_of(
    before: Sequence[float] | np.ndarray,
    after: Sequence[float] | np.ndarray,
    clusters: Sequence[str],
    *,
    seed: int,
) -> dict[str, Any]:
    """Returns the number of pairs of values, the mean of `after` - `before`, and its interval by prompt.

    Where all prompts have the same difference, the interval is the Wilson interval of its size.
    """
    differences = np.array(after, float) - np.array(before, float)
    n = int(np.count_nonzero(~np.isnan(differences)))
    if not n:
        return {"n": 0, "share": None, "interval95": None}
    share = float(np.nanmean(differences))
    interval = difference_interval(differences, clusters, seed=seed)
    if interval is None:
        prompts = len(cluster_sums(differences, clusters)[0])
        low, high = wilson_interval(abs(share) * prompts, prompts)
        interval = (-high, high) if share == 0 else (low, high) if share > 0 else (-high, -low)
    return {"n": n, "share": share, "interval95": list(interval)}


def order_flips(results: Sequence[ComparisonResult], *, seed: int) -> dict[str, Any]:
    """Returns the share of comparisons whose verdicts change with the order, among those with both."""
    both = [result for result in results if result.agreed]
    flips = [float(result.agreed == "tie") for result in both]
    return share_of(flips, [result.comparison.cluster for result in both], seed=seed)


def decision_of(result: ComparisonResult) -> Outcome | None:
    """Returns the pooled decision: a response, "tie" where the log-odds are exactly 0, or None."""
    if result.log_odds is None:
        return None
    return "tie" if result.log_odds == 0.0 else "A" if result.log_odds > 0 else "B"


def changed_decisions(
    before: Sequence[ComparisonResult], after: Sequence[ComparisonResult], *, seed: int
) -> dict[str, Any]:
    """Returns the share of pooled decisions that differ between two results, with its interval.

    Of the comparisons with a better response, `to_right` counts the decisions that became right and
    `to_wrong` those that ceased to be. Comparisons that only one of them decided do not count.
    """
    earlier: Mapping[str, Outcome] = {r.id: d for r in before if (d := decision_of(r))}
    common = [(r, d) for r in after if (d := decision_of(r)) and r.id in earlier]
    changed = [float(d != earlier[r.id]) for r, d in common]
    labelled = [(r.comparison.label, earlier[r.id], d) for r, d in common]
    return {
        **share_of(changed, [r.comparison.cluster for r, _ in common], seed=seed),
        "to_right": sum(label in ("A", "B") and old != label == new for label, old, new in labelled),
        "to_wrong": sum(label in ("A", "B") and old == label != new for label, old, new in labelled),
    }
