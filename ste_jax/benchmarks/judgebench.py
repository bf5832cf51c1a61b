"""JudgeBench (arXiv 2410.12784): a correct and a wrong response of one model to a hard question.

The score of the authors counts a pair as correct if more verdicts of both orders are correct than wrong.
Two different verdicts count as wrong, one correct verdict and one missing verdict as correct. The pairs of
GPT-4o and those of Claude are separate sets.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ste_jax.benchmarks.source import Record
from ste_jax.benchmarks.splits import without_splits
from ste_jax.errors import SteError
from ste_jax.metrics.policy import Policy
from ste_jax.metrics.stats import bootstrap_interval
from ste_jax.metrics.subsets import Subsets, scored
from ste_jax.records import Comparison, ComparisonResult

HUB = "ScalerLab/JudgeBench"
PATTERNS = ("data/*.jsonl",)
RECORD = ("question", "response_A", "response_B", "label")
SUBSET = "response_model"
ARE_PAIRS = True
COUNTS = {"claude-3-5-sonnet-20240620": 270, "gpt-4o-2024-05-13": 350}
MODELS = tuple(COUNTS)
SUBSETS = {
    "mmlu-pro": "knowledge",
    "livebench-reasoning": "reasoning",
    "livebench-math": "math",
    "livecodebench": "coding",
}


def choose(files: Sequence[str]) -> list[str]:
    """Returns the files with pairs; the repository of the authors also has outputs of judges."""
    return [file for file in without_splits(files, ("outputs",)) if ",judge_name=" not in file]


def items(rows: Sequence[Record]) -> tuple[list[Comparison], dict[str, Any]]:
    """Returns the comparisons; their category is the model that responded."""
    made = []
    for row in rows:
        label, source = row.text("label"), row.text("source")
        subset = next((name for start, name in SUBSETS.items() if source.startswith(start)), None)
        question = row.name("original_id" if row.fields.get("original_id") else "pair_id")
        if label not in ("A>B", "B>A"):
            raise SteError("data_invalid", f"{row.where}: the label is {label!r}; download the files again")
        if subset is None:
            raise SteError(
                "data_invalid", f"{row.where}: the source is {source!r}, expected {', '.join(SUBSETS)}"
            )
        made.append(
            Comparison(
                id=row.text("pair_id"),
                prompt_id=f"{source}/{question}",
                instruction=row.text("question"),
                response_a=row.text("response_A"),
                response_b=row.text("response_B"),
                label="A" if label == "A>B" else "B",
                subset=subset,
                category=row.text("response_model"),
            )
        )
    return made, {}


def aggregate(pairs: Sequence[ComparisonResult], policy: Policy, seed: int) -> dict[str, Any]:
    """Returns the score of the authors by responding model, overall and by subset.

    The overall score is that of all pairs, or None if a subset is missing.
    """
    models = sorted({pair.comparison.category or "" for pair in pairs} | set(MODELS))
    sets: dict[str, Any] = {}
    missing: list[str] = []
    for model in models:
        judged = [pair for pair in pairs if (pair.comparison.category or "") == model]
        subsets = {
            name: [pair for pair in judged if pair.comparison.subset == name] for name in SUBSETS.values()
        }
        absent = [name for name, group in subsets.items() if not group]
        overall = {"n": len(judged), "accuracy": None, "interval95": None} if absent else _score(judged, seed)
        sets[model] = {"overall": overall | {"missing": absent}}
        sets[model] |= {name: _score(group, seed) for name, group in subsets.items() if group}
        missing += [f"{model} {name}" for name in absent]
    by_model = Subsets(scored(pairs, policy, key=lambda pair: pair.comparison.category or ""), seed=seed)
    return {
        "authors_score": sets,
        "missing_subsets": missing,
        "short_subsets": by_model.short(COUNTS),
        "surplus_subsets": by_model.surplus(COUNTS),
    }


def _score(pairs: Sequence[ComparisonResult], seed: int) -> dict[str, Any]:
    margins = [
        sum((p == pair.comparison.label) - (p != pair.comparison.label) for p in pair.preferred if p)
        for pair in pairs
    ]
    right = np.array(margins) > 0
    interval = bootstrap_interval(right.astype(float), [pair.comparison.cluster for pair in pairs], seed=seed)
    return {"n": len(pairs), "accuracy": float(right.mean()), "interval95": interval}
