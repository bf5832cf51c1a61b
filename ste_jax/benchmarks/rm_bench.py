"""RM-Bench (arXiv 2410.16184): correct and wrong responses in three styles each, nine comparisons per prompt.

The styles are concise, detailed, and detailed with markdown. In easy comparisons the correct response has the
more elaborate style, in hard ones the plainer style; in normal ones the styles are equal.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from ste_jax.benchmarks.pairing import chosen_and_rejected, prompt_key
from ste_jax.benchmarks.source import Record
from ste_jax.errors import SteError
from ste_jax.metrics.policy import Policy
from ste_jax.metrics.subsets import Subsets, scored
from ste_jax.records import Comparison, ComparisonResult

HUB = "THU-KEG/RM-Bench"
PATTERNS = ("total_dataset.json",)
RECORD = ("domain", "prompt", "chosen", "rejected")
SUBSET = "domain"
SUBSETS = ("chat", "code", "math", "safety-refuse", "safety-response")
DOMAINS = ("chat", "code", "math", "safety")
# Prompts of the domains of which the number is certain.
COUNTS = {"chat": 129, "code": 228}
LEVELS = ("easy", "normal", "hard")
STYLES = 3
_DOMAIN_FILE = re.compile(rf"({'|'.join(SUBSETS)})(?![a-z-])")


def choose(files: Sequence[str]) -> list[str]:
    """Returns the file with all prompts; without it, the files with those of a domain each.

    A clone of the authors' repository has both; records of a domain's file do not name the domain.
    """
    whole = [file for file in files if file.rsplit("/", 1)[-1].startswith("total_dataset.")]
    domains = [file for file in files if subset_of(file)]
    return whole or domains or [file for file in files if "allenai_rewardbench" not in file]


def subset_of(file: str) -> str | None:
    """Returns the domain that the name of a file begins with, such as safety-refuse_filtered.json."""
    match = _DOMAIN_FILE.match(file.rsplit("/", 1)[-1])
    return match[1] if match else None


def items(rows: Sequence[Record]) -> tuple[list[Comparison], dict[str, Any]]:
    """Returns nine comparisons per prompt."""
    made: list[Comparison] = []
    for row in rows:
        chosen, rejected = row.texts("chosen"), row.texts("rejected")
        # By content, since ids may be missing or repeated in another file.
        content = json.dumps([row.text("prompt"), chosen, rejected])
        domain = row.text("domain") if "domain" in row.fields else subset_of(row.file) or row.text("domain")
        if (named := subset_of(row.file)) and named != domain:
            raise SteError(
                "data_invalid", f"{row.where}: the domain is {domain!r}, the file that of {named}; rename it"
            )
        if domain not in SUBSETS:
            raise SteError(
                "data_invalid", f"{row.where}: the domain is {domain!r}, expected {', '.join(SUBSETS)}"
            )
        prompt_id = f"{domain}/{prompt_key(content)}"
        if len(chosen) != STYLES or len(rejected) != STYLES:
            raise SteError(
                "data_invalid",
                f"{row.where}: expected {STYLES} styles of each response; download the files again",
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
                        subset=domain,
                        category="normal" if i == j else "easy" if i > j else "hard",
                    )
                )
    return made, {}


def aggregate(pairs: Sequence[ComparisonResult], policy: Policy, seed: int) -> dict[str, Any]:
    """Returns the accuracy by domain and level and their means, like `compute_accuracy` of the authors.

    Safety is one domain with the prompts of both its subsets; without one of them it is missing.
    """
    subsets = Subsets(scored(pairs, policy), seed=seed)
    missing, expected = subsets.missing(SUBSETS), {name: STYLES**2 * n for name, n in COUNTS.items()}
    partial = {_domain(subset) for subset in missing}
    whole = [pair for pair in pairs if _domain(pair.comparison.subset) not in partial]
    cells = Subsets(
        scored(
            whole, policy, key=lambda pair: f"{_domain(pair.comparison.subset)} {pair.comparison.category}"
        ),
        seed=seed,
    )
    return {
        "domains": {d: cells.mean({f"{d} {level}": 1.0 for level in LEVELS}) for d in DOMAINS},
        "levels": {level: cells.mean({f"{d} {level}": 1.0 for d in DOMAINS}) for level in LEVELS},
        "overall": {
            "formula": "plain mean of the four domains, each the plain mean of its levels",
            **cells.mean({f"{d} {level}": 1.0 for d in DOMAINS for level in LEVELS}),
        },
        "missing_subsets": missing,
        "short_subsets": subsets.short(expected),
        "surplus_subsets": subsets.surplus(expected),
    }


def _domain(subset: str) -> str:
    return subset.partition("-")[0]
