"""Numbers that show what a judge decides by, and the panel of sentences about them."""

from collections.abc import Mapping, Sequence
from typing import Any

from ste_jax.evaluation.panel import panel
from ste_jax.evaluation.probes.numbers import probe_numbers
from ste_jax.evaluation.probes.probe import Probe
from ste_jax.metrics.bias import first_preference
from ste_jax.metrics.length import by_length_ratio, length_balance
from ste_jax.metrics.policy import Policy
from ste_jax.metrics.stability import changed_decisions, order_flips, share_of
from ste_jax.metrics.stats import pooled_score
from ste_jax.records import ComparisonResult

# Subsets whose labels a program has verified.
VERIFIED = ("arithmetic", "solutions", "code")


def shortcuts(
    pairs: Sequence[ComparisonResult],
    policy: Policy,
    *,
    seed: int,
    probes: Sequence[Probe] = (),
    judged: Mapping[str, ComparisonResult] | None = None,
    previous: Sequence[ComparisonResult] | None = None,
    pointwise: bool = False,
) -> dict[str, Any]:
    """Returns the numbers and the panel of a judge as a JSON-ready dict.

    Args:
      pairs: the judged pairs; ties do not count.
      policy: score of a comparison without a decision.
      seed: seed of the bootstrap.
      probes: probes of some of the pairs.
      judged: results of the probes by the id of their comparison.
      previous: results of the judge of the previous iteration on the same pairs.
      pointwise: the judge sees one response at a time, so that there is no order to depend on.
    """
    labelled = [pair for pair in pairs if pair.comparison.label in ("A", "B")]
    verified = [pair for pair in labelled if pair.comparison.subset in VERIFIED]
    ordered = [] if pointwise else labelled
    numbers: dict[str, Any] = {
        "accuracy": _accuracy(labelled, policy, seed),
        "length_balance": length_balance(labelled, policy, seed=seed),
        "length_ratios": by_length_ratio(labelled, policy, seed=seed),
        "order_flips": order_flips(ordered, seed=seed),
        "first_preference": first_preference(ordered, seed=seed),
        "verified": _accuracy(verified, policy, seed) if verified else None,
        "changed": changed_decisions(previous, labelled, seed=seed) if previous is not None else None,
        "probes": None,
    }
    if probes:
        found = judged or {}
        numbers["probes"] = probe_numbers(labelled, probes, found, policy, seed=seed, pointwise=pointwise)
    return {**numbers, "panel": panel(numbers)}


def _accuracy(results: Sequence[ComparisonResult], policy: Policy, seed: int) -> dict[str, Any]:
    """Returns the accuracy of pooled decisions."""
    scores = [pooled_score(result, policy) for result in results]
    return share_of(scores, [result.comparison.cluster for result in results], seed=seed)
