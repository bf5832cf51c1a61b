"""Formatting of numbers, for the page and the terminal table."""

from collections.abc import Sequence

NOTHING = "–"


def percent(share: float | None) -> str:
    """Returns a share in [0, 1] as a percentage with one decimal, a dash for None."""
    return NOTHING if share is None else f"{100 * share:.1f}%"


def interval(bounds: Sequence[float] | None) -> str:
    """Returns (low, high) shares as one range of percentages."""
    return NOTHING if bounds is None else f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}%"


def count(number: float) -> str:
    """Returns a whole number with thousands separators."""
    return f"{round(number):,}"


def signed(number: float) -> str:
    """Returns a number with one decimal and its sign, with a typographic minus."""
    return f"{number:+.1f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Returns a duration in seconds in at most two units."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60:02d} min"


def p_value(p: float | None) -> str:
    """Returns a p-value such as "p = 0.31", with three decimals below 0.1."""
    if p is None:
        return NOTHING
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def model_name(iteration: int) -> str:
    """Returns the display name of the model of an iteration; 0 is the seed."""
    return "seed" if iteration == 0 else f"iteration {iteration}"
