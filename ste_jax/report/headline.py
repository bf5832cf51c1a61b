"""One-line conclusion of a run from the interval and the significance test."""

import dataclasses
from typing import Any, Literal

from ste_jax.report.formats import interval, model_name, p_value, percent, signed

Tone = Literal["gain", "flat", "loss", "open"]

SIGNIFICANCE = 0.05
CHANCE = 0.5


@dataclasses.dataclass(frozen=True)
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


@dataclasses.dataclass(frozen=True)
class Measure:
    """The accuracy that the models of a run are compared by.

    Attributes:
      accuracy: Key of the accuracy in the numbers of a model.
      interval: Key of its interval.
      p_value: Key of the p-value of its test against the seed model.
      order_matters: False if the judge sees one response at a time, so that there is no order of responses.
    """

    accuracy: str
    interval: str
    p_value: str
    order_matters: bool = True


VERDICTS = Measure("accuracy", "interval95", "p_value_vs_seed")
DECISIONS = Measure("accuracy_pooled", "pooled_interval95", "p_value_pooled_vs_seed")
GRADES = dataclasses.replace(DECISIONS, order_matters=False)


def measure_of(summary: dict[str, Any]) -> Measure:
    """Returns what a run trains for: pooled decisions if its objective is "pairwise", else verdicts.

    Of a pointwise judge only the decisions between two grades can be compared.
    """
    if summary.get("pointwise"):
        return GRADES
    return DECISIONS if summary.get("objective") == "pairwise" else VERDICTS


def headline(models: list[dict[str, Any]], measure: Measure = VERDICTS) -> Headline:
    """Returns the conclusion for the models of a summary, seed first."""
    if not models:
        return Headline(None, None, "open", "No model has been evaluated yet.", ())
    seed, trained = models[0], models[1:]
    if not trained:
        return Headline(
            seed, None, "open", "Only the seed has been evaluated so far.", _caveats(seed, measure)
        )
    best = max(trained, key=lambda model: model[measure.accuracy])
    p = best[measure.p_value]
    tone, verdict = _compare(100 * (best[measure.accuracy] - seed[measure.accuracy]), p, len(trained))
    notes = (*_selection(best["iteration"], p, len(trained)), *_caveats(best, measure))
    return Headline(seed, best, tone, verdict, notes)


def _compare(points: float, p: float | None, comparisons: int) -> tuple[Tone, str]:
    """Returns the conclusion; the p-value is corrected for the choice of the best of several models."""
    change = f"{signed(points)} points"
    if p is None:
        return "open", f"No test against the seed was made ({change}), so there is no conclusion."
    p = min(1.0, p * comparisons)
    if p < SIGNIFICANCE and points > 0:
        return "gain", f"Significant gain over the seed ({change}, {p_value(p)})."
    if p < SIGNIFICANCE and points < 0:
        return "loss", f"Significantly worse than the seed ({change}, {p_value(p)})."
    if points <= 0:
        return "flat", f"No gain: no trained model scores above the seed ({p_value(p)})."
    return "flat", f"No significant gain over the seed ({change}, {p_value(p)})."


def _selection(iteration: int, p: float | None, comparisons: int) -> tuple[str, ...]:
    if comparisons == 1 or p is None:
        return ()
    name = model_name(iteration).capitalize()
    return (
        f"{name} was chosen as the best of {comparisons} on the test pairs themselves, so p is multiplied by "
        f"{comparisons} (uncorrected: {p_value(p)}).",
    )


def _caveats(model: dict[str, Any], measure: Measure) -> tuple[str, ...]:
    """Returns caveats about chance and position bias, which the accuracy alone does not show."""
    name, notes = model_name(model["iteration"]), []
    low, high = model[measure.interval]
    if low <= CHANCE <= high:
        bounds = interval(model[measure.interval])
        notes.append(f"The 95% interval of the {name} model ({bounds}) includes chance (50%).")
    # None: no pair has a verdict in both orders.
    if measure.order_matters and model["flip_rate"] is not None and model["flip_rate"] >= CHANCE:
        flips = percent(model["flip_rate"])
        notes.append(f"The verdict of the {name} model changes with the order in {flips} of the pairs.")
    return tuple(notes)
