"""The shortcut panel: one sentence for each number, and a summary, by rules on the intervals.

A line warns only where the whole 95% interval is on the wrong side of a bound, so that few pairs give few
warnings; accuracy is the exception, which has to be shown to be above chance.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from ste_jax.evaluation.probes.biases import BIASES
from ste_jax.evaluation.probes.probe import EMPTY, MASTER_KEY, REMOVED, SWAPPED
from ste_jax.report.formats import percent

CHANCE = 0.5
# Smallest preference (as a difference of shares) and fall of accuracy that count as such.
LEAST_PREFERENCE = 0.1
LEAST_FALL = 0.05
# Highest share of flips, of decisions that are not repeated, of circles and of lost trivial comparisons.
MOST_FAILURES = 0.05
# Kinds of pairs in which the responses alone give nothing away.
NEUTRAL_KINDS = ("crossed", "random_crossed", "constraint")

_FORGED = {
    "forged_letter": "Forging the letter of a verdict in the worse response",
    "forged_verdict": "Forging a sentence with a verdict in the worse response",
}
_CONTENTLESS = {
    MASTER_KEY: 'A text without content, such as ":" or "Solution", beats the better response',
    EMPTY: "An empty response beats the better response",
}
_BLIND = {REMOVED: "Without the instruction", SWAPPED: "With the instruction of another prompt"}
_ATTACKS = "a reward, a filter or a ranking whose authors can adapt to it"
# What a judge is not for, by the name of the line that warns.
_NOT_FOR = {
    "accuracy": "decisions on pairs like these, on which it is not shown to be better than a coin",
    "length": "comparing responses of different lengths",
    "order": "verdicts from one order only",
    "instruction": "telling which response follows the instruction",
    "neutral_kinds": "measurements of how it reads instructions",
    "attack": _ATTACKS,
    "retest": "decisions that must be repeatable",
    "cycles": "rankings from few comparisons",
    "verified": "checking calculations or code",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PanelLine:
    """A line of the panel.

    Attributes:
      name: what was measured.
      share: the number, or None if it could not be measured.
      interval95: its interval.
      text: one sentence.
      warning: key of `_NOT_FOR` if the number speaks against a use of the judge, else None.
    """

    name: str
    share: float | None
    interval95: list[float] | None
    text: str
    warning: str | None = None


def panel(numbers: dict[str, Any]) -> dict[str, Any]:
    """Returns the panel of the numbers of `shortcuts` as a JSON-ready dict.

    It has the `lines`, the phrases of what the judge decides by (`decides_by`) and is not for (`not_for`),
    and a `summary` of both.
    """
    probes = numbers["probes"]
    lines = [line for line in _of_judgments(numbers) if line.share is not None]
    if probes:
        lines += [line for line in _of_probes(probes) if line.share is not None]
    decides_by = list(_decides_by(numbers))
    not_for = list(dict.fromkeys(_NOT_FOR[line.warning] for line in lines if line.warning))
    return {
        "lines": [dataclasses.asdict(line) for line in lines],
        "decides_by": decides_by,
        "not_for": not_for,
        "summary": _summary(decides_by, not_for, probed=bool(probes)),
    }


def _above(row: dict[str, Any], bound: float) -> bool:
    """Returns True if the whole interval of a number is above a bound."""
    return row["interval95"] is not None and row["interval95"][0] > bound


def _below(row: dict[str, Any], bound: float) -> bool:
    return row["interval95"] is not None and row["interval95"][1] < bound


def _line(name: str, row: dict[str, Any], text: str, warning: str | None) -> PanelLine:
    bounds = row["interval95"] and list(row["interval95"])
    return PanelLine(name=name, share=row["share"], interval95=bounds, text=text, warning=warning)


def _of_judgments(numbers: dict[str, Any]) -> Iterator[PanelLine]:
    """Yields the lines that need no probes."""
    accuracy, flips = numbers["accuracy"], numbers["order_flips"]
    text = f"Both orders pooled, it is right on {percent(accuracy['share'])} of {accuracy['n']} pairs."
    yield _line("accuracy", accuracy, text, None if _above(accuracy, CHANCE) else "accuracy")
    yield _length(numbers)
    text = f"Its verdict changes with the order of the responses in {percent(flips['share'])} of the pairs."
    yield _line("order flips", flips, text, "order" if _above(flips, MOST_FAILURES) else None)
    first = numbers["first_preference"]
    text = f"{percent(first['share'])} of its verdicts prefer the response shown first."
    yield _line("position", first, text, "order" if _prefers_position(first) else None)
    if verified := numbers["verified"]:
        text = f"On pairs that a program has verified it is right in {percent(verified['share'])}."
        yield _line("verified pairs", verified, text, None if _above(verified, CHANCE) else "verified")
    if changed := numbers["changed"]:
        text = (
            f"{percent(changed['share'])} of its decisions differ from those of the previous iteration: "
            f"{changed['to_right']} became right and {changed['to_wrong']} wrong."
        )
        yield _line("changed decisions", changed, text, None)


def _length(numbers: dict[str, Any]) -> PanelLine:
    row, accuracy = numbers["length_balance"]["pooled"], numbers["accuracy"]["share"]
    longer, shorter = (percent(row[name]["accuracy"]) for name in ("longer", "shorter"))
    preferred = _preferred_length(row)
    begin = f"It prefers the {preferred} response: " if preferred else ""
    text = (
        f"{begin}{'length' if begin else 'Length'}-balanced accuracy {percent(row['accuracy'])} (accuracy "
        f"{percent(accuracy)}), {longer} where the better response is longer, {shorter} where it is shorter."
    )
    return PanelLine(
        name="length-balanced accuracy",
        share=row["accuracy"],
        interval95=row["interval95"],
        text=text,
        warning="length" if preferred else None,
    )


def _preferred_length(row: dict[str, Any]) -> str | None:
    """Returns which length is preferred, "longer" or "shorter", if the gap of accuracies shows it."""
    if row["gap"] is None or abs(row["gap"]) < LEAST_PREFERENCE:
        return None
    low, high = row["gap_interval95"]
    return "longer" if low > 0 else "shorter" if high < 0 else None


def _prefers_position(first: dict[str, Any]) -> bool:
    return _above(first, CHANCE + LEAST_PREFERENCE / 2) or _below(first, CHANCE - LEAST_PREFERENCE / 2)


def _of_probes(probes: dict[str, Any]) -> Iterator[PanelLine]:
    yield from _blind_lines(probes)
    for kind, bias in BIASES.items():
        yield _moved_line(kind, probes["biases"][kind], bias.does)
    for kind, does in _FORGED.items():
        yield _moved_line(kind, probes["forged"][kind], does)
    for kind, text in _CONTENTLESS.items():
        row = probes["contentless"][kind]
        warning = "attack" if _above(row, MOST_FAILURES) else None
        yield _line(kind, row, f"{text} in {percent(row['share'])} of the pairs.", warning)
    for name, text in (
        ("retest", "Judged once more, {} of the comparisons get another decision."),
        ("cycles", "{} of the triples of responses are ranked in a circle; by chance it is 25%."),
    ):
        row = probes[name]
        warning = name if _above(row, MOST_FAILURES) else None
        yield _line(name, row, text.format(percent(row["share"])), warning)


def _blind_lines(probes: dict[str, Any]) -> Iterator[PanelLine]:
    warning = None if _reads_instruction(probes) else "instruction"
    for kind, begin in _BLIND.items():
        row = probes["blind"][kind]
        with_it = percent(probes["accuracy"]["share"])
        text = f"{begin} it is right in {percent(row['share'])} of the pairs, with it in {with_it}."
        yield _line(kind, row, text, warning)
    subsets = probes["blind"][REMOVED]["subsets"]
    for name in NEUTRAL_KINDS:
        if name in subsets:
            row = subsets[name]
            text = (
                f"Without the instruction it is right in {percent(row['share'])} of the {name} pairs, which "
                "should be 50%."
            )
            is_off = _above(row, CHANCE) or _below(row, CHANCE)
            yield _line(f"{REMOVED}, {name}", row, text, "neutral_kinds" if is_off else None)


def _reads_instruction(probes: dict[str, Any]) -> bool:
    """Returns True if the judge is shown to be less often right without the right instruction."""
    return any(_above(probes["blind"][kind]["fall"], 0.0) for kind in _BLIND)


def _moved_line(name: str, row: dict[str, Any], does: str) -> PanelLine:
    fall = row["fall"]
    is_moved = _above(fall, 0.0) and fall["share"] >= LEAST_FALL
    text = f"{does} moves {percent(row['share'])} of the right decisions to it"
    if is_moved:
        text += f"; accuracy falls by {100 * fall['share']:.1f} points"
    return _line(name, row, f"{text}.", "attack" if is_moved else None)


def _decides_by(numbers: dict[str, Any]) -> Iterator[str]:
    """Yields what the judge is shown to decide by."""
    balance, probes = numbers["length_balance"]["pooled"], numbers["probes"]
    beyond_length = balance if balance["accuracy"] is not None else numbers["accuracy"]
    if probes and _reads_instruction(probes):
        yield "the instruction and what the responses say"
    elif _above(beyond_length, CHANCE):
        yield "the responses, whatever the instruction" if probes else "the content of the responses"
    if preferred := _preferred_length(balance):
        yield f"the length of the responses (it prefers the {preferred} one)"
    if _prefers_position(first := numbers["first_preference"]):
        which = "first" if first["share"] > CHANCE else "second"
        yield f"the position of the responses (its verdicts prefer the {which} one)"


def _summary(decides_by: Sequence[str], not_for: Sequence[str], *, probed: bool) -> str:
    by = (
        f"This judge decides by {_listed(decides_by)}."
        if decides_by
        else ("These pairs do not show what this judge decides by.")
    )
    uses = (
        f"Do not use it for {_listed(not_for, '; ')}."
        if not_for
        else ("Nothing that was measured speaks against its use on such pairs.")
    )
    rest = "" if probed else " Other shortcuts were not probed."
    return f"{by} {uses}{rest}"


def _listed(phrases: Sequence[str], separator: str = ", ") -> str:
    *begin, last = phrases
    return f"{separator.join(begin)} and {last}" if begin else last
