"""What a judge's verdicts on labelled pairs, each shown in both orders, say of its accuracy and biases.

Pairs of one prompt are no independent observations: intervals are bootstraps over prompts.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from ste_jax.randomness import generator
from ste_jax.records import Label, Outcome, opposite


@dataclasses.dataclass(frozen=True)
class Policy:
    """What a judgment without a verdict is worth; None: it is left out of every share."""

    name: str
    score: float | None
    text: str

    @property
    def silent(self) -> float:
        """The same, NaN where it is left out."""
        return math.nan if self.score is None else self.score


POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy("wrong", 0.0, "a judgment without a verdict counts as wrong"),
        Policy(
            "rewardbench",
            0.5,
            "as RewardBench: [[A]] is looked for first and then [[B]], anywhere in the completion; "
            "a judgment with neither counts half",
        ),
        Policy("dropped", None, "a judgment without a verdict is left out, as FastChat does"),
    )
}
WRONG = POLICIES["wrong"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgedPair:
    """The verdicts on one pair, as tuples over `ORDERS`: (as given, swapped).

    Attributes:
      pair_id: unique among the judged pairs.
      label: the better response as given.
      verdicts: each in the letters of its own order, None where there is none.
      statuses: those of judging/verdict.py.
      forced: whether the verdict was forced; of a vote, the share of its samples that were.
      length_a: of response A as given, in characters or tokens, the same for all pairs.
      length_b: of response B as given.
      prompt_id: shared by the pairs of one prompt ("": its prompt is its own).
      subset, category, votes: see `records.Comparison`.
      traits: what the responses A and B as given look like, see judging/traits.py.
    """

    pair_id: str
    label: Outcome
    verdicts: tuple[Label | None, Label | None]
    statuses: tuple[str, str]
    forced: tuple[float, float] = (0.0, 0.0)
    length_a: int
    length_b: int
    prompt_id: str = ""
    subset: str = ""
    category: str | None = None
    votes: dict[str, int] = dataclasses.field(default_factory=dict)
    traits: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())

    @property
    def cluster(self) -> str:
        """What the bootstrap draws: all pairs of a prompt together."""
        return self.prompt_id or self.pair_id

    @property
    def preferred(self) -> tuple[Label | None, Label | None]:
        """The response, as given, that each of the two verdicts prefers."""
        as_given, swapped = self.verdicts
        return as_given, swapped and opposite(swapped)

    @property
    def decision(self) -> Outcome | None:
        """What both orders together say: a tie where they disagree, None where a verdict is missing."""
        first, second = self.preferred
        if first is None or second is None:
            return None
        return first if first == second else "tie"

    def scores(self, policy: Policy) -> tuple[float, float]:
        """What each of the two judgments earns: 1 right, 0 wrong, NaN left out."""
        first, second = (policy.silent if p is None else float(p == self.label) for p in self.preferred)
        return first, second


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The numbers of one judge on one set of pairs. A share of nothing is None.

    Attributes:
      n: pairs that have a better response.
      ties: pairs labelled as ties, which are in no other number here.
      accuracy_as_given, accuracy_swapped: mean score of the judgments in that order.
      accuracy: of all judgments.
      interval95: of `accuracy`; bootstrap over prompts (both orders of a pair go together).
      consistent_accuracy: share of pairs judged right in both orders.
      consistent_interval95: its interval, likewise.
      flip_rate: share of pairs whose two verdicts prefer different responses, among those with both verdicts.
      first_preference: share of verdicts that say "A".
      unparsed: how many of the 2n judgments gave no verdict, by status.
      forced: share of the 2n judgments (of votes: of their samples) whose verdict was forced.
      longer_preference: share of verdicts that prefer the longer response, among pairs of unequal lengths.
      longer_correct: share of pairs whose better response is the longer one, among pairs of unequal lengths.
      scores: (as given, swapped) by pair id, which `paired_test` compares. Not part of the JSON.
      clusters: see `JudgedPair.cluster`, by pair id. Not part of the JSON.
    """

    n: int
    ties: int
    accuracy_as_given: float | None
    accuracy_swapped: float | None
    accuracy: float | None
    interval95: tuple[float, float] | None
    consistent_accuracy: float | None
    consistent_interval95: tuple[float, float] | None
    flip_rate: float | None
    first_preference: float | None
    unparsed: dict[str, int]
    forced: float
    longer_preference: float | None
    longer_correct: float | None
    scores: dict[str, tuple[float, float]]
    clusters: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Returns the numbers as a JSON-ready dict."""
        value = dataclasses.asdict(self)
        del value["scores"], value["clusters"]
        for name in ("interval95", "consistent_interval95"):
            value[name] = None if value[name] is None else list(value[name])
        return value


def evaluate_judgments(pairs: Sequence[JudgedPair], *, seed: int, policy: Policy = WRONG) -> Evaluation:
    """Returns the numbers of one judge on `pairs`; the seed draws the bootstrap.

    Raises:
      ValueError: if there are no pairs with a better response, or a pair occurs twice.
    """
    ties = sum(pair.label == "tie" for pair in pairs)
    pairs = sorted((pair for pair in pairs if pair.label != "tie"), key=lambda pair: pair.pair_id)
    scores = {pair.pair_id: pair.scores(policy) for pair in pairs}
    if not pairs or len(scores) != len(pairs):
        none = f"no judged pairs with a better response ({ties} ties); give at least one"
        raise ValueError(f"evaluation: {'two rows with the same pair id; merge them' if pairs else none}")
    score = np.array(list(scores.values()))
    consistent = np.where(np.isnan(score).any(axis=1), np.nan, (score == 1.0).all(axis=1))
    clusters = [pair.cluster for pair in pairs]
    outcomes = [outcome for p in pairs for outcome in zip(p.verdicts, p.statuses, strict=True)]
    both = [pair.decision for pair in pairs if pair.decision]
    longer_preferred, longer_right = _length_bias(pairs)
    return Evaluation(
        n=len(pairs),
        ties=ties,
        accuracy_as_given=mean(score[:, 0]),
        accuracy_swapped=mean(score[:, 1]),
        accuracy=mean(score),
        interval95=bootstrap_interval(score, clusters, seed=seed),
        consistent_accuracy=mean(consistent),
        consistent_interval95=bootstrap_interval(consistent, clusters, seed=seed),
        flip_rate=_share([decision == "tie" for decision in both]),
        first_preference=_share([verdict == "A" for verdict, _ in outcomes if verdict]),
        unparsed=dict(sorted(Counter(status for verdict, status in outcomes if verdict is None).items())),
        forced=float(np.mean([pair.forced for pair in pairs])),
        longer_preference=longer_preferred,
        longer_correct=longer_right,
        scores=scores,
        clusters={pair.pair_id: pair.cluster for pair in pairs},
    )


def mean(values: np.ndarray) -> float | None:
    """Returns the mean of the values that are not NaN, or None if there are none."""
    return None if np.isnan(values).all() else float(np.nanmean(values))


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


def bootstrap_interval(
    values: np.ndarray, clusters: Sequence[str] | None = None, *, seed: int
) -> tuple[float, float] | None:
    """Returns the 95% percentile bootstrap interval of the mean of the values that count.

    Clusters of pairs are drawn, and the mean is taken over the values in them. Where all clusters have the
    same mean, or there is but one, resampling shows no spread at all; the Wilson interval for that many
    clusters is given instead.

    Args:
      values: [pairs] or [pairs, orders], within 0 and 1; NaN does not count.
      clusters: of each pair; None: each is its own.
      seed: of the draw.

    Returns:
      (low, high), or None if no value counts.
    """
    sums, counts = cluster_sums(values, clusters)
    if not len(counts):
        return None
    if len(counts) == 1 or np.ptp(sums / counts) == 0:
        return wilson_interval(float(sums.sum() / counts.sum() * len(counts)), len(counts))
    return _bootstrap(sums, counts, generator(seed, "bootstrap"))


def difference_interval(
    differences: np.ndarray, clusters: Sequence[str] | None = None, *, seed: int
) -> tuple[float, float] | None:
    """Returns the same interval for differences [pairs] of two judges.

    None where all clusters differ alike (not at all, for one): resampling shows no spread, and says nothing
    of how far off so many of them may be.
    """
    sums, counts = cluster_sums(differences, clusters)
    if np.ptp(sums / counts) == 0:
        return None
    return _bootstrap(sums, counts, generator(seed, "paired bootstrap"))


def cluster_sums(values: np.ndarray, clusters: Sequence[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sum of the values that count, and their number, of each cluster that has any."""
    values = values[:, None] if values.ndim == 1 else values
    _, index = np.unique(clusters if clusters is not None else np.arange(len(values)), return_inverse=True)
    sums = np.bincount(index, np.nansum(values, axis=1))
    counts = np.bincount(index, (~np.isnan(values)).sum(axis=1))
    return sums[counts > 0], counts[counts > 0]


def _bootstrap(sums: np.ndarray, counts: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    interval = stats.bootstrap(
        (sums, counts),
        lambda total, count, axis: total.sum(axis) / count.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=9999,
        batch=250,
        method="percentile",
        rng=rng,
    ).confidence_interval
    return float(interval.low), float(interval.high)


def wilson_interval(successes: float, n: int) -> tuple[float, float]:
    """Returns the 95% Wilson interval of a share; half a success widens it to the whole numbers around."""
    successes = round(successes, 6)  # a weighted mean times n is a whole number but for the last bits
    low = stats.binomtest(math.floor(successes), n).proportion_ci(method="wilson").low
    high = stats.binomtest(math.ceil(successes), n).proportion_ci(method="wilson").high
    return float(low), float(high)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairedTest:
    """A sign-flip permutation test of the accuracies of two judges on the same pairs.

    Attributes:
      n: pairs; both orders of a pair go together, and so do all pairs of a prompt.
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

    Raises:
      ValueError: if they did not judge the same pairs.
    """
    if first.scores.keys() != second.scores.keys():
        stray = min(first.scores.keys() ^ second.scores.keys())
        raise ValueError(
            f"paired test: pair {stray} was judged by one model only; evaluate both on the same pairs"
        )
    ids = sorted(first.scores)
    scores = [np.array([np.mean(e.scores[pair]) for pair in ids]) for e in (second, first)]
    difference = scores[0] - scores[1]
    return PairedTest(
        n=len(ids),
        better=int((difference > 0).sum()),
        worse=int((difference < 0).sum()),
        p_value=sign_flip_test(difference, [first.clusters[pair] for pair in ids], seed=seed),
    )


def sign_flip_test(differences: np.ndarray, clusters: Sequence[str] | None = None, *, seed: int) -> float:
    """Returns the two-sided p-value of the mean of `differences` [pairs]; 1 if there are none.

    Under the null hypothesis the sign of each pair's difference is a coin, one for all pairs of a cluster;
    with few of them all signs are enumerated, else 9,999 draws are made.
    """
    sums, _ = cluster_sums(differences, clusters)
    # A single coin says nothing: both of its sides are as extreme.
    if len(sums) < 2 or not np.any(sums):
        return 1.0
    test = stats.permutation_test(
        (sums,),
        np.mean,
        permutation_type="samples",
        n_resamples=9999,
        batch=500,
        rng=generator(seed, "paired test"),
    )
    return float(test.pvalue)
