"""The one-line verdict on a run: it says what the interval and the test say, and no more."""

from dataclasses import dataclass
from typing import Any, Literal

from ste_jax.report.formats import interval, model_name, p_value, percent, signed

Tone = Literal["gain", "flat", "loss", "open"]

SIGNIFICANCE = 0.05
CHANCE = 0.5


@dataclass(frozen=True)
class Headline:
    """The seed, the best trained model (None while there is none), and what may be said of the two."""

    seed: dict[str, Any] | None
    best: dict[str, Any] | None
    tone: Tone
    verdict: str
    notes: tuple[str, ...]


def headline(models: list[dict[str, Any]]) -> Headline:
    """Compares the best trained model with the seed; `models` is the list of the summary, seed first."""
    if not models:
        return Headline(None, None, "open", "No model has been evaluated yet.", ())
    seed, trained = models[0], models[1:]
    if not trained:
        return Headline(seed, None, "open", "Only the seed has been evaluated so far.", _caveats(seed))
    best = max(trained, key=lambda model: model["accuracy"])
    tone, verdict = _compare(seed, best, len(trained))
    return Headline(seed, best, tone, verdict, (*_selection(best, len(trained)), *_caveats(best)))


def _compare(seed: dict[str, Any], best: dict[str, Any], comparisons: int) -> tuple[Tone, str]:
    """Returns the verdict; the p-value is corrected for taking the best of several models."""
    points = 100 * (best["accuracy"] - seed["accuracy"])
    change = f"{signed(points)} points"
    if best["p_value_vs_seed"] is None:
        return "open", f"No test against the seed was made ({change}): nothing can be claimed."
    p = min(1.0, best["p_value_vs_seed"] * comparisons)
    if p < SIGNIFICANCE and points > 0:
        return "gain", f"Significant gain over the seed ({change}, {p_value(p)})."
    if p < SIGNIFICANCE and points < 0:
        return "loss", f"Significantly worse than the seed ({change}, {p_value(p)})."
    if points <= 0:
        return "flat", f"No gain: no trained model scores above the seed ({p_value(p)})."
    return "flat", f"No significant gain over the seed ({change}, {p_value(p)})."


def _selection(best: dict[str, Any], comparisons: int) -> tuple[str, ...]:
    if comparisons == 1 or best["p_value_vs_seed"] is None:
        return ()
    name = model_name(best["iteration"]).capitalize()
    return (
        f"{name} is the best of {comparisons} on the very pairs that it is judged by, so p is multiplied by "
        f"{comparisons} (uncorrected: {p_value(best['p_value_vs_seed'])}).",
    )


def _caveats(model: dict[str, Any]) -> tuple[str, ...]:
    """Returns what the accuracy alone would hide: chance and position."""
    name, notes = model_name(model["iteration"]), []
    low, high = model["interval95"]
    if low <= CHANCE <= high:
        bounds = interval(model["interval95"])
        notes.append(f"The 95% interval of the {name} model ({bounds}) includes guessing (50%).")
    # None: there was no pair with a verdict in both orders.
    if model["flip_rate"] is not None and model["flip_rate"] >= CHANCE:
        flips = percent(model["flip_rate"])
        notes.append(f"In {flips} of the pairs the {name} model changes its mind when the order is swapped.")
    return tuple(notes)
