"""Judged comparisons with planted verdicts, for tests of metrics."""

from collections.abc import Sequence
from typing import Any

from ste_jax.records import ORDERS, Comparison, ComparisonResult, Label, OrderResult


def judged(
    id_: str,
    label: str | None,
    verdicts: Sequence[Label | None],
    statuses: Sequence[str] = ("ok", "ok"),
    forced: Sequence[float] = (0.0, 0.0),
    lengths: Sequence[int] = (1, 1),
    log_odds: float | None = None,
    **fields: Any,
) -> ComparisonResult:
    """Returns a comparison judged (as given, swapped)."""
    texts = {"instruction": "x", "response_a": "a" * lengths[0], "response_b": "b" * lengths[1]}
    comparison = Comparison(id=id_, label=label, **texts, **fields)
    return of(comparison, verdicts, statuses, forced, log_odds)


def of(
    comparison: Comparison,
    verdicts: Sequence[Label | None],
    statuses: Sequence[str] = ("ok", "ok"),
    forced: Sequence[float] = (0.0, 0.0),
    log_odds: float | None = None,
) -> ComparisonResult:
    """Returns the result of a comparison judged (as given, swapped)."""
    orders = [
        OrderResult(order=order, verdict=verdict, status=status, forced=share)
        for order, verdict, status, share in zip(ORDERS, verdicts, statuses, forced, strict=True)
    ]
    return ComparisonResult(comparison=comparison, orders=tuple(orders), log_odds=log_odds)
