"""Benchmarks by name.

The module of a benchmark defines HUB (name of the data set on the Hugging Face hub, or None), PATTERNS (glob
patterns of its files), RECORD (the columns that are judged, by which two records are the same), `choose`
(returns those of a folder's files that belong to it), `items` (converts rows to comparisons) and `aggregate`
(computes the benchmark's own scores from judged pairs). SPLIT is the benchmark's split, if its data set has
several. Where the paths of files name subsets, `subset_of` returns that of a file; SUBSET is the field of a
record that names one. ARE_VOTES is True if records are votes, so that two of a file may be equal;
ARE_PAIRS if each record is one labelled pair, so that two may not contradict each other, and count once if
only the order of their responses differs. RECORDS is the published number of records, where the number of
comparisons by subset is not known.
"""

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from ste_jax.benchmarks.benchmark import Benchmark
from ste_jax.benchmarks.names import BENCHMARKS
from ste_jax.benchmarks.source import Files, Record, read_folder, read_hub, refuse_versions, without_repeated
from ste_jax.benchmarks.splits import refuse_several_splits
from ste_jax.data.contradictions import refuse_contradictions
from ste_jax.data.files import other_parts
from ste_jax.errors import SteError
from ste_jax.metrics.policy import Policy
from ste_jax.records import Comparison, ComparisonResult


def load(name: str, path: str = "") -> Benchmark:
    """Returns a benchmark read from a local folder, or downloaded from the hub if `path` is empty.

    Raises:
      SteError: "argument_invalid", "file_not_found", "download_failed", or "data_invalid" if a file is
        malformed, a part of the data set is missing, two files hold one subset, a pair has two labels, there
        is no comparison, or one occurs twice.
    """
    module = _module(name)
    if not path and module.HUB is None:
        raise SteError(
            "argument_invalid",
            f"{name}: is not on the hub; clone its repository and pass its folder as --path",
        )
    choose = module.choose
    files = read_folder(path, choose) if path else read_hub(module.HUB, module.PATTERNS, choose)
    rows = _rows(module, files)
    items, notes = module.items(rows)
    swapped = 0
    if getattr(module, "ARE_PAIRS", False):
        refuse_contradictions(items, [row.where for row in rows], [item.subset for item in items])
        swapped = len(items) - len(items := _without_swapped(items))
    changes: dict[str, Any] = {"repeated_records_left_out": len(files.rows) - len(rows) + swapped}
    changes["other_parts_not_read"] = other_parts(path) if path else 0
    if len(files.rows) != (published := getattr(module, "RECORDS", len(files.rows))):
        changes["records_of_the_published_files"] = f"{len(files.rows)} of {published}"
    notes = notes | {name: change for name, change in changes.items() if change}
    if not items:
        raise SteError("data_invalid", f"{files.source}: contains no comparison of {name}; check --path")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise SteError(
                "data_invalid",
                f"{files.source}: the comparison {item.id} occurs twice; remove a duplicate file",
            )
        seen.add(item.id)
    return Benchmark(
        name=name,
        items=items,
        source=files.source,
        revision=files.revision,
        content=files.content,
        notes=notes,
    )


def _without_swapped(items: Sequence[Comparison]) -> list[Comparison]:
    """Returns the comparisons without those of an earlier pair in the other order of its responses."""
    first: dict[Any, str] = {}
    kept = []
    for item in items:
        pair = (item.subset, item.category, item.instruction, frozenset((item.response_a, item.response_b)))
        if first.setdefault(pair, item.response_a) == item.response_a:
            kept.append(item)
    return kept


def _rows(module: ModuleType, files: Files) -> list[Record]:
    """Returns the records that count, of files that are one benchmark."""
    subset_of = getattr(module, "subset_of", lambda file: None)
    once = without_repeated(files.rows, module.RECORD, subset_of)
    refuse_several_splits(
        files.source,
        [file for file in dict.fromkeys(row.file for row in once) if subset_of(file) is None],
        getattr(module, "SPLIT", None),
    )
    field = getattr(module, "SUBSET", "")
    refuse_versions(files.rows, lambda row: subset_of(row.file) or str(row.fields.get(field, "")))
    return files.rows if getattr(module, "ARE_VOTES", False) else once


def aggregates(
    name: str | None, pairs: Sequence[ComparisonResult], policy: Policy, seed: int
) -> dict[str, Any] | None:
    """Returns the own scores of a benchmark, or None for a file of pairs."""
    return _module(name).aggregate(pairs, policy, seed) if name else None


def _module(name: str) -> ModuleType:
    if name not in BENCHMARKS:
        raise SteError("argument_invalid", f"benchmark {name!r}: expected {', '.join(BENCHMARKS)}")
    return importlib.import_module(f"ste_jax.benchmarks.{name}")
