"""HelpSteer2 validation (arXiv 2406.08673): of two responses to a prompt, the more helpful one is better.

Each row rates one response; consecutive rows with the same prompt are compared. Pairs of equal helpfulness
are left out and counted.
"""

import itertools
import re
from collections.abc import Sequence
from typing import Any

from ste_jax.benchmarks.pairing import chosen_and_rejected
from ste_jax.benchmarks.source import Record
from ste_jax.benchmarks.splits import without_splits
from ste_jax.errors import SteError
from ste_jax.metrics.policy import Policy
from ste_jax.records import Comparison, ComparisonResult

HUB = "nvidia/HelpSteer2"
PATTERNS = ("validation.jsonl.gz",)
RECORD = ("prompt", "response")
SPLIT = "validation"
RECORDS = 1_038
ATTRIBUTE = "helpfulness"
# Separates the turns of a conversation in a prompt.
_TURN = re.compile(r"\s*<extra_id_1>(\w+)\n")


def choose(files: Sequence[str]) -> list[str]:
    """Returns the files with the ratings of the validation split."""
    return without_splits(files, ("train", "test", "preference", "disagreements"), (SPLIT,))


def items(rows: Sequence[Record]) -> tuple[list[Comparison], dict[str, Any]]:
    """Returns the pairs that differ in helpfulness, and counts of what was left out."""
    for row in rows:
        if "preference_strength" in row.fields:
            raise SteError(
                "data_invalid",
                f"{row.where}: preferences of HelpSteer2, not ratings; give the file as --data",
            )
    made, ties, alone = [], 0, 0
    groups = itertools.groupby(rows, key=lambda row: row.text("prompt"))
    for number, (prompt, group) in enumerate(groups):
        responses = [(row.number(ATTRIBUTE), row.text("response")) for row in group]
        alone += len(responses) == 1
        for i, j in itertools.combinations(range(len(responses)), 2):
            if responses[i][0] == responses[j][0]:
                ties += 1
                continue
            worse, better = sorted((responses[i], responses[j]), key=lambda response: response[0])
            made.append(
                chosen_and_rejected(
                    id_=f"helpsteer2-{number}-{i}-{j}",
                    prompt_id=f"helpsteer2-{number}",
                    instruction=_TURN.sub(r"\n\n\1:\n", prompt),
                    chosen=better[1],
                    rejected=worse[1],
                    category=f"{ATTRIBUTE} differs by {better[0] - worse[0]:g}",
                )
            )
    return made, {"attribute": ATTRIBUTE, "ties_left_out": ties, "prompts_with_one_response": alone}


def aggregate(pairs: Sequence[ComparisonResult], policy: Policy, seed: int) -> dict[str, Any]:
    """Returns no scores of its own, since there are no subsets to average."""
    return {"missing_subsets": []}
