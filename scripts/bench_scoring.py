"""Compares scores of judges with people's grades: alone, on a scale, against a baseline, against all others.

  python scripts/bench_scoring.py --data=graded.jsonl --models=MODEL,MODEL --subset=Interestingness

`--data` is a file of JSON lines with `instruction`, `response`, `criterion` and `score`; several responses
share an instruction. The shortest instructions are used. A scale grades by the criterion as its question;
comparisons, and the grades of pointwise judges, use the judge's own prompt. The table shows the mean over
instructions of Spearman's correlation with the grades, with a 95% bootstrap interval over instructions, and
the number of instructions whose correlation is undefined because all scores are equal. The first row scores
by the length of a response.
"""

import argparse
import json
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

import ste_jax as ste
from ste_jax.metrics.stats import difference_interval

Group = list[dict[str, str | float]]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", required=True, help="models, separated by commas")
    parser.add_argument("--subset", required=True, help="beginning of the criterion")
    parser.add_argument("--prompts", type=int, default=12, help="number of instructions")
    a = parser.parse_args()
    groups = read_groups(a.data, a.subset)[: a.prompts]
    print(f"{len(groups)} instructions, {sum(map(len, groups))} responses")
    print("| model | method | Spearman | 95% interval | undefined |", "|---|---|---|---|---|", sep="\n")
    lengths = [[float(len(str(row["response"]))) for row in group] for group in groups]
    print_row("", "length", groups, lengths)
    for model in a.models.split(","):
        judge = ste.Judge.load(model)
        for method, scores in all_scores(judge, groups).items():
            print_row(model, method, groups, scores)


def read_groups(path: Path, subset: str) -> list[Group]:
    """Returns the graded responses of each instruction, shortest instruction first."""
    found: dict[str, Group] = defaultdict(list)
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        if row["criterion"].startswith(subset):
            found[row["instruction"]].append(row)
    return [found[key] for key in sorted(found, key=len)]


def all_scores(judge: ste.Judge, groups: Sequence[Group]) -> dict[str, list[list[float]]]:
    """Returns the scores by each method, one list for each group.

    The baseline of a response is the next response of its group, that of the last one the first.
    """
    rows = [{"instruction": row["instruction"], "response": row["response"]} for g in groups for row in g]
    opponents = [g[(i + 1) % len(g)]["response"] for g in groups for i in range(len(g))]
    against = [row | {"baseline": other} for row, other in zip(rows, opponents, strict=True)]
    (question,) = {str(row["criterion"]) for g in groups for row in g}
    rankings = [
        {"instruction": g[0]["instruction"], "responses": [row["response"] for row in g]} for g in groups
    ]
    scale = [result.value for result in judge.score_many(rows, scale=(1, 5), rubric=question)]
    baseline = [result.value for result in judge.score_many(against)]
    others = judge.rank_many(rankings, method="round_robin")
    alone = [result.value for result in judge.score_many(rows)] if judge.is_pointwise else None
    return {
        **({"pointwise": split(alone, groups)} if alone else {}),
        "scale": split(scale, groups),
        "baseline": split(baseline, groups),
        "all others": [list(result.win_probabilities) for result in others],
    }


def split(values: Sequence[float | None], groups: Sequence[Group]) -> list[list[float]]:
    """Returns the values of all groups as one list for each group; None becomes NaN."""
    numbers = iter(float("nan") if value is None else value for value in values)
    return [[next(numbers) for _ in group] for group in groups]


def print_row(model: str, method: str, groups: Sequence[Group], scores: Sequence[Sequence[float]]) -> None:
    """Prints the correlation of a method. It is undefined where all scores of an instruction are equal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        found = np.array(
            [
                stats.spearmanr(values, [row["score"] for row in group], nan_policy="omit").statistic
                for group, values in zip(groups, scores, strict=True)
            ]
        )
    defined = found[~np.isnan(found)]
    low, high = difference_interval(defined, seed=0) or (np.nan, np.nan)
    cells = (model, method, f"{defined.mean():.2f}", f"[{low:.2f}, {high:.2f}]", len(found) - len(defined))
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
