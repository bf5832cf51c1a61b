"""Weighted means over subsets, as benchmarks report them: what is missing is named, never averaged over."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ste_jax.metrics.stats import Policy, scores_of, wilson_interval
from ste_jax.randomness import generator
from ste_jax.records import ComparisonResult

_DRAWS = 2000


# The prompt, the subset, and the scores of a pair in both orders; NaN does not count.
Scored = tuple[str, str, np.ndarray]


def scored(
    pairs: Iterable[ComparisonResult],
    policy: Policy,
    key: Callable[[ComparisonResult], str] = lambda pair: pair.comparison.subset,
) -> Iterator[Scored]:
    """Yields the scores of judged pairs; ties are left out.

    Args:
      pairs: judged pairs.
      policy: what a judgment without a verdict earns.
      key: names the subset of a pair.
    """
    for pair in pairs:
        if pair.comparison.label != "tie":
            yield pair.comparison.cluster, key(pair), np.array(scores_of(pair, policy))


class Subsets:
    """The scores of judged pairs, or of whole prompts, by subset.

    Args:
      rows: scores; those that are all NaN are left out.
      seed: of the bootstrap.
    """

    def __init__(self, rows: Iterable[Scored], *, seed: int):
        self._seed = seed
        self._pairs: dict[str, int] = defaultdict(int)
        # By subset, of all prompts and of each, the sum of the scores that count, and their number.
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
        """Returns those of `names` of which no pair counts."""
        return [name for name in names if name not in self._pairs]

    def short(self, expected: Mapping[str, int]) -> dict[str, str]:
        """Returns "n of expected" of the subsets that are there, but not whole."""
        return {
            name: f"{self._pairs[name]} of {n}"
            for name, n in expected.items()
            if name in self._pairs and self._pairs[name] < n
        }

    def mean(self, weights: Mapping[str, float]) -> dict[str, Any]:
        """Returns the weighted mean of the subsets' accuracies, with its interval, or the names of those that
        are missing and no mean.

        The interval is a bootstrap over prompts, each drawn with its pairs in all subsets; where that shows
        no spread, Wilson's for as many prompts.
        """
        missing = self.missing(list(weights))
        if missing:
            return {"accuracy": None, "interval95": None, "missing": missing}
        share = {name: weight / sum(weights.values()) for name, weight in weights.items()}
        accuracy = sum(
            weight * float(self._totals[name][0] / self._totals[name][1]) for name, weight in share.items()
        )
        draws = sum(weight * self._drawn[name] for name, weight in share.items())
        low, high = np.quantile(draws, (0.025, 0.975))
        if np.ptp(draws) < 1e-9:
            prompts = sum(any(name in prompt for name in share) for prompt in self._prompts.values())
            low, high = wilson_interval(accuracy * prompts, prompts)
        return {"accuracy": accuracy, "interval95": [float(low), float(high)], "missing": []}

    @cached_property
    def _drawn(self) -> dict[str, np.ndarray]:
        """Bootstrap draws of the subsets' accuracies, the same in every mean: [draws].

        Prompts are drawn among those that have pairs in the same subsets, so that no subset runs empty.
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
