"""Stage 3, `ste annotate`: the current model judges every training pair N times in both orders (the paper,
section 3.3).

Reads `pairs/` and the model of the iteration before, writes `iteration_k/annotate` (records: Judgment; wrong
ones too). Which of them are trained on is chosen later, and makes none of them stale.
"""

from collections.abc import Sequence
from typing import Any

from ste_jax.judging.protocol import JudgingProtocol
from ste_jax.judging.selection import yield_report
from ste_jax.judging.stream import StreamSettings, judge_into, not_judged, request_id
from ste_jax.randomness import generator
from ste_jax.records import ORDERS, Comparison, Judgment
from ste_jax.stages.context import Context
from ste_jax.stages.examples import select
from ste_jax.storage.files import digest_all
from ste_jax.storage.readers import IndexedRecords
from ste_jax.storage.record_set import RecordSet
from ste_jax.storage.success import read_success


def run(context: Context, iteration: int, pairs: Sequence[Comparison]) -> Sequence[Judgment]:
    """Returns the judgments that iteration `iteration` trains on, made now or before."""
    settings, seed = context.config.annotate, context.config.seed
    pairs = _drawn(pairs, settings.max_pairs, seed)
    folder = context.iteration(iteration) / "annotate"
    source = context.model(iteration - 1)
    fingerprint = context.fingerprint(
        "annotate",
        pairs=digest_all(pair.to_json() for pair in pairs),
        model=source.digest(),
        prompt=context.prompt.digest(),
    )
    records = RecordSet(folder, Judgment, fingerprint, divided=True)
    if read_success(folder):
        return IndexedRecords(folder, Judgment)

    protocol = JudgingProtocol(context.judging, source.tokenizer)
    judging = StreamSettings(
        stage=f"annotate/{iteration}",
        samples=settings.samples,
        sampling=settings.sampling,
        stop_when_correct=settings.stop_when_correct,
    )
    label = f"annotate {iteration}"
    judge_into(records, protocol, context.engine(source), pairs, judging, label=label)

    def summarize(judgments: IndexedRecords[Judgment]) -> dict[str, Any]:
        kept = select(context, judgments, pairs)
        report = yield_report(judgments, kept, pairs, both_orders=settings.both_orders)
        return {"iteration": iteration, "too_long": not_judged(pairs, judgments), "yield": report.to_json()}

    order = (request_id(pair, order) for pair in pairs for order in ORDERS)
    records.finish(order, summarize)
    return IndexedRecords(folder, Judgment)


def _drawn(pairs: Sequence[Comparison], limit: int, seed: int) -> Sequence[Comparison]:
    """Returns at most `limit` pairs (0: all), drawn at random, in their order."""
    if not limit or limit >= len(pairs):
        return pairs
    ranks = generator(seed, "annotate").permutation(len(pairs))
    return [pair for pair, rank in zip(pairs, ranks, strict=True) if rank < limit]
