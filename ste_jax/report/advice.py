"""Rules that turn the numbers of a run into advice: what limits it, and the setting to change."""

from collections.abc import Callable, Iterator
from typing import Any

from ste_jax.report.formats import count, interval, percent
from ste_jax.report.headline import Measure, measure_of

# Below this number of test pairs an interval of 95% is wider than 18 points on either side.
FEW_TEST_PAIRS = 30
FEW_EXAMPLES = 50
FORCED = 0.5
# A judge whose verdicts do not depend on the position says "A" in half of its judgments.
LEAN = 0.15
LENGTH_GAP = 0.15
LOW_YIELD = 0.25
LOW_PARSED = 0.8

Summary = dict[str, Any]


def advice(summary: Summary) -> list[str]:
    """Returns sentences about what limits a run and what to change, the most important first.

    Args:
      summary: the summary of a run (summary.json).
    """
    measure = measure_of(summary)
    rules: tuple[Callable[[Summary, Measure], Iterator[str]], ...] = (
        _too_few_test_pairs,
        _too_few_examples,
        _pairs_left_out,
        _unreadable_verdicts,
        _forced_verdicts,
        _unreadable_labels,
        _position,
        _length,
        _low_yield,
        _no_labelled_pairs,
    )
    return [sentence for rule in rules for sentence in rule(summary, measure)]


def _too_few_test_pairs(summary: Summary, measure: Measure) -> Iterator[str]:
    tested = summary["models"][-1] if summary["models"] else None
    if tested is not None and tested["n"] < FEW_TEST_PAIRS:
        bounds = interval(tested[measure.interval])
        yield (
            f"{count(tested['n'])} test pairs cannot tell much: the 95% interval is {bounds}. Raise "
            "pairs.test and select.size, or give labelled pairs of your own (labelled_pairs)."
        )


def _too_few_examples(summary: Summary, measure: Measure) -> Iterator[str]:
    for row in summary["training"]:
        if row["examples"] < FEW_EXAMPLES:
            yield (
                f"Iteration {row['iteration']} trained on {count(row['examples'])} examples. Raise "
                "select.size, or annotate.samples."
            )


def _pairs_left_out(summary: Summary, measure: Measure) -> Iterator[str]:
    pairs = summary.get("pairs") or {}
    rejected = pairs.get("rejected") or {}
    if not rejected or not pairs["asked"]:
        return
    reason, number = max(rejected.items(), key=lambda item: item[1])
    if sum(rejected.values()) > pairs["asked"] / 2:
        yield (
            f"{percent(1 - pairs['made'] / pairs['asked'])} of the pairs could not be made, mostly for "
            f"{reason} ({count(number)}). Kinds whose better response is certain need no model that follows "
            "instructions: see pairs.mode in docs/PAIRS.md."
        )


def _unreadable_verdicts(summary: Summary, measure: Measure) -> Iterator[str]:
    for row in summary["yields"]:
        if row["judgments"] and row["parsed"] < LOW_PARSED * row["judgments"]:
            yield (
                f"{percent(1 - row['parsed'] / row['judgments'])} of the judgments of iteration "
                f"{row['iteration']} have no verdict. Set annotate.force_verdict, or raise "
                "annotate.max_new_tokens."
            )


def _forced_verdicts(summary: Summary, measure: Measure) -> Iterator[str]:
    for row in summary["yields"]:
        reasons = row["judgments"] and row["forced"] < row["judgments"]
        if reasons and row["forced"] > FORCED * row["judgments"]:
            yield (
                f"{percent(row['forced'] / row['judgments'])} of the verdicts of iteration "
                f"{row['iteration']} were forced after reasoning that did not end with one. Raise "
                "annotate.max_new_tokens, or train a judge without reasoning (annotate.max_new_tokens=0)."
            )


def _unreadable_labels(summary: Summary, measure: Measure) -> Iterator[str]:
    labels = summary["labels"]
    if labels["asked"] and labels["parsed_category"] < LOW_PARSED * labels["asked"]:
        yield (
            f"The model named a category for {percent(labels['parsed_category'] / labels['asked'])} of the "
            "instructions only. Set select.categories to () and select.quotas to {}, or use a larger model."
        )


def _position(summary: Summary, measure: Measure) -> Iterator[str]:
    tested = summary["models"][-1] if summary["models"] else None
    if tested is None or not measure.order_matters or tested["first_preference"] is None:
        return
    if abs(tested["first_preference"] - 0.5) > LEAN:
        yield (
            f"The last model says A in {percent(tested['first_preference'])} of its judgments. Use decisions "
            "over both orders (the default of ste judge), and for training on them "
            'train.objective="pairwise".'
        )


def _length(summary: Summary, measure: Measure) -> Iterator[str]:
    tested = summary["models"][-1] if summary["models"] else None
    if tested is None or None in (tested["longer_preference"], tested["longer_correct"]):
        return
    gap = tested["longer_preference"] - tested["longer_correct"]
    if abs(gap) > LENGTH_GAP:
        longer = "longer" if gap > 0 else "shorter"
        yield (
            f"The last model prefers the {longer} response more often than is right (the longer one in "
            f"{percent(tested['longer_preference'])} of the verdicts, right in "
            f"{percent(tested['longer_correct'])}). Balance lengths in pairs.mode: padded with cut_off, "
            "handicapped with advantaged."
        )


def _low_yield(summary: Summary, measure: Measure) -> Iterator[str]:
    for row in summary["yields"]:
        if row["judgments"] and row["kept"] < LOW_YIELD * row["judgments"]:
            yield (
                f"Iteration {row['iteration']} kept {percent(row['kept'] / row['judgments'])} of its "
                "judgments. Raise annotate.samples, or make easier pairs (pairs.mode)."
            )


def _no_labelled_pairs(summary: Summary, measure: Measure) -> Iterator[str]:
    pairs = summary.get("pairs") or {}
    if pairs and not pairs["splits"]["labelled"]:
        yield (
            "All numbers are about constructed pairs. Give pairs that people have judged (labelled_pairs) to "
            "see whether the judge agrees with them."
        )
