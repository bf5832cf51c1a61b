"""Stage 3, `ste annotate`: the current model judges every training pair N times in both orders (the paper,
section 3.3).

Reads `pairs/` and the model of the iteration before, writes `iteration_k/annotate` (records: Judgment; wrong
ones too). Which of them are trained on is chosen later, and makes none of them stale.
"""

from typing import Any

from ste_jax.judging.protocol import JudgingProtocol
from ste_jax.judging.selection import select_for_training, yield_report
from ste_jax.judging.stream import StreamSettings, judge_into, not_judged, request_id
from ste_jax.records import ORDERS, Comparison, Judgment
from ste_jax.stages.context import Context
from ste_jax.storage.files import digest
from ste_jax.storage.readers import StoredRecords, read_records
from ste_jax.storage.record_set import RecordSet
from ste_jax.storage.success import read_success


def run(context: Context, iteration: int, pairs: list[Comparison]) -> list[Judgment]:
    """Returns the judgments that iteration `iteration` trains on, made now or before."""
    settings = context.config.annotate
    folder = context.iteration(iteration) / "annotate"
    source = context.model(iteration - 1)
    fingerprint = context.fingerprint(
        "annotate",
        pairs=digest([pair.to_json() for pair in pairs]),
        model=source.digest(),
        prompt=context.prompt.digest(),
    )
    records = RecordSet(folder, Judgment, fingerprint, divided=True)
    if read_success(folder):
        return read_records(folder, Judgment)

    protocol = JudgingProtocol(context.judging, source.tokenizer)
    judging = StreamSettings(
        stage=f"annotate/{iteration}",
        samples=settings.samples,
        sampling=settings.sampling,
        stop_when_correct=settings.stop_when_correct,
    )
    label = f"annotate {iteration}"
    judge_into(records, protocol, context.engine(source), pairs, judging, label=label)
    order = [request_id(pair, order) for pair in pairs for order in ORDERS]

    def summarize(made: StoredRecords[Judgment]) -> dict[str, Any]:
        judgments = list(made)
        kept = select_for_training(judgments, pairs, seed=context.config.seed, **context.selection)
        report = yield_report(judgments, kept, pairs, both_orders=settings.both_orders)
        return {"iteration": iteration, "too_long": not_judged(pairs, judgments), "yield": report.to_json()}

    records.finish(order, summarize)
    return read_records(folder, Judgment)
