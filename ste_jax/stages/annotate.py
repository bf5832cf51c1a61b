"""Stage 3, `ste annotate`: the current model judges every training pair N times in both orders (the paper,
section 3.3).

Reads `pairs/` and the model of the iteration before, writes `iteration_k/annotate` (records: Judgment; wrong
ones too). Which of them are trained on is chosen later, and makes none of them stale.
"""

from typing import Any

from ste_jax.decode.protocol import Completion
from ste_jax.judging.judge import Judge
from ste_jax.judging.selection import select_for_training, yield_report
from ste_jax.records import ORDERS, Comparison, Judgment, Order
from ste_jax.runner import run_requests
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

    engine = context.engine(source)
    judge = Judge(context.judging, source.tokenizer)
    stage = f"annotate/{iteration}"
    requests, too_long = judge.requests(pairs, stage, settings.samples, engine)
    by_request: dict[str, tuple[Comparison, Order]] = {
        f"{pair.id}/{order}": (pair, order) for pair in pairs for order in ORDERS
    }

    def stop_request_when(request: str, finished: tuple[Completion, ...]) -> bool:
        correct = sum(judge.is_correct(*by_request[request], completion) for completion in finished)
        return correct >= settings.stop_when_correct

    run_requests(
        engine,
        requests,
        settings.sampling,
        records,
        judge.maker(pairs),
        label=f"annotate {iteration}",
        suffix=judge.forced_suffix,
        stop_request_when=stop_request_when if settings.stop_when_correct else None,
    )

    def summarize(made: StoredRecords[Judgment]) -> dict[str, Any]:
        judgments = list(made)
        kept = select_for_training(judgments, pairs, seed=context.config.seed, **context.selection)
        report = yield_report(judgments, kept, pairs, both_orders=settings.both_orders)
        return {"iteration": iteration, "too_long": too_long, "yield": report.to_json()}

    records.finish((request.id for request in requests), summarize)
    return read_records(folder, Judgment)
