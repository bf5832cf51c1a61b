"""Every number of a result, from the result file alone."""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from ste_jax.benchmarks.catalogue import aggregates
from ste_jax.errors import SteError
from ste_jax.evaluation.result import Result
from ste_jax.evaluation.shortcuts import shortcuts
from ste_jax.judging.decision import reparse, results_of, unparsed_samples, votes_by_example
from ste_jax.metrics.agreement import agreement
from ste_jax.metrics.bias import baselines, bias_table
from ste_jax.metrics.length import length_balance, length_calibration
from ste_jax.metrics.policy import Policy
from ste_jax.metrics.stats import evaluate_judgments, mean, scores_of
from ste_jax.metrics.traits import surface_of
from ste_jax.metrics.vote import vote_curve
from ste_jax.records import ComparisonResult

LENGTHS = {"0-249": 250, "250-999": 1000, "1000-3999": 4000, "4000 and more": math.inf}
TIE_RULE = (
    "judgments without a verdict do not vote; a tie is decided by a draw of the seed, the pair and the order"
)
_COLUMNS = (
    "n",
    "accuracy_as_given",
    "accuracy_swapped",
    "accuracy",
    "interval95",
    "accuracy_pooled",
    "pooled_interval95",
    "consistent_accuracy",
    "flip_rate",
    "first_preference",
    "unparsed",
)


def judged(result: Result, policy: Policy) -> list[ComparisonResult]:
    """Returns the decisions on the comparisons that a result has judged in both orders."""
    read = partial(reparse, policy=policy)
    return list(results_of(result.comparisons, result.judgments, seed=result.run["seed"], read=read))


def numbers(result: Result, policy: Policy, *, calibrate_length: bool = False) -> dict[str, Any]:
    """Returns every number of a result as a JSON-ready dict.

    Args:
      result: the result.
      policy: score of a judgment without a verdict.
      calibrate_length: add the accuracy without the part of the decisions that lengths explain.

    Raises:
      SteError: no comparison has a better response ("no_labels"); the message names the file.
    """
    try:
        return _numbers(result, policy, calibrate_length)
    except SteError as error:
        raise SteError(error.code, f"{result.path}: {error}") from error


def _numbers(result: Result, policy: Policy, calibrate_length: bool) -> dict[str, Any]:
    run, seed = result.run, result.run["seed"]
    pairs = judged(result, policy)
    rows = partial(_rows, pairs, seed=seed, policy=policy)
    by_length = rows(length_bucket)
    return {
        "result": str(result.path),
        "model": run["model"]["name"],
        "benchmark": run["benchmark"] or run["data"]["source"],
        **evaluate_judgments(pairs, seed=seed, policy=policy).to_json(),
        **_by_position_of_the_better(pairs, policy),
        "shortcuts": _shortcuts(result, pairs, policy),
        "length_calibration": length_calibration(pairs, policy, seed=seed) if calibrate_length else None,
        "own_scores": aggregates(run["benchmark"], pairs, policy, seed),
        "policy": {"name": policy.name, "score": policy.score, "text": policy.text},
        "too_long": len(result.too_long),
        "tied": _ties(pairs),
        "agreement": agreement(pairs, policy, seed),
        "subsets": rows(lambda pair: pair.comparison.subset),
        "categories": rows(lambda pair: pair.comparison.category or ""),
        "lengths": {name: by_length[name] for name in LENGTHS if name in by_length},
        "bias": bias_table(pairs, seed=seed),
        "baselines": baselines(pairs, seed=seed),
        "votes": _votes(result, policy) if run["samples"] > 1 else None,
        "limit": run["data"]["limit"],
        "notes": run["data"]["notes"],
        "hashes": {
            "model": run["model"]["hash"],
            "parent": run["model"]["parent"],
            "data": run["data"]["hash"],
            "prompt": run["prompt_hash"],
            "tokenizer": run["tokenizer_hash"],
            "template": run["template_hash"],
        },
    }


def _shortcuts(result: Result, pairs: Sequence[ComparisonResult], policy: Policy) -> dict[str, Any]:
    seed, read = result.run["seed"], partial(reparse, policy=policy)
    comparisons = [probe.comparison for probe in result.probes]
    judged_probes = {r.id: r for r in results_of(comparisons, result.probe_judgments, seed=seed, read=read)}
    return shortcuts(
        pairs,
        policy,
        seed=seed,
        probes=result.probes,
        judged=judged_probes,
        pointwise=result.is_pointwise,
    )


def _rows(
    pairs: Sequence[ComparisonResult], key: Callable[[ComparisonResult], str], *, seed: int, policy: Policy
) -> dict[str, dict[str, Any]]:
    """Returns the main metrics of every group that `key` names; groups of ties only are left out."""
    groups: dict[str, list[ComparisonResult]] = defaultdict(list)
    for pair in pairs:
        if pair.comparison.label in ("A", "B") and (name := key(pair)):
            groups[name].append(pair)
    rows = {}
    for name, group in sorted(groups.items()):
        row = evaluate_judgments(group, seed=seed, policy=policy).to_json()
        balance = length_balance(group, policy, seed=seed)["pooled"]
        rows[name] = {column: row[column] for column in _COLUMNS} | {
            "length_balanced": balance["accuracy"],
            "length_balanced_interval95": balance["interval95"],
        }
    return rows


def length_bucket(pair: ComparisonResult) -> str:
    """Returns the bucket of the mean length of a comparison's responses, in characters."""
    surface = surface_of(pair.comparison)
    mean = (surface.length_a + surface.length_b) / 2
    return next(name for name, below in LENGTHS.items() if mean < below)


def _by_position_of_the_better(pairs: Sequence[ComparisonResult], policy: Policy) -> dict[str, Any]:
    """Returns the accuracy where the better response is shown first, and where it is shown second."""
    labelled = [pair for pair in pairs if pair.comparison.label in ("A", "B")]
    first, second = [], []
    for pair in labelled:
        given, swapped = scores_of(pair, policy)
        first.append(given if pair.comparison.label == "A" else swapped)
        second.append(swapped if pair.comparison.label == "A" else given)
    return {"accuracy_better_first": mean(np.array(first)), "accuracy_better_second": mean(np.array(second))}


def _ties(pairs: Sequence[ComparisonResult]) -> dict[str, Any]:
    """Returns how a judge that must choose treats ties: its flip rate, and its preference for A."""
    tied = [pair for pair in pairs if pair.comparison.label == "tie"]
    decided = [pair.agreed for pair in tied if pair.agreed]
    verdicts = [verdict for pair in tied for verdict in pair.verdicts if verdict]
    return {
        "n": len(tied),
        "flip_rate": decided.count("tie") / len(decided) if decided else None,
        "first_preference": verdicts.count("A") / len(verdicts) if verdicts else None,
    }


def _votes(result: Result, policy: Policy) -> dict[str, Any]:
    read = partial(reparse, policy=policy)
    labels, verdicts = votes_by_example(result.comparisons, result.judgments, read)
    return {
        "k": result.run["samples"],
        "tie_rule": TIE_RULE,
        "unparsed_samples": unparsed_samples(result.judgments, read=read),
        "curve": vote_curve(labels, verdicts, seed=result.run["seed"], policy=policy),
    }
