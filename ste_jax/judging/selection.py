"""Selects the judgments to train on, and reports the yield of an annotation.

An example is one pair in one order. One of its correct judgments is drawn at random; then the verdicts A and
B are made equally frequent. Every draw is a function of the seed and the ids, so the order of the input does
not matter.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from ste_jax.errors import SteError
from ste_jax.randomness import generator
from ste_jax.records import Comparison, Judgment, Order

Example = tuple[str, Order]


def select_for_training(
    judgments: Iterable[Judgment],
    pairs: Iterable[Comparison],
    *,
    seed: int,
    max_per_example: int = 1,
    both_orders: bool = False,
) -> list[Judgment]:
    """Returns the judgments to train on, sorted by id.

    An example without a correct judgment yields nothing. Judgments with the more frequent verdict are dropped
    at random until both verdicts are equally frequent; if only one verdict occurs, nothing is left.

    Args:
      judgments: all samples of all examples.
      pairs: the pairs that were judged.
      seed: seed of the run.
      max_per_example: maximum number of judgments per example.
      both_orders: leaves out examples whose pair has no correct judgment in the other order.

    Raises:
      SteError: "data_damaged" if the pair of a judgment is missing, or `correct` contradicts its label.
    """
    correct: dict[Example, list[Judgment]] = defaultdict(list)
    known = {pair.id: pair for pair in pairs}
    for judgment in judgments:
        _check(judgment, known.get(judgment.pair_id))
        if judgment.correct:
            correct[judgment.pair_id, judgment.order].append(judgment)
    kept = []
    one_order = _in_one_order(correct) if both_orders else set()
    for (pair_id, order), candidates in correct.items():
        if (pair_id, order) in one_order:
            continue
        candidates.sort(key=lambda judgment: judgment.sample)
        drawn = generator(seed, "keep", pair_id, order).permutation(len(candidates))[:max_per_example]
        kept += [candidates[i] for i in drawn]
    return _balance(kept, seed)


def _in_one_order(correct: Collection[Example]) -> set[Example]:
    """Returns the examples with a correct judgment whose pair has none in the other order."""
    orders = Counter(pair_id for pair_id, _ in correct)
    return {example for example in correct if orders[example[0]] == 1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferencePairs:
    """Pairs of a correct and a wrong judgment of the same example, and counts of what was left out.

    Attributes:
      pairs: (correct, wrong); the verdicts A and B are equally frequent among the correct judgments.
      without_wrong: number of selected judgments whose example has no wrong judgment.
      unbalanced: number of pairs dropped to make both verdicts equally frequent.
    """

    pairs: list[tuple[Judgment, Judgment]]
    without_wrong: int
    unbalanced: int


def pair_with_rejected(
    selected: Sequence[Judgment], judgments: Iterable[Judgment], *, seed: int
) -> PreferencePairs:
    """Returns the selected judgments whose example has a wrong judgment, each with one drawn at random.

    A judgment without a verdict does not count as wrong: it would teach the format only. A model that answers
    A too often is mostly wrong where B is right, so the verdicts are made equally frequent again.
    """
    wrong: dict[Example, list[Judgment]] = defaultdict(list)
    for judgment in sorted(judgments, key=lambda j: j.sample):
        if judgment.verdict is not None and not judgment.correct:
            wrong[judgment.pair_id, judgment.order].append(judgment)
    found = []
    for judgment in selected:
        if candidates := wrong[judgment.pair_id, judgment.order]:
            draw = generator(seed, "reject", judgment.id).integers(len(candidates))
            found.append((judgment, candidates[draw]))
    balanced = {judgment.id for judgment in _balance([good for good, _ in found], seed)}
    pairs = [(good, bad) for good, bad in found if good.id in balanced]
    without_wrong = len(selected) - len(found)
    return PreferencePairs(pairs=pairs, without_wrong=without_wrong, unbalanced=len(found) - len(pairs))


def _check(judgment: Judgment, pair: Comparison | None):
    if pair is None:
        raise SteError(
            "data_damaged",
            f"judgment {judgment.id}: pair {judgment.pair_id} is missing; annotate the pairs again",
        )
    if judgment.correct != (judgment.verdict == pair.correct_verdict(judgment.order)):
        raise SteError(
            "data_damaged",
            f"judgment {judgment.id}: `correct` contradicts the label of pair {pair.id}; annotate again",
        )


def _balance(judgments: list[Judgment], seed: int) -> list[Judgment]:
    sides = [[judgment for judgment in judgments if judgment.verdict == label] for label in "AB"]
    size = min(map(len, sides))
    ranked = [sorted(side, key=lambda j: (generator(seed, "balance", j.id).random(), j.id)) for side in sides]
    return sorted((judgment for side in ranked for judgment in side[:size]), key=lambda judgment: judgment.id)


@dataclasses.dataclass(frozen=True, kw_only=True)
class YieldReport:
    """Yield of an annotation. All fields are counts except the two means, which are None over nothing.

    Attributes:
      examples: judged examples, that is (pair, order).
      judgments: samples of all examples.
      kept: judgments selected for training.
      parsed: judgments with a verdict, forced ones included.
      forced: judgments whose verdict was forced.
      statuses: judgments by status.
      correct_histogram: examples by their number of correct judgments.
      dropped: examples without a correct judgment.
      one_order: examples left out because their pair was judged correctly in this order only.
      too_easy: examples all of whose samples are correct. Sampling that stops early draws fewer samples.
      verdicts: verdicts of all judgments, by letter.
      verdicts_correct: verdicts of the correct judgments, by letter.
      examples_correct: examples with a correct judgment that are not left out, by letter, before balancing.
      verdicts_kept: verdicts of the kept judgments, by letter.
      length_difference: mean length of the better minus the worse response in characters, over examples.
      length_difference_kept: the same over kept judgments.
    """

    examples: int
    judgments: int
    kept: int
    parsed: int
    forced: int
    statuses: dict[str, int]
    correct_histogram: dict[int, int]
    dropped: int
    one_order: int
    too_easy: int
    verdicts: dict[str, int]
    verdicts_correct: dict[str, int]
    examples_correct: dict[str, int]
    verdicts_kept: dict[str, int]
    length_difference: float | None
    length_difference_kept: float | None

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a JSON-ready dict. The keys of the histogram become text."""
        value = dataclasses.asdict(self)
        histogram = {str(correct): count for correct, count in self.correct_histogram.items()}
        return value | {"correct_histogram": histogram}


def yield_report(
    judgments: Sequence[Judgment],
    kept: Sequence[Judgment],
    pairs: Iterable[Comparison],
    *,
    both_orders: bool = False,
) -> YieldReport:
    """Returns the yield of an annotation.

    Args:
      judgments: all samples of all examples.
      kept: the judgments returned by `select_for_training`.
      pairs: the pairs that were judged.
      both_orders: argument of `select_for_training`.
    """
    drawn: Counter[Example] = Counter((j.pair_id, j.order) for j in judgments)
    correct: Counter[Example] = Counter(dict.fromkeys(drawn, 0))
    correct.update((j.pair_id, j.order) for j in judgments if j.correct)
    histogram = Counter(correct.values())
    found: dict[Example, Judgment] = {(j.pair_id, j.order): j for j in judgments if j.correct}
    one_order = _in_one_order(found) if both_orders else set()
    longer = {pair.id: len(pair.chosen) - len(pair.rejected) for pair in pairs}
    return YieldReport(
        examples=len(correct),
        judgments=len(judgments),
        kept=len(kept),
        parsed=sum(j.verdict is not None for j in judgments),
        forced=sum(j.forced for j in judgments),
        statuses=dict(sorted(Counter(j.status for j in judgments).items())),
        correct_histogram=dict(sorted(histogram.items())),
        dropped=histogram[0],
        one_order=len(one_order),
        too_easy=sum(correct[example] == count for example, count in drawn.items()),
        verdicts=_labels(judgments),
        verdicts_correct=_labels([j for j in judgments if j.correct]),
        examples_correct=_labels(j for example, j in found.items() if example not in one_order),
        verdicts_kept=_labels(kept),
        length_difference=_mean([longer[pair_id] for pair_id, _ in correct]),
        length_difference_kept=_mean([longer[j.pair_id] for j in kept]),
    )


def _labels(judgments: Iterable[Judgment]) -> dict[str, int]:
    counts = Counter(judgment.verdict for judgment in judgments)
    return {"A": counts["A"], "B": counts["B"]}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
