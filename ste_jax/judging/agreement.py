"""Agreement of a judge with the labels, with people's votes, and with itself in the other order."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from statsmodels.stats.inter_rater import cohens_kappa

from ste_jax.judging.stats import JudgedPair, Policy

_CLASSES = ("A", "B", "tie")
_Couple = tuple[str, str]


def agreement(pairs: Sequence[JudgedPair], policy: Policy) -> dict[str, dict[str, Any]]:
    """Returns agreement and Cohen's kappa with the number of couples, and of those without a verdict.

    - label: each verdict with the label of its pair, ties out;
    - orders: the responses preferred in the two orders;
    - with_ties: what both orders say together (a tie where they disagree) with each vote of a person, or with
      the label where nobody's votes are known. It is the first setup of the MT-Bench paper (2306.05685);
    - without_ties: the same without ties on either side: its second setup.

    Where a verdict is missing the policy says how far a couple agrees, and whether it counts; between orders
    and in kappa it never counts.
    """
    decided = [(p.decision, outcome) for p in pairs if p.decision for outcome in _votes(p)]
    silent = [outcome for p in pairs if not p.decision for outcome in _votes(p)]
    both = [p.preferred for p in pairs if p.decision]
    single = [(p, pair.label) for pair in pairs if pair.label != "tie" for p in pair.preferred]
    return {
        "label": _table(
            [(p, label) for p, label in single if p], sum(p is None for p, _ in single), policy.score
        ),
        "orders": _table([(first, second) for first, second in both if first and second]),
        "with_ties": _table(decided, len(silent), policy.score),
        "without_ties": _table(
            [couple for couple in decided if "tie" not in couple],
            sum(outcome != "tie" for outcome in silent),
            policy.score,
        ),
    }


def _votes(pair: JudgedPair) -> list[str]:
    return list(Counter(pair.votes).elements()) or [pair.label]


def _table(couples: Sequence[_Couple], silent: int = 0, score: float | None = None) -> dict[str, Any]:
    silent = 0 if score is None else silent
    n = len(couples) + silent
    agreed = sum(one == other for one, other in couples) + silent * (score or 0.0)
    kappa = _kappa(Counter(couples))
    return {"n": n, "silent": silent, "agreement": agreed / n if n else None, "kappa": kappa}


def _kappa(counts: Counter[_Couple]) -> float | None:
    """Returns Cohen's kappa, or None where chance alone gives full agreement or there is nothing."""
    table = np.array([[counts[one, other] for other in _CLASSES] for one in _CLASSES], float)
    if not table.sum() or np.count_nonzero(table.sum(axis=0) + table.sum(axis=1)) < 2:
        return None
    kappa = float(cast(float, cohens_kappa(table, return_results=False)))
    return None if math.isnan(kappa) else kappa
