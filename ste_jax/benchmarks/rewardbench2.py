"""RewardBench 2 (arXiv 2506.01937): one correct response among four, and Ties, where several are correct.

A judge of pairs has found the best of four if it prefers the correct response to each of the three wrong
ones, so chance is 1/8. In Ties every correct response must beat every wrong one; pairs of correct responses
are judged too, as ties. The score of the authors for Ties compares margins of ratings, which a judge of
pairs does not give; they are left out here. Where the policy gives half a point to a comparison without a
verdict, a prompt gets the product of the points of its comparisons.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from ste_jax.benchmarks.pairing import chosen_and_rejected
from ste_jax.benchmarks.source import Record, refuse_unknown
from ste_jax.benchmarks.splits import without_splits
from ste_jax.errors import SteError
from ste_jax.metrics.policy import Policy
from ste_jax.metrics.stats import bootstrap_interval, mean, scores_of
from ste_jax.metrics.subsets import Subsets
from ste_jax.records import Comparison, ComparisonResult

HUB = "allenai/reward-bench-2"
PATTERNS = ("data/test-*.parquet",)
RECORD = ("subset", "prompt", "chosen", "rejected")
SPLIT, SUBSET = "test", "subset"
# Prompts by subset, 1,865 in all.
COUNTS = {"Factuality": 475, "Precise IF": 160, "Math": 183, "Safety": 450, "Focus": 495, "Ties": 102}
SUBSETS = tuple(COUNTS)
CHANCE = 0.125


def choose(files: Sequence[str]) -> list[str]:
    """Returns the files of the test split, which is the only one of the data set."""
    return without_splits(files, ("train", "validation"), (SPLIT,))


def items(rows: Sequence[Record]) -> tuple[list[Comparison], dict[str, Any]]:
    """Returns each correct response against each wrong one; in Ties also neighbouring correct responses."""
    refuse_unknown(rows, SUBSET, SUBSETS)
    made = []
    for row in rows:
        subset, id_ = row.text("subset"), row.name("id")
        chosen, rejected = row.texts("chosen"), row.texts("rejected")
        if not chosen or not rejected:
            raise SteError(
                "data_invalid", f"{row.where}: no chosen or no rejected response; download the files again"
            )
        common: dict[str, Any] = {
            "prompt_id": f"{subset}/{id_}",
            "instruction": row.text("prompt"),
            "subset": subset,
        }
        grid = f"{len(chosen)}x{len(rejected)}"
        for i, right in enumerate(chosen):
            for j, wrong in enumerate(rejected):
                name = f"{subset}/{id_}/{i}-{j}-of-{grid}"
                made.append(chosen_and_rejected(id_=name, chosen=right, rejected=wrong, **common))
        for i in range(len(chosen) if len(chosen) > 2 else len(chosen) - 1):
            one, other = chosen[i], chosen[(i + 1) % len(chosen)]
            made.append(
                Comparison(
                    id=f"{subset}/{id_}/tie-{i}", response_a=one, response_b=other, label="tie", **common
                )
            )
    return made, {}


def aggregate(pairs: Sequence[ComparisonResult], policy: Policy, seed: int) -> dict[str, Any]:
    """Returns the share of prompts all of whose comparisons are correct, by subset and on average.

    A prompt with a missing comparison (too long, or beyond --limit) is counted as incomplete.
    """
    groups: dict[str, dict[str, list[ComparisonResult]]] = defaultdict(lambda: defaultdict(list))
    for pair in pairs:
        if pair.comparison.label != "tie":
            groups[pair.comparison.subset][pair.comparison.cluster].append(pair)
    whole = {
        name: {prompt: group for prompt, group in groups[name].items() if _is_whole(group)}
        for name in SUBSETS
        if name in groups
    }
    won = {
        name: {prompt: _all_won(group, policy) for prompt, group in some.items()}
        for name, some in whole.items()
    }
    rows = [(prompt, name, scores) for name, some in won.items() for prompt, scores in some.items()]
    subsets = Subsets(rows, seed=seed)
    return {
        "best": {name: _best(np.array(list(some.values())), seed) for name, some in won.items() if some},
        "mean_of_subsets": {
            "formula": "plain mean of the six subsets; right: the chosen responses beat every rejected one",
            **subsets.mean(dict.fromkeys(SUBSETS, 1.0)),
        },
        "chance_best_of_4": CHANCE,
        "missing_subsets": subsets.missing(SUBSETS),
        "short_subsets": subsets.short(COUNTS),
        "surplus_subsets": subsets.surplus(COUNTS),
        "incomplete_prompts": sum(len(groups[name]) - len(whole[name]) for name in whole),
    }


def _is_whole(group: Sequence[ComparisonResult]) -> bool:
    """Returns True if every correct response was judged against every wrong one; ids have their numbers."""
    rights, wrongs = map(int, group[0].id.rsplit("-", 1)[-1].split("x"))
    return len(group) == rights * wrongs


def _best(won: np.ndarray, seed: int) -> dict[str, Any]:
    """Returns the shares of prompts won as given, swapped, on average and in both orders.

    Args:
      won: [prompts, orders], see `_all_won`.
      seed: seed of the bootstrap.
    """
    both = np.where(np.isnan(won).any(axis=1), np.nan, (won == 1.0).all(axis=1))
    return {
        "prompts": len(won),
        "accuracy_as_given": mean(won[:, 0]),
        "accuracy_swapped": mean(won[:, 1]),
        "accuracy": mean(won),
        "interval95": bootstrap_interval(won, seed=seed),
        "consistent_accuracy": mean(both),
    }


def _all_won(group: Sequence[ComparisonResult], policy: Policy) -> np.ndarray:
    """Returns the product of the scores of a prompt by order: [orders].

    A lost comparison decides the prompt even if other comparisons do not count.
    """
    scores = np.array([scores_of(pair, policy) for pair in group])
    return np.where((scores == 0.0).any(axis=0), 0.0, np.prod(scores, axis=0))
