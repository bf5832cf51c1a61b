"""LLMBar (arXiv 2310.07641): pairs of which one response follows the instruction.

The files are those of the repository of the authors: Dataset/LLMBar/Natural/dataset.json, and dataset.json
in the folders Neighbor, GPTInst, GPTOut and Manual of Dataset/LLMBar/Adversarial.
"""

import re
from collections.abc import Sequence
from typing import Any

from ste_jax.benchmarks.pairing import prompt_key
from ste_jax.benchmarks.source import Record
from ste_jax.errors import SteError
from ste_jax.metrics.policy import Policy
from ste_jax.metrics.subsets import Subsets, scored
from ste_jax.records import Comparison, ComparisonResult

HUB = None
PATTERNS = ()
RECORD = ("input", "output_1", "output_2", "label")
ARE_PAIRS = True
COUNTS = {"Natural": 100, "Neighbor": 134, "GPTInst": 92, "GPTOut": 47, "Manual": 46}
ADVERSARIAL = ("Neighbor", "GPTInst", "GPTOut", "Manual")
_FILE = re.compile(rf"(?:.*/)?({'|'.join(COUNTS)})/dataset\.json")


def choose(files: Sequence[str]) -> list[str]:
    """Returns the files of the five subsets; the repository also has others.

    The file of a single subset, whose folder was given, is returned too: `items` says what is wrong.
    """
    subsets = [file for file in files if _FILE.fullmatch(file)]
    chosen = [file for file in subsets if "CaseStudy" not in file and "Processed" not in file]
    return chosen or [file for file in files if file == "dataset.json"]


def subset_of(file: str) -> str | None:
    """Returns the subset that the folder of a file names, or None."""
    match = _FILE.fullmatch(file)
    return match[1] if match else None


def items(rows: Sequence[Record]) -> tuple[list[Comparison], dict[str, Any]]:
    """Returns the comparisons in the order of the files."""
    made = []
    for row in rows:
        subset = subset_of(row.file)
        if subset is None:
            raise SteError(
                "data_invalid",
                f"{row.where}: pass the folder Dataset/LLMBar as --path: its subfolders name the subsets",
            )
        label = row.number("label")
        if label not in (1, 2):
            raise SteError(
                "data_invalid", f"{row.where}: the label is {label}, not 1 or 2; download the files again"
            )
        id_ = f"{subset}-{row.record}"
        made.append(
            Comparison(
                id=id_,
                prompt_id=prompt_key(row.text("input")),
                instruction=row.text("input"),
                response_a=row.text("output_1"),
                response_b=row.text("output_2"),
                label="A" if label == 1 else "B",
                subset=subset,
            )
        )
    return made, {}


def aggregate(pairs: Sequence[ComparisonResult], policy: Policy, seed: int) -> dict[str, Any]:
    """Returns the accuracy on Natural, and the plain mean of the four adversarial subsets."""
    subsets = Subsets(scored(pairs, policy), seed=seed)
    return {
        "natural": subsets.mean({"Natural": 1.0}),
        "adversarial": {
            "formula": "plain mean of its four subsets",
            **subsets.mean(dict.fromkeys(ADVERSARIAL, 1.0)),
        },
        "missing_subsets": subsets.missing(list(COUNTS)),
        "short_subsets": subsets.short(COUNTS),
        "surplus_subsets": subsets.surplus(COUNTS),
    }
