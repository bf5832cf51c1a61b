"""Selects the judgments to train on, and reports the yield of an annotation.

An example is one pair in one order. One of its correct judgments is drawn at random; then the verdicts A and
B are made equally frequent. Every draw is a function of the seed and the ids, so the order of the input does
not matter.

Judgments may be a sequence on disk (`IndexedRecords`). They are then read one at a time, what is kept of each
is a few bytes, and the results are sequences on disk, too.
"""

import dataclasses
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ste_jax.errors import SteError
from ste_jax.randomness import generator
from ste_jax.records import ORDERS, Comparison, Judgment, Label, Order
from ste_jax.storage.readers import ZippedRecords, pick

Example = tuple[str, Order]


def select_for_training(
    judgments: Iterable[Judgment],
    pairs: Iterable[Comparison],
    *,
    seed: int,
    max_per_example: int = 1,
    both_orders: bool = False,
) -> Sequence[Judgment]:
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
    judgments = _as_sequence(judgments)
    correct = _Candidates()
    verdicts: dict[str, list[Label | None]] = {
        pair.id: [pair.correct_verdict(order) for order in ORDERS] for pair in pairs
    }
    for index, judgment in enumerate(judgments):
        _check(judgment, verdicts)
        if judgment.correct:
            correct.add(judgment, index)
    drawn: list[int] = []
    one_order = _in_one_order(correct.examples) if both_orders else set()
    for example in correct.examples:
        if example not in one_order:
            candidates = correct.indices(example)
            order = generator(seed, "keep", *example).permutation(len(candidates))[:max_per_example]
            drawn += [candidates[i] for i in order]
    drawn.sort()
    outlines = [_Outline(j.id, j.verdict, i) for i, j in zip(drawn, pick(judgments, drawn), strict=True)]
    return pick(judgments, [outline.index for outline in _balance(outlines, seed)])


class _Outline(NamedTuple):
    """Fields of a judgment that the draws depend on, and its index."""

    id: str
    verdict: str | None
    index: int


class _Candidates:
    """Indices of judgments by example, at eight bytes each."""

    def __init__(self):
        self.examples: dict[Example, array] = {}

    def add(self, judgment: Judgment, index: int) -> None:
        """Adds the judgment with this index."""
        example = judgment.pair_id, judgment.order
        # In one number, which sorts by sample.
        self.examples.setdefault(example, array("Q")).append(judgment.sample << 40 | index)

    def indices(self, example: Example) -> list[int]:
        """Returns the indices of an example, sorted by sample."""
        return [number & (1 << 40) - 1 for number in sorted(self.examples.get(example, ()))]


def _as_sequence(judgments: Iterable[Judgment]) -> Sequence[Judgment]:
    return judgments if isinstance(judgments, Sequence) else list(judgments)


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

    pairs: Sequence[tuple[Judgment, Judgment]]
    without_wrong: int
    unbalanced: int


def pair_with_rejected(
    selected: Sequence[Judgment], judgments: Iterable[Judgment], *, seed: int
) -> PreferencePairs:
    """Returns the selected judgments whose example has a wrong judgment, each with one drawn at random.

    A judgment without a verdict does not count as wrong: it would teach the format only. A model that answers
    A too often is mostly wrong where B is right, so the verdicts are made equally frequent again.
    """
    judgments = _as_sequence(judgments)
    wrong = _Candidates()
    for index, judgment in enumerate(judgments):
        if judgment.verdict is not None and not judgment.correct:
            wrong.add(judgment, index)
    outlines: list[_Outline] = []
    drawn: list[int] = []
    for position, judgment in enumerate(selected):
        if candidates := wrong.indices((judgment.pair_id, judgment.order)):
            outlines.append(_Outline(judgment.id, judgment.verdict, position))
            drawn.append(candidates[generator(seed, "reject", judgment.id).integers(len(candidates))])
    balanced = {outline.index for outline in _balance(outlines, seed)}
    kept = [(o.index, wrong) for o, wrong in zip(outlines, drawn, strict=True) if o.index in balanced]
    good, bad = (pick(of, [pair[side] for pair in kept]) for side, of in enumerate((selected, judgments)))
    pairs = list(zip(good, bad, strict=True)) if isinstance(judgments, list) else ZippedRecords(good, bad)
    without_wrong = len(selected) - len(outlines)
    return PreferencePairs(pairs=pairs, without_wrong=without_wrong, unbalanced=len(outlines) - len(kept))


def _check(judgment: Judgment, verdicts: Mapping[str, Sequence[Label | None]]):
    if judgment.pair_id not in verdicts:
        raise SteError(
            "data_damaged",
            f"judgment {judgment.id}: pair {judgment.pair_id} is missing; annotate the pairs again",
        )
    right = verdicts[judgment.pair_id][ORDERS.index(judgment.order)]
    if judgment.correct != (judgment.verdict == right):
        raise SteError(
            "data_damaged",
            f"judgment {judgment.id}: `correct` contradicts the label of pair {judgment.pair_id}; "
            "annotate again",
        )


def _balance(outlines: list[_Outline], seed: int) -> list[_Outline]:
    sides = [[outline for outline in outlines if outline.verdict == label] for label in "AB"]
    size = min(map(len, sides))
    ranked = [sorted(side, key=lambda o: (generator(seed, "balance", o.id).random(), o.id)) for side in sides]
    return sorted(outline for side in ranked for outline in side[:size])


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
    judgments: Iterable[Judgment],
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
    tally, verdicts_kept, differences_kept = _Tally(), Counter[str | None](), []
    for judgment in judgments:
        tally.add(judgment)
    correct = tally.correct
    histogram = Counter(correct.values())
    one_order = _in_one_order(tally.last_correct) if both_orders else set()
    longer = {pair.id: len(pair.chosen) - len(pair.rejected) for pair in pairs if pair.label != "tie"}
    for judgment in kept:
        verdicts_kept[judgment.verdict] += 1
        if judgment.pair_id in longer:
            differences_kept.append(longer[judgment.pair_id])
    examples_correct = Counter(v for example, v in tally.last_correct.items() if example not in one_order)
    return YieldReport(
        examples=len(correct),
        judgments=tally.judgments,
        kept=len(kept),
        parsed=tally.judgments - tally.verdicts[None],
        forced=tally.forced,
        statuses=dict(sorted(tally.statuses.items())),
        correct_histogram=dict(sorted(histogram.items())),
        dropped=histogram[0],
        one_order=len(one_order),
        too_easy=sum(correct[example] == count for example, count in tally.drawn.items()),
        verdicts=_letters(tally.verdicts),
        verdicts_correct=_letters(tally.verdicts_correct),
        examples_correct=_letters(examples_correct),
        verdicts_kept=_letters(verdicts_kept),
        length_difference=_mean([longer[pair_id] for pair_id, _ in correct if pair_id in longer]),
        length_difference_kept=_mean(differences_kept),
    )


class _Tally:
    """Counts over judgments, which are read once.

    Attributes:
      judgments: number of judgments.
      forced: number of judgments whose verdict was forced.
      statuses: judgments by status.
      verdicts: judgments by verdict.
      verdicts_correct: correct judgments by verdict.
      drawn: judgments by example.
      correct: correct judgments by example.
      last_correct: verdict of a correct judgment, by example.
    """

    def __init__(self):
        self.judgments = self.forced = 0
        self.statuses: Counter[str] = Counter()
        self.verdicts: Counter[str | None] = Counter()
        self.verdicts_correct: Counter[str | None] = Counter()
        self.drawn: Counter[Example] = Counter()
        self.correct: Counter[Example] = Counter()
        self.last_correct: dict[Example, str | None] = {}

    def add(self, judgment: Judgment) -> None:
        """Counts a judgment."""
        example = judgment.pair_id, judgment.order
        self.judgments += 1
        self.forced += judgment.forced
        self.statuses[judgment.status] += 1
        self.verdicts[judgment.verdict] += 1
        self.drawn[example] += 1
        self.correct[example] += bool(judgment.correct)
        if judgment.correct:
            self.verdicts_correct[judgment.verdict] += 1
            self.last_correct[example] = judgment.verdict


def _letters(counts: Counter[str | None]) -> dict[str, int]:
    return {"A": counts["A"], "B": counts["B"]}


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
