"""One-line conclusion of a run from the interval and the significance test."""

import dataclasses
from typing import Any, Literal

from ste_jax.report.formats import count, interval, model_name, p_value, percent, signed

Tone = Literal["gain", "flat", "loss", "open"]

SIGNIFICANCE = 0.05
CHANCE = 0.5


def least_changed(comparisons: int = 1) -> int:
    """Returns the least number of prompts that must differ, all in one direction, for a significant gain.

    The p-value of a gain is that of a sign-flip test over prompts. Under the null hypothesis, each of the 2^n
    assignments of signs to n differences is equally likely, and the most extreme outcome, n differences of
    one sign, has the two-sided p-value 2 / 2^n: n differences never have a smaller one (R. A. Fisher, The
    Design of Experiments, 1935, section 21). For 0.05 that takes 6 prompts, and more if the p-value is
    multiplied by a number of comparisons (Bonferroni).
    """
    needed = 1
    while comparisons * 2.0 ** (1 - needed) >= SIGNIFICANCE:
        needed += 1
    return needed


def can_tell(prompts: int, comparisons: int = 1) -> bool:
    """Returns True if this many prompts can show a difference between two judges.

    They cannot if the test would rather miss than find even a gain of 50 points, from a coin to a judge that
    is always right. The coin is right on half of the prompts already, so the number of prompts that change
    is binomial, with the probability 1/2. It reaches `least_changed` with a probability of 1/2 or more if
    there are at least twice as many prompts less one: 11 for one comparison.
    """
    return prompts >= 2 * least_changed(comparisons) - 1


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
    tone, verdict = _compare(100 * (best[measure.accuracy] - seed[measure.accuracy]), p, len(trained), best)
    few = _least_gain(best, len(trained), measure) if tone == "flat" else ()
    notes = (*_selection(best["iteration"], p, len(trained)), *few, *_caveats(best, measure))
    return Headline(seed, best, tone, verdict, notes)


def _compare(points: float, p: float | None, comparisons: int, best: dict[str, Any]) -> tuple[Tone, str]:
    """Returns the conclusion; the p-value is corrected for the choice of the best of several models."""
    change = f"{signed(points)} points"
    if p is None:
        return "open", f"No test against the seed was made ({change}), so there is no conclusion."
    p = min(1.0, p * comparisons)
    if p < SIGNIFICANCE and points > 0:
        return "gain", f"Significant gain over the seed ({change}, {p_value(p)})."
    if p < SIGNIFICANCE and points < 0:
        return "loss", f"Significantly worse than the seed ({change}, {p_value(p)})."
    if not can_tell(_prompts(best), comparisons):
        return "open", f"Cannot tell from {_pairs(best)} ({change}, {p_value(p)})."
    if points <= 0:
        return "flat", f"No gain: no trained model scores above the seed ({p_value(p)})."
    return "flat", f"No significant gain over the seed ({change}, {p_value(p)})."


def _prompts(model: dict[str, Any]) -> int:
    return model.get("prompts", model["n"])


def _pairs(model: dict[str, Any]) -> str:
    """Returns how many pairs a model was evaluated on, and of how many prompts if these are fewer."""
    pairs = f"{count(model['n'])} {'pair' if model['n'] == 1 else 'pairs'}"
    prompts = _prompts(model)
    return pairs if prompts == model["n"] else f"{pairs} of {count(prompts)} instructions"


def _least_gain(model: dict[str, Any], comparisons: int, measure: Measure) -> tuple[str, ...]:
    """Returns a note on the smallest gain that could have been significant, unless it is below 5 points."""
    changed = least_changed(comparisons)
    # The verdict of one order may change alone; a decision is of both.
    least = changed * (0.5 if measure.accuracy == VERDICTS.accuracy else 1.0) / model["n"]
    if least < 0.05:
        return ()
    return (
        f"A gain can only be significant if at least {changed} instructions are judged otherwise, which "
        f"takes {100 * least:.0f} points on {_pairs(model)}.",
    )


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
