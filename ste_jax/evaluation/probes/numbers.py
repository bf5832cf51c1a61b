"""Numbers of judged probes; each has the interval by prompt of `share_of` or `difference_of`."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ste_jax.evaluation.probes.biases import BIASES
from ste_jax.evaluation.probes.probe import CYCLE, EMPTY, FORGED, MASTER_KEY, REMOVED, RETEST, SWAPPED, Probe
from ste_jax.metrics.policy import Policy
from ste_jax.metrics.stability import decision_of, difference_of, share_of
from ste_jax.metrics.stats import pooled_score, scores_of
from ste_jax.records import ComparisonResult

# A probe's pair as it was judged, and the probe.
Pair = tuple[ComparisonResult, ComparisonResult]
Score = Callable[[ComparisonResult], float]


def probe_numbers(
    pairs: Sequence[ComparisonResult],
    probes: Sequence[Probe],
    judged: Mapping[str, ComparisonResult],
    policy: Policy,
    *,
    seed: int,
    pointwise: bool = False,
) -> dict[str, Any]:
    """Returns the numbers of probes as a JSON-ready dict.

    Args:
      pairs: the judged pairs.
      probes: the probes.
      judged: results of the probes by the id of their comparison; those that were too long are missing.
      policy: score of a comparison without a decision.
      seed: seed of the bootstrap.
      pointwise: the judge sees one response at a time.
    """
    base = {result.id: result for result in pairs}
    found: dict[str, list[Pair]] = defaultdict(list)
    for probe in probes:
        result = judged.get(probe.comparison.id)
        if result is not None and probe.pair in base:
            found[probe.kind].append((base[probe.pair], result))
    probed = [base[id_] for id_ in sorted({probe.pair for probe in probes}) if id_ in base]
    score = partial(pooled_score, policy=policy)

    def as_given(result: ComparisonResult) -> float:
        """Returns the score of the order for which the letter of a verdict is forged."""
        return scores_of(result, policy)[0]

    return {
        "pairs": len(probed),
        "not_judged": len(probes) - sum(map(len, found.values())),
        "accuracy": _share(probed, score, seed),
        "blind": {kind: _blind(found[kind], score, seed) for kind in (REMOVED, SWAPPED)},
        "biases": {kind: _moved(found[kind], score, seed) for kind in BIASES},
        "contentless": {
            kind: _share([after for _, after in found[kind]], lambda result: 1.0 - score(result), seed)
            for kind in (MASTER_KEY, EMPTY)
        },
        "forged": {kind: _moved(found[kind], score if pointwise else as_given, seed) for kind in FORGED},
        "retest": _changed(found[RETEST], seed),
        "cycles": _cycles(found, seed),
    }


def _share(results: Sequence[ComparisonResult], score: Score, seed: int) -> dict[str, Any]:
    clusters = [result.comparison.cluster for result in results]
    return share_of([score(result) for result in results], clusters, seed=seed)


def _before_and_after(pairs: Sequence[Pair], score: Score) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Returns the scores of pairs and of their probes, and the prompts."""
    before = np.array([score(pair) for pair, _ in pairs], float)
    after = np.array([score(probe) for _, probe in pairs], float)
    return before, after, [pair.comparison.cluster for pair, _ in pairs]


def _blind(pairs: Sequence[Pair], score: Score, seed: int) -> dict[str, Any]:
    """Returns the accuracy without the right instruction, what is lost by it, and accuracies by subset."""
    before, after, clusters = _before_and_after(pairs, score)
    subsets: dict[str, list[ComparisonResult]] = defaultdict(list)
    for _, probe in pairs:
        if probe.comparison.subset:
            subsets[probe.comparison.subset].append(probe)
    return {
        **share_of(after, clusters, seed=seed),
        "fall": difference_of(after, before, clusters, seed=seed),
        "subsets": {name: _share(group, score, seed) for name, group in sorted(subsets.items())},
    }


def _moved(pairs: Sequence[Pair], score: Score, seed: int) -> dict[str, Any]:
    """Returns how a change of the worse response moves decisions.

    `share` is over the pairs that were decided rightly: how many of them the worse response now wins. `fall`
    is the accuracy before less that after, over all pairs: a judge of chance moves decisions both ways.
    """
    before, after, clusters = _before_and_after(pairs, score)
    lost = np.where(before == 1.0, 1.0 - after, np.nan)
    return {
        **share_of(lost, clusters, seed=seed),
        "fall": difference_of(after, before, clusters, seed=seed),
    }


def _changed(pairs: Sequence[Pair], seed: int) -> dict[str, Any]:
    """Returns the share of decisions that are another one when the same comparison is judged again."""
    by_probe = {probe.id: decision_of(pair) for pair, probe in pairs}
    again = [(probe, decision) for _, probe in pairs if (decision := decision_of(probe))]
    both = [(probe, decision) for probe, decision in again if by_probe[probe.id]]
    changes = [float(decision != by_probe[probe.id]) for probe, decision in both]
    return share_of(changes, [probe.comparison.cluster for probe, _ in both], seed=seed)


def _cycles(found: Mapping[str, Sequence[Pair]], seed: int) -> dict[str, Any]:
    """Returns the share of triples of responses whose three decisions form a circle.

    Where a decision is missing or even, the triple does not count. A judge of chance has a quarter.
    """
    against_worse = {pair.id: probe for pair, probe in found[CYCLE[1]]}
    triples = [
        (pair, probe, against_worse[pair.id]) for pair, probe in found[CYCLE[0]] if pair.id in against_worse
    ]
    values, clusters = [], []
    for triple in triples:
        decisions = [decision_of(result) for result in triple]
        if all(decision in ("A", "B") for decision in decisions):
            # Better over worse, better over third, third over worse.
            first, second, third = (decision == triple[0].comparison.label for decision in decisions)
            # The circles are better > worse > third > better, and its reverse.
            values.append(float(first != second and first != third))
            clusters.append(triple[0].comparison.cluster)
    return share_of(values, clusters, seed=seed)
