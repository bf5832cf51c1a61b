"""Builds checks of texts that say None, for "unclear", wherever careful readers may differ."""

import re
from collections.abc import Callable

from ste_jax.pairs.reading import Span, has_code

# (text, values of a requirement) -> True if the text meets it, None if that is unclear.
TextCheck = Callable[..., bool | None]


def has(certain: str, possible: str) -> TextCheck:
    """Returns the check for what the pattern `certain` matches; where only `possible` matches, it is unclear.

    In code, signs have other uses, and their presence is unclear.
    """
    is_certain, is_possible = re.compile(certain), re.compile(possible)

    def check(text: str) -> bool | None:
        if not is_possible.search(text):
            return False
        return True if is_certain.search(text) and not has_code(text) else None

    return check


def opposite(check: TextCheck) -> TextCheck:
    """Returns the check for the opposite, which is as unclear."""

    def negated(text: str, *values: str | int) -> bool | None:
        result = check(text, *values)
        return None if result is None else not result

    return negated


def at_least(span: Span | None, bound: int, slack: int = 0) -> bool | None:
    """Returns whether a count is `bound` or more; it is unclear within `slack` of the bound."""
    if span is None:
        return None
    return True if span.low >= bound + slack else False if span.high < bound - slack else None


def at_most(span: Span | None, bound: int, slack: int = 0) -> bool | None:
    """Returns whether a count is `bound` or less; it is unclear within `slack` of the bound."""
    if span is None:
        return None
    return True if span.high <= bound - slack else False if span.low > bound + slack else None
