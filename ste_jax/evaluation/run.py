"""`evaluate`: a judge on the labelled comparisons of a benchmark, with a result file."""

import tempfile
from collections import defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from ste_jax.benchmarks.benchmark import Benchmark
from ste_jax.benchmarks.catalogue import load
from ste_jax.errors import SteError
from ste_jax.evaluation.numbers import numbers
from ste_jax.evaluation.result import SCHEMA, Result, read_result, to_record
from ste_jax.judge import Judge
from ste_jax.judging.compare import CompareSettings
from ste_jax.judging.protocol import JudgingProtocol
from ste_jax.judging.stream import Judged
from ste_jax.metrics.policy import WRONG, Policy
from ste_jax.progress import Progress
from ste_jax.records import ORDERS, Comparison, Order
from ste_jax.storage.files import digest
from ste_jax.storage.jsonl_output import JsonlOutput


class Evaluation:
    """An evaluated judge.

    Attributes:
      result: all judgments, from which every number follows.
      policy: score of a judgment without a verdict.
    """

    def __init__(self, result: Result, policy: Policy = WRONG):
        self.result = result
        self.policy = policy

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """Every number of the result as a JSON-ready dict; see docs/EVALUATION.md."""
        return numbers(self.result, self.policy)


def evaluate(
    judge: Judge,
    benchmark: str | Benchmark,
    *,
    path: str = "",
    out: str | Path | None = None,
    votes: int = 1,
    limit: int = 0,
    progress: bool = False,
    policy: Policy = WRONG,
) -> Evaluation:
    """Evaluates a judge in both orders on labelled comparisons.

    Args:
      judge: the judge.
      benchmark: name of a benchmark, or one that was loaded.
      path: folder of the benchmark's files; default: its data set on the hub.
      out: result file; an interrupted evaluation continues there. Default: no file is kept.
      votes: samples of each comparison and order; 1 is one greedy judgment.
      limit: number of comparisons to judge, drawn at random by the judge's seed; 0 judges all.
      progress: show a progress bar on stderr.
      policy: score of a judgment without a verdict.

    Raises:
      SteError: the benchmark cannot be read, `out` belongs to another evaluation, no comparison fits the
        model, or all are ties.
    """
    if isinstance(benchmark, str):
        benchmark = load(benchmark, path)
    if limit < 0:
        raise SteError("argument_invalid", f"limit must be 0 or more, not {limit}")
    settings = CompareSettings(votes=votes)
    items = benchmark.limited(limit, judge.settings.seed)
    if all(item.label not in ("A", "B") for item in items):
        raise SteError(
            "no_labels",
            f"{benchmark.source}: none of the {len(items)} comparisons has a better response; raise the "
            "limit, or give others",
        )
    if out is not None:
        return Evaluation(_judged(judge, benchmark, items, settings, limit, Path(out), progress), policy)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result.jsonl"
        return Evaluation(_judged(judge, benchmark, items, settings, limit, file, progress), policy)


def _judged(
    judge: Judge,
    benchmark: Benchmark,
    items: list[Comparison],
    settings: CompareSettings,
    limit: int,
    out: Path,
    progress: bool,
) -> Result:
    """Judges what `out` does not hold yet, and returns the whole result."""
    protocol = JudgingProtocol(judge.settings, judge.model.source.tokenizer)
    run = judge.run_settings(protocol, settings) | {
        "benchmark": benchmark.name or None,
        "device": jax.devices()[0].device_kind,
        "data": {
            "source": Path(benchmark.source).name,
            "revision": benchmark.revision,
            "hash": benchmark.content,
            "notes": benchmark.notes,
            "comparisons": len(benchmark.items),
            "limit": limit or None,
            "judged_hash": digest([item.to_json() for item in items]),
        },
    }
    with JsonlOutput(out, run, schema=SCHEMA) as output:
        if not output.finished:
            with Progress("evaluate", len(items), disable=not progress) as bar:
                _fill(output, judge, protocol, items, settings, bar)
            output.finish([item.id for item in items])
    result = read_result(out)
    if not result.comparisons:
        raise SteError(
            "too_long",
            f"{judge.model.source.path}: none of {len(items)} comparisons fits a context of "
            f"{judge.model.source.architecture.context_length} tokens; use a shorter prompt or a smaller "
            "max_new_tokens",
        )
    return result


def _fill(
    output: JsonlOutput,
    judge: Judge,
    protocol: JudgingProtocol,
    items: list[Comparison],
    settings: CompareSettings,
    bar: Progress,
) -> None:
    """Adds the judgments of every comparison that the output does not hold."""
    bar.advance(records=sum(output.is_done(item.id) for item in items))
    found: dict[str, dict[Order, Judged]] = defaultdict(dict)
    is_leader = judge.model.engine.replica_group.is_leader
    stream = judge.judge(
        protocol,
        items,
        settings,
        is_done=output.is_done,
        on_tokens=lambda tokens: bar.advance(tokens=tokens),
    )
    for item in stream:
        if item.error is not None:
            raise item.error
        comparison = item.comparison
        found[comparison.id][item.order] = item
        if len(found[comparison.id]) < len(ORDERS) or output.is_done(comparison.id):
            continue
        orders = found.pop(comparison.id)
        made = None if item.skipped else [j for order in ORDERS for j in orders[order].judgments]
        if is_leader:
            output.add(
                comparison.id,
                [to_record(comparison, made)],
                prompt_tokens=sum(order.prompt_tokens for order in orders.values()),
                generated_tokens=sum(order.completion_tokens for order in orders.values()),
            )
        bar.advance(records=1)
