"""One-line conclusion of a run from the interval and the significance test."""

from dataclasses import dataclass
from typing import Any, Literal

from ste_jax.report.formats import interval, model_name, p_value, percent, signed

Tone = Literal["gain", "flat", "loss", "open"]

SIGNIFICANCE = 0.05
CHANCE = 0.5


@dataclass(frozen=True)
class Headline:
    """Conclusion of a run.

    Attributes:
      seed: Numbers of the seed model; None: not evaluated yet.
      best: Numbers of the best trained model; None: none evaluated yet.
      tone: Kind of conclusion.
      verdict: The conclusion.
      notes: Caveats.
    """

    seed: dict[str, Any] | None
    best: dict[str, Any] | None
    tone: Tone
    verdict: str
    notes: tuple[str, ...]


def headline(models: list[dict[str, Any]]) -> Headline:
    """Returns the conclusion for the models of a summary, seed first."""
    if not models:
        return Headline(None, None, "open", "No model has been evaluated yet.", ())
    seed, trained = models[0], models[1:]
    if not trained:
        return Headline(seed, None, "open", "Only the seed has been evaluated so far.", _caveats(seed))
    best = max(trained, key=lambda model: model["accuracy"])
    tone, verdict = _compare(seed, best, len(trained))
    return Headline(seed, best, tone, verdict, (*_selection(best, len(trained)), *_caveats(best)))


def _compare(seed: dict[str, Any], best: dict[str, Any], comparisons: int) -> tuple[Tone, str]:
    """Returns the conclusion; the p-value is corrected for the choice of the best of several models."""
    points = 100 * (best["accuracy"] - seed["accuracy"])
    change = f"{signed(points)} points"
    if best["p_value_vs_seed"] is None:
        return "open", f"No test against the seed was made ({change}), so there is no conclusion."
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
        f"{name} was chosen as the best of {comparisons} on the test pairs themselves, so p is multiplied by "
        f"{comparisons} (uncorrected: {p_value(best['p_value_vs_seed'])}).",
    )


def _caveats(model: dict[str, Any]) -> tuple[str, ...]:
    """Returns caveats about chance and position bias, which the accuracy alone does not show."""
    name, notes = model_name(model["iteration"]), []
    low, high = model["interval95"]
    if low <= CHANCE <= high:
        bounds = interval(model["interval95"])
        notes.append(f"The 95% interval of the {name} model ({bounds}) includes chance (50%).")
    # None: no pair has a verdict in both orders.
    if model["flip_rate"] is not None and model["flip_rate"] >= CHANCE:
        flips = percent(model["flip_rate"])
        notes.append(f"The verdict of the {name} model changes with the order in {flips} of the pairs.")
    return tuple(notes)
