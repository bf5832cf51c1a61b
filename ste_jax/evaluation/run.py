"""Judges the comparisons of a benchmark in both orders and writes the result file."""

import sys
import time
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ste_jax.benchmarks.benchmark import Benchmark
from ste_jax.decode.engine import Engine
from ste_jax.decode.protocol import Request
from ste_jax.distributed import process
from ste_jax.evaluation.estimate import Estimate, length_groups, time_and_estimate
from ste_jax.evaluation.job import Job, open_job
from ste_jax.evaluation.result import PartFile, Result, ResultFile, check_same, read_result
from ste_jax.evaluation.settings import EvaluationSettings
from ste_jax.judging.judge import Judge
from ste_jax.records import Comparison
from ste_jax.report.formats import duration
from ste_jax.runner import run_requests
from ste_jax.sharding import DECODE, decode_mesh


def evaluate(model: str, benchmark: Benchmark, settings: EvaluationSettings, out: Path) -> Result:
    """Returns the finished result of a model on a benchmark; what `out` holds of it already is kept.

    Raises:
      ValueError: the model cannot be used, `out` holds something else, no comparison fits the model, or all
        are ties.
    """
    started = time.monotonic()
    job = open_job(model, benchmark, settings)
    if all(item.label == "tie" for item in job.items):
        raise ValueError(
            f"{benchmark.source}: the {len(job.items)} comparisons asked for are ties, which are in no "
            "accuracy; raise --limit, or give others"
        )
    run = job.run()
    if not _is_finished(out, run):
        _judge(job, run, out, started)
    return read_result(out)


def _is_finished(out: Path, run: dict[str, Any]) -> bool:
    if not out.is_file() or not out.stat().st_size:
        return False
    try:
        result = read_result(out)
    except ValueError:
        return False  # begun or broken: opening it for writing tells which
    check_same(out, result.run, run)
    return not result.missing


def _judge(job: Job, run: dict[str, Any], out: Path, started: float) -> None:
    engine = _engine(job)
    judge = Judge(job.judging, job.source.tokenizer)
    pairs = job.items
    requests, too_long = judge.requests(pairs, "evaluate", job.settings.votes, engine)
    if not requests:
        raise ValueError(
            f"{job.source.path}: none of {len(pairs)} comparisons fits a context of "
            f"{job.source.architecture.context_length} tokens; shorten --prompt or --max_new_tokens"
        )
    left_out = set(too_long)
    comparisons = [item for item in job.items if item.id not in left_out]
    file = _open(out, run, job, comparisons, too_long)
    make, sampling = judge.maker(pairs), job.settings.sampling

    # Not told by the file: of processes that decode together only one has it.
    served: set[str] = set()

    def some(label: str, part: Sequence[Request], only: Collection[str]) -> None:
        options: dict[str, Any] = {"label": label, "only": only, "suffix": judge.forced_suffix}
        run_requests(engine, part, sampling, file, make, **options)
        served.update(only)

    session: dict[str, Any] = {"judgments_before": len(file.found)}
    try:
        done = {
            r.id for r in requests if f"{r.id}/0" in file.found or not engine.replica_group.is_assigned(r.id)
        }
        parts = length_groups(requests)
        shape_of = partial(engine.shape, suffix=judge.forced_suffix)
        estimate = time_and_estimate(parts, done, shape_of, some, started)
        session["estimated_seconds"] = round(estimate.total, 1)
        _say(estimate, len(requests) * job.settings.votes)
        for number, part in enumerate(parts, 1):
            some(f"evaluate {number}/{len(parts)}", part, {r.id for r in part} - served)
        session["complete"] = True
    finally:
        session["seconds"] = round(time.monotonic() - started, 1)
        _close(file, session)


def _open(
    out: Path, run: dict[str, Any], job: Job, comparisons: list[Comparison], too_long: list[str]
) -> PartFile | ResultFile:
    """Opens the result file, or on other hosts than the first a file beside it."""
    if process.is_process_zero():
        file = ResultFile(out, run, job.about(), comparisons, too_long)
        file.take_in()
        process.barrier()
        return file
    process.barrier()
    found = {judgment.id: judgment for judgment in read_result(out).judgments}
    return PartFile(out, process.index(), run, found)


def _close(file: PartFile | ResultFile, session: dict[str, Any]) -> None:
    """Puts the judgments of all hosts together, when all of them are there."""
    complete = "complete" in session
    if not isinstance(file, ResultFile):
        file.close(session)
    try:
        if complete:
            process.barrier(stoppable=True)
        if complete and isinstance(file, ResultFile):
            file.take_in()
    finally:
        if isinstance(file, ResultFile):
            file.close(session)
    if complete:
        process.barrier()


def _engine(job: Job) -> Engine:
    mesh, dtype = decode_mesh(job.settings.mesh), job.settings.dtype
    model = job.source.load(DECODE, mesh, param_dtype=dtype, dtype=dtype)
    return Engine(model, mesh, job.decode, job.source.tokenizer.stop_ids)


def _say(estimate: Estimate, judgments: int) -> None:
    ends = time.strftime("%H:%M:%S", time.localtime(time.time() + estimate.total - estimate.passed))
    print(
        f"estimate: {judgments} judgments take {duration(estimate.total)} in all, of which "
        f"{duration(estimate.passed)} went into loading, compiling and timing; ends about {ends}",
        file=sys.stderr,
        flush=True,
    )
