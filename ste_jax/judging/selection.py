"""Which judgments are trained on, and what the yield of an annotation was.

An example is one pair in one order. Of its correct judgments one is kept at random; then the verdicts A and
B are made equally frequent. Every draw belongs to the seed and the ids, so the order of the input does not
matter.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from ste_jax.randomness import generator
from ste_jax.records import Comparison, Judgment, Order

Example = tuple[str, Order]


def keep_correct(
    judgments: Iterable[Judgment],
    pairs: Iterable[Comparison],
    *,
    seed: int,
    max_per_example: int = 1,
    both_orders: bool = False,
) -> list[Judgment]:
    """Returns the judgments to train on, sorted by id.

    An example without a correct judgment yields nothing. Of the verdict that is more frequent among the
    kept, as many are dropped at random as it has too many; if only one verdict occurs, nothing is left.

    Args:
      judgments: all samples of all examples.
      pairs: the pairs that were judged.
      seed: of the run.
      max_per_example: how many correct judgments are kept of each example.
      both_orders: leaves out examples whose pair has no correct judgment in the other order.

    Raises:
      ValueError: if a judgment's pair is missing, or its `correct` contradicts the pair's label.
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
    """Returns those examples, of those with a correct judgment, whose pair has none in the other order."""
    orders = Counter(pair_id for pair_id, _ in correct)
    return {example for example in correct if orders[example[0]] == 1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matched:
    """Correct judgments, each with a wrong one of its example, and why other correct ones are not among them.

    Attributes:
      pairs: (correct, wrong); the verdicts A and B are equally frequent among the correct.
      without_wrong: kept judgments whose example has no wrong one.
      unbalanced: those that had a wrong one, of the verdict that is more frequent.
    """

    pairs: list[tuple[Judgment, Judgment]]
    without_wrong: int
    unbalanced: int


def with_wrong(kept: Sequence[Judgment], judgments: Iterable[Judgment], *, seed: int) -> Matched:
    """Returns each kept judgment with a wrong one of its example, drawn at random, if there is one.

    A judgment without a verdict is not a wrong one: it would teach the format only. A model that says A too
    often has been wrong mostly where B is right, so the verdicts A and B are made equally frequent again.
    """
    wrong: dict[Example, list[Judgment]] = defaultdict(list)
    for judgment in sorted(judgments, key=lambda j: j.sample):
        if judgment.verdict is not None and not judgment.correct:
            wrong[judgment.pair_id, judgment.order].append(judgment)
    found = []
    for judgment in kept:
        if candidates := wrong[judgment.pair_id, judgment.order]:
            draw = generator(seed, "reject", judgment.id).integers(len(candidates))
            found.append((judgment, candidates[draw]))
    balanced = {judgment.id for judgment in _balance([good for good, _ in found], seed)}
    pairs = [(good, bad) for good, bad in found if good.id in balanced]
    return Matched(pairs=pairs, without_wrong=len(kept) - len(found), unbalanced=len(found) - len(pairs))


def _check(judgment: Judgment, pair: Comparison | None):
    if pair is None:
        raise ValueError(
            f"judgment {judgment.id}: pair {judgment.pair_id} is missing; annotate the pairs again"
        )
    if judgment.correct != (judgment.verdict == pair.correct_verdict(judgment.order)):
        raise ValueError(
            f"judgment {judgment.id}: field correct contradicts the label of pair {pair.id}; annotate again"
        )


def _balance(judgments: list[Judgment], seed: int) -> list[Judgment]:
    sides = [[judgment for judgment in judgments if judgment.verdict == label] for label in "AB"]
    size = min(map(len, sides))
    ranked = [sorted(side, key=lambda j: (generator(seed, "balance", j.id).random(), j.id)) for side in sides]
    return sorted((judgment for side in ranked for judgment in side[:size]), key=lambda judgment: judgment.id)


@dataclasses.dataclass(frozen=True, kw_only=True)
class YieldReport:
    """What an annotation gave. A mean or share of nothing is None.

    Attributes:
      examples: judged (pair, order)s.
      judgments: samples of all examples.
      parse_rate: share of judgments with a verdict, forced ones included.
      forced: share of judgments whose verdict was forced.
      statuses: judgments by status.
      correct_histogram: examples by their number of correct judgments.
      dropped: examples without a correct judgment.
      one_order: examples left out because their pair was judged correctly in this order only.
      too_easy: examples of which all asked samples are correct.
      verdicts: all verdicts by label.
      verdicts_correct: the correct ones by label.
      examples_correct: examples with a correct judgment and not left out, by its label: what balancing starts
        from.
      verdicts_kept: those trained on by label.
      length_difference: mean of better minus worse response in characters, over judged examples.
      length_difference_kept: the same over kept judgments.
    """

    examples: int
    judgments: int
    kept: int
    parse_rate: float | None
    forced: float | None
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
        """Returns the fields as a JSON-ready dict; the keys of the histogram become text."""
        value = dataclasses.asdict(self)
        histogram = {str(correct): count for correct, count in self.correct_histogram.items()}
        return value | {"correct_histogram": histogram}


def yield_report(
    judgments: Sequence[Judgment],
    kept: Sequence[Judgment],
    pairs: Iterable[Comparison],
    *,
    samples: int,
    both_orders: bool = False,
) -> YieldReport:
    """Returns the yield of an annotation.

    Args:
      judgments: all samples of all examples.
      kept: what `keep_correct` made of them.
      pairs: the pairs that were judged.
      samples: how many samples were asked of an example (fewer may have been drawn where it ended early).
      both_orders: as `keep_correct` was asked.
    """
    correct: Counter[Example] = Counter({(j.pair_id, j.order): 0 for j in judgments})
    correct.update((j.pair_id, j.order) for j in judgments if j.correct)
    histogram = Counter(correct.values())
    found: dict[Example, Judgment] = {(j.pair_id, j.order): j for j in judgments if j.correct}
    one_order = _in_one_order(found) if both_orders else set()
    longer = {pair.id: len(pair.chosen) - len(pair.rejected) for pair in pairs}
    return YieldReport(
        examples=len(correct),
        judgments=len(judgments),
        kept=len(kept),
        parse_rate=_mean([j.verdict is not None for j in judgments]),
        forced=_mean([j.forced for j in judgments]),
        statuses=dict(sorted(Counter(j.status for j in judgments).items())),
        correct_histogram=dict(sorted(histogram.items())),
        dropped=histogram[0],
        one_order=len(one_order),
        too_easy=histogram[samples],
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
