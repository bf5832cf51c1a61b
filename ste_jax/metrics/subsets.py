"""Weighted means and differences over subsets of comparisons, with intervals by prompt.

Missing subsets are named, not left out of the mean.
"""

import operator
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ste_jax.metrics.policy import Policy
from ste_jax.metrics.stats import scores_of, wilson_interval
from ste_jax.randomness import generator
from ste_jax.records import ComparisonResult

_DRAWS = 2000


# The prompt, the subset and the scores of a comparison in both orders; NaN does not count.
Scored = tuple[str, str, np.ndarray]


def scored(
    pairs: Iterable[ComparisonResult],
    policy: Policy,
    key: Callable[[ComparisonResult], str] = lambda pair: pair.comparison.subset,
) -> Iterator[Scored]:
    """Yields the scores of judged comparisons, without ties.

    Args:
      pairs: judged comparisons.
      policy: score of a judgment without a verdict.
      key: returns the subset of a comparison.
    """
    for pair in pairs:
        if pair.comparison.label != "tie":
            yield pair.comparison.cluster, key(pair), np.array(scores_of(pair, policy))


class Subsets:
    """Scores of comparisons or of whole prompts, by subset.

    Args:
      rows: the scores; rows of NaN only are left out.
      seed: seed of the bootstrap.
    """

    def __init__(self, rows: Iterable[Scored], *, seed: int):
        self._seed = seed
        self._pairs: dict[str, int] = defaultdict(int)
        # Sum and number of the scores that count, by subset, over all prompts and by prompt.
        self._totals: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
        self._prompts: dict[str, dict[str, np.ndarray]] = defaultdict(
            lambda: defaultdict(lambda: np.zeros(2))
        )
        for prompt, name, scores in rows:
            if (counted := scores[~np.isnan(scores)]).size:
                sums = np.array([counted.sum(), counted.size])
                self._prompts[prompt][name] += sums
                self._totals[name] += sums
                self._pairs[name] += 1

    def missing(self, names: Sequence[str]) -> list[str]:
        """Returns the subsets of `names` without a score."""
        return [name for name in names if name not in self._pairs]

    def short(self, expected: Mapping[str, int]) -> dict[str, str]:
        """Returns "n of expected" by subset, for subsets with fewer scores than expected."""
        return self._miscounted(expected, operator.lt)

    def surplus(self, expected: Mapping[str, int]) -> dict[str, str]:
        """Returns "n of expected" by subset, for subsets with more scores than expected."""
        return self._miscounted(expected, operator.gt)

    def _miscounted(self, expected: Mapping[str, int], differs: Callable[[int, int], bool]) -> dict[str, str]:
        return {
            name: f"{self._pairs[name]} of {n}"
            for name, n in expected.items()
            if name in self._pairs and differs(self._pairs[name], n)
        }

    def mean(self, weights: Mapping[str, float]) -> dict[str, Any]:
        """Returns the weighted mean accuracy of subsets with its interval; None if a subset is missing.

        The interval is a bootstrap over prompts, each drawn with its comparisons in all subsets. If all draws
        are equal, it is the Wilson interval for the number of prompts.
        """
        missing = self.missing(list(weights))
        if missing:
            return {"accuracy": None, "interval95": None, "missing": missing}
        share = {name: weight / sum(weights.values()) for name, weight in weights.items()}
        accuracy, interval = self.contrast(share)
        if interval is None:
            prompts = sum(any(name in prompt for name in share) for prompt in self._prompts.values())
            interval = wilson_interval(accuracy * prompts, prompts)
        return {"accuracy": accuracy, "interval95": list(interval), "missing": []}

    def contrast(self, weights: Mapping[str, float]) -> tuple[float, tuple[float, float] | None]:
        """Returns the weighted sum of the means of subsets, all of which have scores, and its interval.

        The interval is None if all draws are equal.
        """
        total = sum(weight * self.accuracy(name) for name, weight in weights.items())
        draws = sum(weight * self._drawn[name] for name, weight in weights.items())
        if np.ptp(draws) < 1e-9:
            return total, None
        low, high = np.quantile(draws, (0.025, 0.975))
        return total, (float(low), float(high))

    def accuracy(self, name: str) -> float:
        """Returns the mean of the scores of a subset that has some."""
        score, number = self._totals[name]
        return float(score / number)

    def count(self, name: str) -> int:
        """Returns the number of comparisons of a subset whose scores count."""
        return self._pairs.get(name, 0)

    def prompts(self, name: str) -> int:
        """Returns the number of prompts with comparisons in a subset."""
        return sum(name in prompt for prompt in self._prompts.values())

    @cached_property
    def _drawn(self) -> dict[str, np.ndarray]:
        """Bootstrap draws of the accuracy of each subset, shared by all means: [draws].

        Prompts are drawn among those with comparisons in the same subsets, so that no subset is empty.
        """
        alike: dict[tuple[str, ...], list[dict[str, np.ndarray]]] = defaultdict(list)
        for _, prompt in sorted(self._prompts.items()):
            alike[tuple(sorted(prompt))].append(prompt)
        sums = {name: np.zeros((2, _DRAWS)) for name in self._pairs}
        for names, prompts in sorted(alike.items()):
            rng = generator(self._seed, "sections", "\n".join(names))
            picked = rng.integers(0, len(prompts), (_DRAWS, len(prompts)))
            for name in names:
                total, count = np.array([prompt[name] for prompt in prompts]).T
                sums[name] += (total[picked].sum(axis=1), count[picked].sum(axis=1))
        return {name: total / count for name, (total, count) in sums.items()}
