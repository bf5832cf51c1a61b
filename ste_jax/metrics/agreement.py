"""Agreement of a judge with the labels, with people's votes, and with itself in the other order."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ste_jax.metrics.stats import JudgedPair, Policy, bootstrap_interval, mean

_CLASSES = ("A", "B", "tie")


class _Couple(NamedTuple):
    """What two say of one pair (the first may be silent), and the cluster that the pair is drawn with."""

    one: str | None
    other: str | None
    cluster: str


def agreement(pairs: Sequence[JudgedPair], policy: Policy, seed: int) -> dict[str, dict[str, Any]]:
    """Returns agreement with its interval and Cohen's kappa, the number of couples and of silent ones.

    - label: each verdict with the label of its pair, ties out;
    - orders: the responses preferred in the two orders;
    - with_ties: what both orders say together (a tie where they disagree) with each vote of a person, or with
      the label where nobody's votes are known. It is the first setup of the MT-Bench paper (2306.05685);
    - without_ties: the same without ties on either side: its second setup.

    Where a verdict is missing the policy says how far a couple agrees, and whether it counts; between orders
    and in kappa it never counts. Intervals draw prompts with all of their couples.
    """
    couples = {
        "label": [_Couple(p, x.label, x.cluster) for x in pairs if x.label != "tie" for p in x.preferred],
        "orders": [_Couple(*pair.preferred, pair.cluster) for pair in pairs if pair.decision],
        "with_ties": [_Couple(x.decision, vote, x.cluster) for x in pairs for vote in _votes(x)],
    }
    couples["without_ties"] = [c for c in couples["with_ties"] if "tie" not in (c.one, c.other)]
    return {name: _table(some, policy, seed) for name, some in couples.items()}


def _votes(pair: JudgedPair) -> list[str]:
    return list(Counter(pair.votes).elements()) or [pair.label]


def _table(couples: Sequence[_Couple], policy: Policy, seed: int) -> dict[str, Any]:
    agreed = np.array([float(c.one == c.other) if c.one else policy.silent for c in couples])
    spoken = Counter((c.one, c.other) for c in couples if c.one and c.other)
    n = int(np.count_nonzero(~np.isnan(agreed)))
    return {
        "n": n,
        "silent": n - spoken.total(),
        "agreement": mean(agreed),
        "interval95": bootstrap_interval(agreed, [c.cluster for c in couples], seed=seed),
        "kappa": _kappa(spoken),
    }


def _kappa(counts: Counter[tuple[str, str]]) -> float | None:
    """Returns Cohen's kappa, or None where chance alone gives full agreement or there is nothing."""
    table = np.array([[counts[one, other] for other in _CLASSES] for one in _CLASSES], float)
    if not table.sum() or np.count_nonzero(table.sum(axis=0) + table.sum(axis=1)) < 2:
        return None
    shares = table / table.sum()
    by_chance = float(shares.sum(axis=0) @ shares.sum(axis=1))
    return (float(np.trace(shares)) - by_chance) / (1.0 - by_chance)
