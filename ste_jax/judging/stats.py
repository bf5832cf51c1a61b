"""What a judge's verdicts on labelled pairs, each shown in both orders, say of its accuracy and biases."""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from ste_jax.randomness import generator
from ste_jax.records import Label, opposite


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgedPair:
    """The verdicts on one pair, as tuples over `ORDERS`: (as given, swapped).

    Attributes:
      pair_id: unique among the judged pairs.
      label: the better response as given.
      verdicts: each in the letters of its own order, None where there is none.
      statuses: those of judging/verdict.py.
      forced: whether the verdict was forced.
      length_a: of response A as given, in characters or tokens, the same for all pairs.
      length_b: of response B as given.
    """

    pair_id: str
    label: Label
    verdicts: tuple[Label | None, Label | None]
    statuses: tuple[str, str]
    forced: tuple[bool, bool] = (False, False)
    length_a: int
    length_b: int

    @property
    def preferred(self) -> tuple[Label | None, Label | None]:
        """The response, as given, that each of the two verdicts prefers."""
        as_given, swapped = self.verdicts
        return as_given, swapped and opposite(swapped)

    @property
    def correct(self) -> tuple[bool, bool]:
        """Whether each of the two verdicts is right; None is wrong."""
        first, second = self.preferred
        return first == self.label, second == self.label


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The numbers of one judge on one set of pairs. A share of nothing is None.

    Attributes:
      n: pairs.
      accuracy_as_given, accuracy_swapped: share of right verdicts in that order; no verdict counts as wrong.
      accuracy: their mean.
      interval95: of `accuracy`; bootstrap over pairs (both orders of a pair go together).
      consistent_accuracy: share of pairs judged right in both orders.
      consistent_interval95: its Wilson interval.
      flip_rate: share of pairs whose two verdicts prefer different responses, among those with both verdicts.
      first_preference: share of verdicts that say "A".
      unparsed: how many of the 2n judgments gave no verdict, by status.
      forced: share of the 2n judgments whose verdict was forced.
      longer_preference: share of verdicts that prefer the longer response, among pairs of unequal lengths.
      longer_correct: share of pairs whose better response is the longer one, among pairs of unequal lengths.
      correct: (as given, swapped) by pair id, which `paired_test` compares. Not part of the JSON.
    """

    n: int
    accuracy_as_given: float
    accuracy_swapped: float
    accuracy: float
    interval95: tuple[float, float]
    consistent_accuracy: float
    consistent_interval95: tuple[float, float]
    flip_rate: float | None
    first_preference: float | None
    unparsed: dict[str, int]
    forced: float
    longer_preference: float | None
    longer_correct: float | None
    correct: dict[str, tuple[bool, bool]]

    def to_json(self) -> dict[str, Any]:
        """Returns the numbers as a JSON-ready dict."""
        value = dataclasses.asdict(self)
        del value["correct"]
        return value | {name: list(value[name]) for name in ("interval95", "consistent_interval95")}


def evaluate_judgments(pairs: Sequence[JudgedPair], *, seed: int) -> Evaluation:
    """Returns the numbers of one judge on `pairs`; the seed draws the bootstrap.

    Raises:
      ValueError: if there are no pairs or a pair occurs twice.
    """
    pairs = sorted(pairs, key=lambda pair: pair.pair_id)
    correct = {pair.pair_id: pair.correct for pair in pairs}
    if not pairs or len(correct) != len(pairs):
        what = "two rows with the same pair id; merge them" if pairs else "no judged pairs; give at least one"
        raise ValueError(f"evaluation: {what}")
    right = np.array(list(correct.values()))
    outcomes = [outcome for p in pairs for outcome in zip(p.verdicts, p.statuses, strict=True)]
    both = [pair.preferred for pair in pairs if all(pair.verdicts)]
    longer_preferred, longer_right = _length_bias(pairs)
    return Evaluation(
        n=len(pairs),
        accuracy_as_given=float(right[:, 0].mean()),
        accuracy_swapped=float(right[:, 1].mean()),
        accuracy=float(right.mean()),
        interval95=bootstrap_interval(right.mean(axis=1), seed=seed),
        consistent_accuracy=float(right.all(axis=1).mean()),
        consistent_interval95=wilson_interval(int(right.all(axis=1).sum()), len(pairs)),
        flip_rate=_share([first != second for first, second in both]),
        first_preference=_share([verdict == "A" for verdict, _ in outcomes if verdict]),
        unparsed=dict(sorted(Counter(status for verdict, status in outcomes if verdict is None).items())),
        forced=float(np.mean([pair.forced for pair in pairs])),
        longer_preference=longer_preferred,
        longer_correct=longer_right,
        correct=correct,
    )


def _length_bias(pairs: Sequence[JudgedPair]) -> tuple[float | None, float | None]:
    """Returns (longer_preference, longer_correct)."""
    unequal = [
        (pair, "A" if pair.length_a > pair.length_b else "B")
        for pair in pairs
        if pair.length_a != pair.length_b
    ]
    preferred = [choice == longer for pair, longer in unequal for choice in pair.preferred if choice]
    return _share(preferred), _share([pair.label == longer for pair, longer in unequal])


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def bootstrap_interval(values: np.ndarray, *, seed: int) -> tuple[float, float]:
    """Returns the 95% percentile bootstrap interval of the mean of `values` [pairs], all within 0 and 1.

    Where all values are equal (one pair, or a judge that is always right), resampling shows no spread at
    all; the Wilson interval for that many pairs is given instead.
    """
    if np.ptp(values) == 0:
        return wilson_interval(float(values.sum()), len(values))
    interval = stats.bootstrap(
        (values,), np.mean, n_resamples=9999, batch=250, method="percentile", rng=generator(seed, "bootstrap")
    ).confidence_interval
    return float(interval.low), float(interval.high)


def wilson_interval(successes: float, n: int) -> tuple[float, float]:
    """Returns the 95% Wilson interval of a share; half a success widens it to the whole numbers around."""
    low = stats.binomtest(math.floor(successes), n).proportion_ci(method="wilson").low
    high = stats.binomtest(math.ceil(successes), n).proportion_ci(method="wilson").high
    return float(low), float(high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedTest:
    """A sign-flip permutation test of the accuracies of two judges on the same pairs.

    Attributes:
      n: pairs; both orders of a pair go together.
      better: pairs on which the second judge is right more often than the first.
      worse: pairs on which it is right less often.
      p_value: two-sided, of the mean difference; 1 if they never differ.
    """

    n: int
    better: int
    worse: int
    p_value: float

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a JSON-ready dict."""
        return dataclasses.asdict(self)


def paired_test(first: Evaluation, second: Evaluation, *, seed: int) -> PairedTest:
    """Tests whether two judges differ in accuracy.

    Under the null hypothesis the sign of each pair's difference is a coin; with few pairs all signs are
    enumerated, else 9,999 draws are made.

    Raises:
      ValueError: if they did not judge the same pairs.
    """
    if first.correct.keys() != second.correct.keys():
        stray = min(first.correct.keys() ^ second.correct.keys())
        raise ValueError(
            f"paired test: pair {stray} was judged by one model only; evaluate both on the same pairs"
        )
    ids = sorted(first.correct)
    scores = [np.array([np.mean(e.correct[pair]) for pair in ids]) for e in (second, first)]
    difference = scores[0] - scores[1]
    p_value = 1.0
    if np.any(difference):
        p_value = stats.permutation_test(
            (difference,),
            np.mean,
            permutation_type="samples",
            n_resamples=9999,
            rng=generator(seed, "paired test"),
        ).pvalue
    return PairedTest(
        n=len(ids),
        better=int((difference > 0).sum()),
        worse=int((difference < 0).sum()),
        p_value=float(p_value),
    )
