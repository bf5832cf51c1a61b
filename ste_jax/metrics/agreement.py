"""Agreement of a judge with labels, with people's votes, and with itself in the other order."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ste_jax.metrics.policy import Policy
from ste_jax.metrics.stats import bootstrap_interval, mean
from ste_jax.records import ComparisonResult

_CLASSES = ("A", "B", "tie")


class _Rating(NamedTuple):
    """The answers of two raters to one comparison (None: no answer of the first), and its prompt."""

    first: str | None
    second: str | None
    cluster: str


def agreement(results: Sequence[ComparisonResult], policy: Policy, seed: int) -> dict[str, dict[str, Any]]:
    """Returns agreement with its interval, Cohen's kappa, and the number of ratings and of missing ones.

    - label: each verdict with the label of its comparison, ties left out;
    - orders: the responses preferred in the two orders;
    - with_ties: the outcome of both orders (a tie where they disagree) with each vote of a person, or with
      the label where no votes are known. This is the first setup of the MT-Bench paper (arXiv 2306.05685);
    - without_ties: the same without ties on either side, its second setup.

    The policy scores a missing verdict; between orders and in kappa it never counts. Intervals draw prompts
    with all of their ratings.
    """
    labelled = [r for r in results if r.comparison.label in ("A", "B")]
    ratings = {
        "label": [
            _Rating(p, r.comparison.label, r.comparison.cluster) for r in labelled for p in r.preferred
        ],
        "orders": [
            _Rating(r.preferred[0], r.preferred[1], r.comparison.cluster) for r in results if r.agreed
        ],
        "with_ties": [_Rating(r.agreed, vote, r.comparison.cluster) for r in results for vote in _votes(r)],
    }
    ratings["without_ties"] = [x for x in ratings["with_ties"] if "tie" not in (x.first, x.second)]
    return {name: _table(group, policy, seed) for name, group in ratings.items()}


def _votes(result: ComparisonResult) -> list[str]:
    label = result.comparison.label
    return list(Counter(result.comparison.votes).elements()) or ([label] if label else [])


def _table(ratings: Sequence[_Rating], policy: Policy, seed: int) -> dict[str, Any]:
    agreed = np.array([float(x.first == x.second) if x.first else policy.unparsed_score for x in ratings])
    complete = Counter((x.first, x.second) for x in ratings if x.first and x.second)
    n = int(np.count_nonzero(~np.isnan(agreed)))
    return {
        "n": n,
        "unparsed": n - complete.total(),
        "agreement": mean(agreed),
        "interval95": bootstrap_interval(agreed, [x.cluster for x in ratings], seed=seed),
        "kappa": _kappa(complete),
    }


def _kappa(counts: Counter[tuple[str, str]]) -> float | None:
    """Returns Cohen's kappa, or None where chance alone gives full agreement or there is nothing."""
    table = np.array([[counts[row, column] for column in _CLASSES] for row in _CLASSES], float)
    if not table.sum() or np.count_nonzero(table.sum(axis=0) + table.sum(axis=1)) < 2:
        return None
    shares = table / table.sum()
    by_chance = float(shares.sum(axis=0) @ shares.sum(axis=1))
    return (float(np.trace(shares)) - by_chance) / (1.0 - by_chance)
