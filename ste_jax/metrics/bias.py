"""What a judge prefers beside quality, and what judges that look at nothing else would score."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ste_jax.metrics.stats import POLICIES, JudgedPair, bootstrap_interval, evaluate_judgments
from ste_jax.metrics.traits import TRAITS
from ste_jax.randomness import generator
from ste_jax.records import ORDERS, Label, opposite

Choice = Callable[[JudgedPair], Label | None]


def bias_table(pairs: Sequence[JudgedPair], *, seed: int) -> dict[str, dict[str, Any]]:
    """Returns, by outer trait, how often verdicts and how often labels prefer the response that has it.

    A row is over the pairs of which one response has the trait and the other has not, ties out: how many they
    are, the shares `judge` and `label`, and the interval of the first (bootstrap over prompts). `first` is
    the verdict prior: the share of verdicts for the response shown first, which labels cannot prefer.
    """
    labelled = [pair for pair in pairs if pair.label != "tie"]
    table = {"longer": _row(labelled, longer, seed)}
    table |= {trait: _row(labelled, lambda pair, trait=trait: _having(pair, trait), seed) for trait in TRAITS}
    firsts = np.array([[_is(v, "A") for v in pair.verdicts] for pair in labelled]).reshape(-1, 2)
    clusters = [pair.cluster for pair in labelled]
    return table | {"first": _shares(firsts, clusters, seed) | {"label": 0.5 if labelled else None}}


def _row(pairs: Sequence[JudgedPair], choice: Choice, seed: int) -> dict[str, Any]:
    chosen = [(pair, which) for pair in pairs if (which := choice(pair))]
    prefers = np.array([[_is(p, which) for p in pair.preferred] for pair, which in chosen]).reshape(-1, 2)
    row = _shares(prefers, [pair.cluster for pair, _ in chosen], seed)
    right = [pair.label == which for pair, which in chosen]
    return row | {"label": sum(right) / len(right) if right else None}


def _shares(values: np.ndarray, clusters: Sequence[str], seed: int) -> dict[str, Any]:
    """Returns the number of pairs, the mean of the values that are not NaN, and its interval."""
    interval = bootstrap_interval(values, clusters, seed=seed) if len(values) else None
    share = None if interval is None else float(np.nanmean(values))
    return {"n": len(values), "judge": share, "interval95": interval}


def _is(verdict: str | None, which: str) -> float:
    return np.nan if verdict is None else float(verdict == which)


def longer(pair: JudgedPair) -> Label | None:
    """Returns the longer response, or None."""
    if pair.length_a == pair.length_b:
        return None
    return "A" if pair.length_a > pair.length_b else "B"


def _having(pair: JudgedPair, trait: str) -> Label | None:
    has_a, has_b = (trait in traits for traits in pair.traits)
    if has_a == has_b:
        return None
    return "A" if has_a else "B"


def baselines(pairs: Sequence[JudgedPair], *, seed: int) -> dict[str, dict[str, Any]]:
    """Returns what judges of one idea score on the same pairs: the response shown first, the longer one (the
    first of two equally long ones), and a coin for each pair and order.
    """

    def coin(pair: JudgedPair) -> tuple[Label, Label]:
        draws = [generator(seed, "baseline", f"{pair.pair_id}/{order}").random() for order in ORDERS]
        return "A" if draws[0] < 0.5 else "B", "A" if draws[1] < 0.5 else "B"

    def longest(pair: JudgedPair) -> tuple[Label, Label]:
        which = longer(pair)
        return (which, opposite(which)) if which else ("A", "A")

    def verdicts_of(judge: Callable[[JudgedPair], tuple[Label, Label]]) -> list[JudgedPair]:
        return [dataclasses.replace(p, verdicts=judge(p), statuses=("ok", "ok")) for p in pairs]

    judges = {"always_first": lambda pair: ("A", "A"), "always_longer": longest, "random": coin}
    columns = ("accuracy_as_given", "accuracy_swapped", "accuracy", "consistent_accuracy")
    rows = {}
    for name, judge in judges.items():
        numbers = evaluate_judgments(verdicts_of(judge), seed=seed, policy=POLICIES["wrong"]).to_json()
        rows[name] = {column: numbers[column] for column in columns}
    return rows
