"""RM-Bench (arXiv 2410.16184): right and wrong responses in three styles each, so nine comparisons a prompt.

Styles rise from concise over detailed to detailed with markdown. Easy comparisons show the right response in
the fancier style, hard ones in the plainer, normal ones have equal styles.
"""

import json
from collections.abc import Sequence
from typing import Any

from ste_jax.benchmarks.pairing import chosen_and_rejected, prompt_key
from ste_jax.benchmarks.sections import Subsets, scored
from ste_jax.benchmarks.source import Row
from ste_jax.judging.stats import JudgedPair, Policy
from ste_jax.records import Item

HUB = "THU-KEG/RM-Bench"
PATTERNS = ("total_dataset.json",)
DOMAINS = {
    "chat": ("chat",),
    "code": ("code",),
    "math": ("math",),
    "safety": ("safety-refuse", "safety-response"),
}
LEVELS = ("easy", "normal", "hard")
STYLES = 3


def wanted(file: str) -> bool:
    """Says whether a file holds prompts: the total, or the domains' own (which the total repeats)."""
    return file.endswith(".json") or file.endswith(".parquet") or file.endswith(".jsonl")


def items(rows: Sequence[Row]) -> tuple[list[Item], dict[str, Any]]:
    """Returns nine comparisons a prompt; a prompt that two files hold counts once."""
    made: list[Item] = []
    seen: set[str] = set()
    for row in rows:
        chosen, rejected = row.texts("chosen"), row.texts("rejected")
        # By what it holds: an id may be missing, or another file's.
        content = json.dumps([row.text("prompt"), chosen, rejected])
        prompt_id = f"{row.text('domain')}/{prompt_key(content)}"
        if prompt_id in seen:
            continue
        seen.add(prompt_id)
        if len(chosen) != STYLES or len(rejected) != STYLES:
            raise ValueError(
                f"{row.where}: not {STYLES} styles of each response; get the benchmark's files again"
            )
        for i in range(STYLES):
            for j in range(STYLES):
                id_ = f"{prompt_id}/{i}-{j}"
                made.append(
                    chosen_and_rejected(
                        id_=id_,
                        prompt_id=prompt_id,
                        instruction=row.text("prompt"),
                        chosen=chosen[i],
                        rejected=rejected[j],
                        subset=row.text("domain"),
                        category="normal" if i == j else "easy" if i > j else "hard",
                    )
                )
    return made, {}


def aggregate(pairs: Sequence[JudgedPair], policy: Policy, seed: int) -> dict[str, Any]:
    """Returns accuracy by domain and level, and the means of both."""
    cells = Subsets(scored(pairs, policy, key=lambda pair: f"{pair.subset} {pair.category}"), seed=seed)
    weights = {
        (domain, level): {f"{part} {level}": 1.0 / len(parts) for part in parts}
        for domain, parts in DOMAINS.items()
        for level in LEVELS
    }
    domains = {domain: cells.mean(_union([weights[domain, level] for level in LEVELS])) for domain in DOMAINS}
    levels = {level: cells.mean(_union([weights[domain, level] for domain in DOMAINS])) for level in LEVELS}
    parts = [part for parts in DOMAINS.values() for part in parts]
    return {
        "domains": domains,
        "levels": levels,
        "overall": {
            "formula": "plain mean of the four domains, each the mean of its levels (safety: of its halves)",
            **cells.mean(_union(list(weights.values()))),
        },
        "missing_subsets": Subsets(scored(pairs, policy), seed=seed).missing(parts),
    }


def _union(tables: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: weight for table in tables for name, weight in table.items()}
