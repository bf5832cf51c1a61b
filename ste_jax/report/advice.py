"""Rules that turn the numbers of a run into advice: what limits it, and the setting to change."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from ste_jax.report.basis import basis_of
from ste_jax.report.formats import count, interval, percent
from ste_jax.report.headline import VERDICTS, measure_of

# Below this number of test pairs an interval of 95% reaches 18 points or more to either side.
FEW_TEST_PAIRS = 30
FEW_EXAMPLES = 50
LOST_PAIRS = 0.5
FORCED = 0.5
# A judge whose verdicts do not depend on the position says A in half of its judgments.
LEAN = 0.15
LENGTH_GAP = 0.15
LOW_YIELD = 0.25
LOW_PARSED = 0.8

Summary = dict[str, Any]
_Rule = Callable[[Summary], Iterator[str]]


def advice(summary: Summary) -> list[str]:
    """Returns sentences about what limits a run and what to change, the most important first.

    Every rule looks at the last model or iteration, and names fields of the configuration.

    Args:
      summary: the summary of a run (summary.json).
    """
    rules: tuple[_Rule, ...] = (
        _too_few_test_pairs,
        _pairs_left_out,
        _too_few_examples,
        _unreadable_verdicts,
        _forced_verdicts,
        _unreadable_labels,
        _position,
        _length,
        _low_yield,
        _no_labelled_pairs,
    )
    return [sentence for rule in rules for sentence in rule(summary)]


def _last_model(summary: Summary) -> dict[str, Any] | None:
    """Returns the numbers of the last model on the pairs that lead the report."""
    models = basis_of(summary).models
    return models[-1] if models else None


def _last_yield(summary: Summary) -> dict[str, Any] | None:
    """Returns the yield of the last annotation, if anything was judged."""
    rows = [row for row in summary["yields"] if row["judgments"]]
    return rows[-1] if rows else None


def _is_pairwise(summary: Summary) -> bool:
    """Returns True if training needs no sampled judgments."""
    return summary.get("objective") == "pairwise"


def _too_few_test_pairs(summary: Summary) -> Iterator[str]:
    measure, tested = measure_of(summary), _last_model(summary)
    if tested is None or tested["n"] >= FEW_TEST_PAIRS:
        return
    if basis_of(summary).is_labelled:
        remedy = "Label more pairs (labelled_pairs): half of them are for tests."
    else:
        remedy = (
            "Raise pairs.test, and select.size with it, or give labelled pairs of your own (labelled_pairs)."
        )
    pairs = f"{count(tested['n'])} test {'pair is' if tested['n'] == 1 else 'pairs are'}"
    yield f"{pairs} few: the 95% interval of the accuracy is {interval(tested[measure.interval])}. {remedy}"


def _pairs_left_out(summary: Summary) -> Iterator[str]:
    pairs = summary.get("pairs") or {}
    rejected = pairs.get("rejected") or {}
    if not rejected or sum(rejected.values()) <= LOST_PAIRS * pairs["asked"]:
        return
    reason, number = max(rejected.items(), key=lambda item: item[1])
    if reason == "too_long":
        remedy = "Raise decode.buckets, or lower select.max_tokens."
    else:
        remedy = (
            "Choose other kinds of pairs (pairs.mode): those whose label is certain need no model that "
            'follows a format, such as ("crossed", "padded", "cut_off").'
        )
    yield (
        f"{percent(sum(rejected.values()) / pairs['asked'])} of the pairs could not be made, mostly because "
        f"of {reason.replace('_', ' ')} ({count(number)}). {remedy}"
    )


def _too_few_examples(summary: Summary) -> Iterator[str]:
    if not summary["training"]:
        return
    row = summary["training"][-1]
    if row["examples"] < FEW_EXAMPLES:
        more = "select.size" if _is_pairwise(summary) else "select.size or annotate.samples"
        yield (
            f"Iteration {row['iteration']} was trained on {count(row['examples'])} examples, which is few. "
            f"Raise {more}."
        )


def _unreadable_verdicts(summary: Summary) -> Iterator[str]:
    row = _last_yield(summary)
    if row is None or row["parsed"] >= LOW_PARSED * row["judgments"]:
        return
    # Where verdicts are forced, those that are still missing were cut off.
    remedy = "Raise annotate.max_new_tokens"
    remedy += "." if row["forced"] else ", or set annotate.force_verdict=True."
    yield (
        f"{percent(1 - row['parsed'] / row['judgments'])} of the judgments of iteration {row['iteration']} "
        f"have no verdict. {remedy}"
    )


def _forced_verdicts(summary: Summary) -> Iterator[str]:
    row = _last_yield(summary)
    # Without a token for reasoning all verdicts are forced, as they should be.
    if row is None or summary.get("max_new_tokens") == 0 or row["forced"] <= FORCED * row["judgments"]:
        return
    yield (
        f"{percent(row['forced'] / row['judgments'])} of the verdicts of iteration {row['iteration']} were "
        "forced, because the reasoning ended without one. Raise annotate.max_new_tokens, or train a "
        'judge without reasoning (annotate.max_new_tokens=0, judge_prompt="verdict").'
    )


def _unreadable_labels(summary: Summary) -> Iterator[str]:
    labels = summary.get("labels") or {}
    if not labels.get("asked") or labels["parsed_category"] >= LOW_PARSED * labels["asked"]:
        return
    yield (
        f"The model named a category for only {percent(labels['parsed_category'] / labels['asked'])} of the "
        "instructions. Use a larger model, or select without labels: select.categories=(), select.quotas={}, "
        "select.min_complexity=0."
    )


def _position(summary: Summary) -> Iterator[str]:
    tested = _last_model(summary)
    if tested is None or not measure_of(summary).order_matters or tested["first_preference"] is None:
        return
    if abs(tested["first_preference"] - 0.5) > LEAN:
        training = "raise train.lean_penalty" if _is_pairwise(summary) else 'set train.objective="pairwise"'
        yield (
            f"The last model prefers the response shown first in {percent(tested['first_preference'])} of "
            f"its verdicts. Use decisions over both orders, as ste judge does by default, and {training}."
        )


def _length(summary: Summary) -> Iterator[str]:
    tested = _last_model(summary)
    shares = _longer(summary, tested) if tested else None
    if shares is not None and abs(shares.preferred - shares.better) > LENGTH_GAP:
        yield (
            f"The last model prefers the longer response in {percent(shares.preferred)} of its "
            f"{shares.of}, and it is the better one in {percent(shares.better)} of the pairs. Train "
            'on kinds that balance lengths, such as pairs.mode=("padded", "cut_off", "handicapped", '
            '"advantaged").'
        )


class _Longer(NamedTuple):
    """Shares of the pairs in which the longer response is preferred, and in which it is better."""

    preferred: float
    better: float
    of: str


def _longer(summary: Summary, tested: dict[str, Any]) -> _Longer | None:
    """Returns the shares of decisions where these count, else of verdicts; None if they are not known."""
    if measure_of(summary) == VERDICTS:
        preferred, better = tested["longer_preference"], tested["longer_correct"]
        return None if None in (preferred, better) else _Longer(preferred, better, "verdicts")
    shortcuts = tested.get("shortcuts") or {}
    balance = tested.get("length_balance") or shortcuts.get("length_balance", {}).get("pooled")
    if not balance or "longer" not in balance:
        return None
    longer, shorter = balance["longer"], balance["shorter"]
    if not (number := longer["n"] + shorter["n"]):
        return None
    # Where the shorter response is better, a wrong decision prefers the longer one.
    preferred = longer["n"] * (longer["accuracy"] or 0.0)
    preferred += shorter["n"] * (1.0 - (shorter["accuracy"] or 0.0))
    return _Longer(preferred / number, longer["n"] / number, "decisions")


def _low_yield(summary: Summary) -> Iterator[str]:
    row = _last_yield(summary)
    if row is None or _is_pairwise(summary) or row["kept"] >= LOW_YIELD * row["examples"]:
        return
    if row["dropped"] > row["examples"] / 2:
        remedy = (
            f"{count(row['dropped'])} have no correct judgment: raise annotate.samples, or make easier pairs "
            "(pairs.mode)."
        )
    else:
        remedy = (
            "Others were left out to balance the verdicts A and B: raise annotate.samples or select.size."
        )
    yield (
        f"Iteration {row['iteration']} kept {count(row['kept'])} judgments of {count(row['examples'])} "
        f"examples. {remedy}"
    )


def _no_labelled_pairs(summary: Summary) -> Iterator[str]:
    pairs = summary.get("pairs") or {}
    if pairs and not pairs["splits"].get("labelled"):
        yield (
            "All numbers are about constructed pairs. Give pairs that people have judged (labelled_pairs) to "
            "see whether the judge agrees with them."
        )
