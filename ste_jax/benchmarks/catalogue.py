"""The benchmarks by name.

A module of one has HUB and PATTERNS (its data set and files on the hub), `wanted` (which files belong to it),
`items` (rows to comparisons) and `aggregate` (judged pairs to its own scores).
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from ste_jax.benchmarks import helpsteer2, judgebench, llmbar, mt_bench, rewardbench, rewardbench2, rm_bench
from ste_jax.benchmarks.benchmark import Benchmark
from ste_jax.benchmarks.source import read_folder, read_hub
from ste_jax.metrics.stats import JudgedPair, Policy

BENCHMARKS: dict[str, ModuleType] = {
    "rewardbench": rewardbench,
    "rewardbench2": rewardbench2,
    "mt_bench": mt_bench,
    "helpsteer2": helpsteer2,
    "judgebench": judgebench,
    "rm_bench": rm_bench,
    "llmbar": llmbar,
}


def load(name: str, path: str = "") -> Benchmark:
    """Returns a benchmark from a local folder, or from the hub if none is named.

    Raises:
      ValueError: it cannot be had or read, holds no comparison, or repeats one.
    """
    module = BENCHMARKS[name]
    if not path and module.HUB is None:
        raise ValueError(f"{name}: is not read from the hub; clone its repository and give --path its folder")
    wanted = module.wanted
    files = read_folder(path, wanted) if path else read_hub(module.HUB, module.PATTERNS, wanted)
    items, notes = module.items(files.rows)
    if not items:
        raise ValueError(f"{files.source}: holds no comparison of {name}; check --path and --benchmark")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise ValueError(f"{files.source}: the comparison {item.id} occurs twice; remove the double file")
        seen.add(item.id)
    return Benchmark(
        name=name,
        items=items,
        source=files.source,
        revision=files.revision,
        content=files.content,
        notes=notes,
    )


def aggregates(
    name: str | None, pairs: Sequence[JudgedPair], policy: Policy, seed: int
) -> dict[str, Any] | None:
    """Returns a benchmark's own scores, or None for a file of pairs."""
    return BENCHMARKS[name].aggregate(pairs, policy, seed) if name else None
