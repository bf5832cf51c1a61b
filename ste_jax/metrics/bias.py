"""Biases of a judge toward surface features, and the accuracy of judges that look at nothing else."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ste_jax.metrics.policy import POLICIES
from ste_jax.metrics.stats import bootstrap_interval, evaluate_judgments
from ste_jax.metrics.traits import TRAITS, surface_of
from ste_jax.randomness import generator
from ste_jax.records import ORDERS, ComparisonResult, Label, OrderResult, opposite

Choice = Callable[[ComparisonResult], Label | None]


def bias_table(results: Sequence[ComparisonResult], *, seed: int) -> dict[str, dict[str, Any]]:
    """Returns, by trait, how often verdicts and how often labels prefer the response that has it.

    A row is over the labelled comparisons of which exactly one response has the trait: their number, the
    shares `judge` and `label`, and the interval of the first (bootstrap over prompts). `first` is the verdict
    prior: the share of verdicts for the response shown first, which labels cannot prefer.
    """
    labelled = [result for result in results if result.comparison.label in ("A", "B")]
    table = {"longer": _row(labelled, longer, seed)}
    table |= {
        trait: _row(labelled, lambda r, t=trait: surface_of(r.comparison).having(t), seed) for trait in TRAITS
    }
    first = first_preference(labelled, seed=seed)
    row = {"n": first["n"], "judge": first["share"], "interval95": first["interval95"]}
    return table | {"first": row | {"label": 0.5 if labelled else None}}


def first_preference(results: Sequence[ComparisonResult], *, seed: int) -> dict[str, Any]:
    """Returns the share of verdicts for the response shown first, with its interval."""
    firsts = np.array([[_is(v, "A") for v in result.verdicts] for result in results]).reshape(-1, 2)
    row = _shares(firsts, [result.comparison.cluster for result in results], seed)
    return {"n": row["n"], "share": row["judge"], "interval95": row["interval95"]}


def _row(results: Sequence[ComparisonResult], choice: Choice, seed: int) -> dict[str, Any]:
    chosen = [(result, which) for result in results if (which := choice(result))]
    prefers = np.array([[_is(p, which) for p in result.preferred] for result, which in chosen]).reshape(-1, 2)
    row = _shares(prefers, [result.comparison.cluster for result, _ in chosen], seed)
    right = [result.comparison.label == which for result, which in chosen]
    return row | {"label": sum(right) / len(right) if right else None}


def _shares(values: np.ndarray, clusters: Sequence[str], seed: int) -> dict[str, Any]:
    """Returns the number of comparisons, the mean of the values that are not NaN, and its interval."""
    interval = bootstrap_interval(values, clusters, seed=seed) if len(values) else None
    share = None if interval is None else float(np.nanmean(values))
    return {"n": len(values), "judge": share, "interval95": interval}


def _is(verdict: str | None, which: str) -> float:
    return np.nan if verdict is None else float(verdict == which)


def longer(result: ComparisonResult) -> Label | None:
    """Returns the longer response, or None if both are equally long."""
    return surface_of(result.comparison).longer


def baselines(results: Sequence[ComparisonResult], *, seed: int) -> dict[str, dict[str, Any]]:
    """Returns the accuracy of trivial judges on the same comparisons.

    They prefer the response shown first, the longer response (the first of two equally long ones), or toss a
    coin for each comparison and order.
    """

    def coin(result: ComparisonResult) -> tuple[Label, Label]:
        draws = [generator(seed, "baseline", f"{result.id}/{order}").random() for order in ORDERS]
        return "A" if draws[0] < 0.5 else "B", "A" if draws[1] < 0.5 else "B"

    def longest(result: ComparisonResult) -> tuple[Label, Label]:
        which = longer(result)
        return (which, opposite(which)) if which else ("A", "A")

    judges = {"always_first": lambda result: ("A", "A"), "always_longer": longest, "random": coin}
    columns = ("accuracy_as_given", "accuracy_swapped", "accuracy", "consistent_accuracy")
    rows = {}
    for name, judge in judges.items():
        judged = [_with_verdicts(result, judge(result)) for result in results]
        metrics = evaluate_judgments(judged, seed=seed, policy=POLICIES["wrong"]).to_json()
        rows[name] = {column: metrics[column] for column in columns}
    return rows


def _with_verdicts(result: ComparisonResult, verdicts: tuple[Label, Label]) -> ComparisonResult:
    orders = [OrderResult(order=o, verdict=v) for o, v in zip(ORDERS, verdicts, strict=True)]
    return dataclasses.replace(result, orders=tuple(orders))
