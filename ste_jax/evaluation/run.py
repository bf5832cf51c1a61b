"""`evaluate`: a judge on the labelled comparisons of a benchmark, with a result file."""

import dataclasses
import tempfile
from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import jax

from ste_jax.benchmarks.benchmark import Benchmark
from ste_jax.benchmarks.catalogue import load
from ste_jax.checks import check_whole
from ste_jax.distributed import process
from ste_jax.errors import SteError
from ste_jax.evaluation.numbers import numbers
from ste_jax.evaluation.probes.probe import RETEST, Probe, make_probes
from ste_jax.evaluation.relabelled import Stored, stored_judgments, texts_hash
from ste_jax.evaluation.result import SCHEMA, Result, read_result, to_record
from ste_jax.judge import Judge
from ste_jax.judging.compare import CompareSettings
from ste_jax.judging.protocol import JudgingProtocol
from ste_jax.judging.stream import Judged
from ste_jax.metrics.policy import WRONG, Policy
from ste_jax.pairs.used import text_hash
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
    probes: int = 0,
    include_checkpoint_pairs: bool = False,
    progress: bool = False,
    policy: Policy = WRONG,
) -> Evaluation:
    """Evaluates a judge in both orders on labelled comparisons.

    A file of the user's that is evaluated again with other labels is not judged again: only its numbers are
    computed anew.

    Args:
      judge: the judge.
      benchmark: name of a benchmark, or one that was loaded.
      path: folder of the benchmark's files; default: its data set on the hub.
      out: result file; an interrupted evaluation continues there. Default: no file is kept.
      votes: samples of each comparison and order; 1 is one greedy judgment.
      limit: number of comparisons to judge, drawn at random by the judge's seed; 0 judges all.
      probes: number of comparisons of which altered versions are judged too, which show what the judge
        decides by; about 20 versions of each, drawn by the judge's seed.
      include_checkpoint_pairs: also judge the pairs of a file that chose the checkpoint of this judge, which
        its model card names; by default they are left out, as they are no test of it.
      progress: show a progress bar on stderr.
      policy: score of a judgment without a verdict.

    Raises:
      SteError: the benchmark cannot be read, `out` belongs to another evaluation, no comparison fits the
        model, all are ties, or all chose the checkpoint of the judge.
    """
    for name, number in (("limit", limit), ("probes", probes)):
        check_whole(name, number, least=0)
    settings = CompareSettings(votes=votes)
    if not isinstance(benchmark, Benchmark):
        benchmark = load(benchmark, path)
    card = judge.model.source.card
    if card is not None and card.chosen_by:
        benchmark = without_checkpoint_pairs(benchmark, card.chosen_by, keep=include_checkpoint_pairs)
    items = benchmark.limited(limit, judge.settings.seed)
    for item in items:
        judge.settings.prompt.check_columns(item.texts)
    if all(item.label not in ("A", "B") for item in items):
        raise SteError(
            "no_labels",
            f"{benchmark.source}: none of the {len(items)} comparisons has a better response; raise the "
            "limit, or give others",
        )
    work = _Work(
        benchmark=benchmark,
        limit=limit,
        items=items,
        probes=make_probes(items, probes, seed=judge.settings.seed, pointwise=judge.is_pointwise),
        settings=settings,
    )
    if out is not None:
        return Evaluation(_judged(judge, work, Path(out), progress), policy)
    with tempfile.TemporaryDirectory() as folder:
        return Evaluation(_judged(judge, work, Path(folder) / "result.jsonl", progress), policy)


def without_checkpoint_pairs(benchmark: Benchmark, chosen_by: Collection[str], *, keep: bool) -> Benchmark:
    """Returns a benchmark without the pairs that chose the checkpoint of a judge, and with their number.

    Args:
      benchmark: the benchmark; of a public one, whose score is that of all its pairs, none is left out.
      chosen_by: hashes of the texts of these pairs.
      keep: only count them.

    Raises:
      SteError: "no_labels" if no other pair is left.
    """
    hashes = set(chosen_by)
    others = [item for item in benchmark.items if text_hash(item) not in hashes]
    number = len(benchmark.items) - len(others)
    if not number:
        return benchmark
    if keep or benchmark.name:
        notes = benchmark.notes | {"pairs_that_chose_the_checkpoint": number}
        return dataclasses.replace(benchmark, notes=notes)
    if not others:
        raise SteError(
            "no_labels",
            f"{benchmark.source}: all {number} pairs chose the checkpoint of this judge, so they are no test "
            "of it; give other pairs, or pass --include_checkpoint_pairs",
        )
    notes = benchmark.notes | {"pairs_that_chose_the_checkpoint_left_out": number}
    return dataclasses.replace(benchmark, items=others, notes=notes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Work:
    """Comparisons and probes of an evaluation.

    Attributes:
      benchmark: the benchmark.
      limit: number of its comparisons that are judged, 0 for all.
      items: these comparisons.
      probes: probes of some of them.
      settings: votes and orders.
    """

    benchmark: Benchmark
    limit: int
    items: list[Comparison]
    probes: list[Probe]
    settings: CompareSettings

    def to_json(self) -> dict[str, Any]:
        """Returns the part of the header of a result that tells what was judged."""
        benchmark = self.benchmark
        header: dict[str, Any] = {
            "benchmark": benchmark.name or None,
            "data": {
                "source": Path(benchmark.source).name,
                "revision": benchmark.revision,
                "hash": benchmark.content,
                "notes": benchmark.notes,
                "comparisons": len(benchmark.items),
                "limit": self.limit or None,
                "judged_hash": digest([item.to_json() for item in self.items]),
                "texts_hash": texts_hash(self.items),
            },
        }
        if self.probes:
            pairs = len({probe.pair for probe in self.probes})
            made = digest([probe.comparison.to_json() for probe in self.probes])
            header["probes"] = {"pairs": pairs, "comparisons": len(self.probes), "hash": made}
        return header


def _judged(judge: Judge, work: _Work, out: Path, progress: bool) -> Result:
    """Judges what `out` does not hold yet, and returns the whole result."""
    protocol = JudgingProtocol(judge.settings, judge.model.source.tokenizer)
    run = judge.run_settings(protocol, work.settings) | work.to_json()
    run["device"] = jax.devices()[0].device_kind
    stored = stored_judgments(out, run, work.items)
    if stored is None:
        _write(judge, protocol, work, run, out, {}, progress)
    else:
        # Complete before it replaces the result with the old labels.
        new = out.with_name(f".{out.name}.{digest(run)[:8]}.relabelled")
        _write(judge, protocol, work, run, new, stored, progress)
        process.on_process_zero(lambda: new.replace(out))
    result = read_result(out)
    if not result.comparisons:
        raise SteError(
            "too_long",
            f"{judge.model.source.path}: none of {len(work.items)} comparisons fits a context of "
            f"{judge.model.source.architecture.context_length} tokens; use a shorter prompt or a smaller "
            "max_new_tokens",
        )
    return result


def _write(
    judge: Judge,
    protocol: JudgingProtocol,
    work: _Work,
    run: dict[str, Any],
    out: Path,
    stored: Stored,
    progress: bool,
) -> None:
    """Writes a result file, with the judgments of `stored` and new ones of all other comparisons."""
    items = {item.id: item for item in work.items}
    ids = [*items, *(probe.comparison.id for probe in work.probes)]
    with JsonlOutput(out, run, schema=SCHEMA) as output:
        if output.finished:
            return
        for id_, made in stored.items() if process.is_process_zero() else ():
            if not output.is_done(id_):
                output.add(id_, [to_record(items[id_], made)])
        with Progress("evaluate", len(ids), disable=not progress) as bar:
            bar.advance(records=sum(id_ in stored or output.is_done(id_) for id_ in ids))
            _fill_all(output, judge, protocol, work, bar, stored)
        output.finish(ids)


def _fill_all(
    output: JsonlOutput,
    judge: Judge,
    protocol: JudgingProtocol,
    work: _Work,
    bar: Progress,
    stored: Stored,
) -> None:
    """Adds the judgments of all comparisons and probes that the output does not hold."""
    probes = {probe.comparison.id: probe for probe in work.probes}
    retests = [probe.comparison for probe in work.probes if probe.kind == RETEST]
    others = [probe.comparison for probe in work.probes if probe.kind != RETEST]
    # Sampled votes are drawn by the seed and the texts, so the same comparison needs another seed.
    reseeded = dataclasses.replace(judge.settings, seed=judge.settings.seed + 1)
    again = JudgingProtocol(reseeded, judge.model.source.tokenizer)
    items = [item for item in work.items if item.id not in stored]
    for used, comparisons in ((protocol, [*items, *others]), (again, retests)):
        if not comparisons:
            continue  # no engine is needed, and no weights are read
        _fill(output, judge, used, comparisons, work.settings, bar, probes)


def _fill(
    output: JsonlOutput,
    judge: Judge,
    protocol: JudgingProtocol,
    comparisons: list[Comparison],
    settings: CompareSettings,
    bar: Progress,
    probes: Mapping[str, Probe],
) -> None:
    """Adds the judgments of every comparison that the output does not hold."""
    found: dict[str, dict[Order, Judged]] = defaultdict(dict)
    is_leader = judge.model.engine.replica_group.is_leader
    stream = judge.judge(
        protocol,
        comparisons,
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
                [to_record(comparison, made, probes.get(comparison.id))],
                prompt_tokens=sum(order.prompt_tokens for order in orders.values()),
                generated_tokens=sum(order.completion_tokens for order in orders.values()),
            )
        bar.advance(records=1)
