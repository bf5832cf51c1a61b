"""The whole run on one page: the order of the stages and of the iterations, and the summary of what came
out.
"""

import contextlib
import dataclasses
import json
import os
import resource
import sys
from collections.abc import Iterator
from typing import Any

import filelock
from etils import epath

from ste_jax import hosts
from ste_jax.judging.stats import paired_test
from ste_jax.randomness import generator
from ste_jax.records import Instruction, Judgment, Pair
from ste_jax.report.html import SampledJudgment, write_report
from ste_jax.sft.metrics import read_metrics
from ste_jax.stages import annotate, evaluate, pairs, prefer, select, train
from ste_jax.stages.context import Context
from ste_jax.store import (
    Success,
    digest,
    read_records,
    read_success,
    read_work,
    remove,
    require_success,
    write_atomically,
)
from ste_jax.versions import versions

_SHOWN_JUDGMENTS = 10


def run(context: Context) -> dict[str, Any]:
    """Runs what is left of a run, and returns its summary (of many hosts only on the first, else {})."""
    config = context.config
    train.check(context)
    instructions = select.run(context)
    splits = pairs.split(config, pairs.run(context, instructions))
    evaluate.run(context, 0, splits)
    summary = report(context)
    for iteration in range(1, config.iterations + 1):
        judgments = annotate.run(context, iteration, splits.train)
        train.run(context, iteration, judgments, splits)
        prefer.run(context, iteration, judgments, splits)
        evaluate.run(context, iteration, splits)
        summary = report(context)
    return summary


def run_stage(context: Context, stage: str, iteration: int) -> dict[str, Any]:
    """Runs one stage (of one iteration), and returns its summary; what it reads must be finished."""
    if stage == "select":
        select.run(context)
        return require_success(context.workdir / "select").summary
    if stage == "pairs":
        pairs.run(context, _read(context, "select", Instruction))
        return require_success(context.workdir / "pairs").summary
    splits = pairs.split(context.config, _read(context, "pairs", Pair))
    if stage == "prefer" and not context.config.prefer:
        raise ValueError("config: no preference training is asked for; set prefer.epochs above 0")
    if stage == "evaluate":
        return evaluate.run(context, iteration, splits)
    if stage == "annotate":
        judgments = annotate.run(context, iteration, splits.train)
        made = {"yield": annotate.yield_of(context, judgments, splits.train)}
    else:
        judgments, made = _read(context, f"iteration_{iteration}/annotate", Judgment), {}
        {"train": train, "prefer": prefer}[stage].run(context, iteration, judgments, splits)
    return require_success(context.iteration(iteration) / stage).summary | made


def _read(context: Context, name: str, kind: type) -> list:
    return read_records(context.workdir / name, kind)


def _success(context: Context, name: str) -> Success | None:
    return read_success(context.workdir / name)


def stage_folders(context: Context) -> list[str]:
    """Returns the stages of a run in their order, by folder; also preferences that were asked for before."""
    config = context.config
    names = ["select", "pairs", "iteration_0/evaluate"]
    names += ["iteration_0/votes"] if config.evaluate.votes else []
    for k in range(1, config.iterations + 1):
        names += [f"iteration_{k}/annotate", f"iteration_{k}/train"]
        names += [f"iteration_{k}/prefer"] if config.prefer or prefer.is_begun(context.iteration(k)) else []
        names += [f"iteration_{k}/evaluate"]
        names += [f"iteration_{k}/votes"] if config.evaluate.votes else []
    return names


def redo(context: Context, name: str) -> None:
    """Deletes a stage's folder and those of everything that follows from it.

    Raises:
      ValueError: there is no such stage.
    """
    names = stage_folders(context)
    if name not in names:
        raise ValueError(f"--redo: there is no stage {name!r}; choose from: {', '.join(names)}")
    hosts.on_first(lambda: _delete(context, name, names))


def _delete(context: Context, name: str, names: list[str]) -> None:
    leaf = name.endswith(("evaluate", "votes"))
    # The last first: what a kill leaves was made from what is still there.
    for doomed in [name] if leaf else reversed(names[names.index(name) :]):
        folder = context.workdir / doomed
        remove(folder)
        if doomed.endswith("/prefer"):
            prefer.undo(folder.parent)
        elif doomed.endswith(("/train", "/evaluate")):
            remove(folder.parent / ("model" if doomed.endswith("/train") else "votes"))


@contextlib.contextmanager
def exclusive(workdir: epath.Path) -> Iterator[None]:
    """Makes the workdir and holds it for this process and those of its run on other hosts.

    Raises:
      ValueError: another run works in it, or it cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / f".writable.{hosts.index()}.{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"workdir {workdir} cannot be written ({error.strerror}); choose another --workdir"
        ) from error
    lock = filelock.FileLock(str(workdir / ".lock"), timeout=0)
    try:
        with lock if hosts.is_first() else contextlib.nullcontext():
            hosts.barrier()
            yield
    except filelock.Timeout as error:
        raise ValueError(
            f"another run works in {workdir}; wait for it, or give this one another --workdir"
        ) from error


# ---- summary ------------------------------------------------------------------


def report(context: Context) -> dict[str, Any]:
    """Writes summary.json and report.html of what is finished, and returns the summary; see `run`."""
    if not hosts.is_first():
        return {}
    judgments = _judgments(context)
    summary = summarize(context, judgments)
    write_atomically(
        context.workdir / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
    )
    write_report(summary, _sampled_judgments(context, judgments), context.workdir / "report.html")
    return summary


def _judgments(context: Context) -> dict[int, list[Judgment]]:
    """Returns the judgments of the annotations that are finished, by iteration."""
    done = range(1, context.config.iterations + 1)
    names = {k: f"iteration_{k}/annotate" for k in done}
    return {k: _read(context, name, Judgment) for k, name in names.items() if _success(context, name)}


def summarize(context: Context, judgments: dict[int, list[Judgment]]) -> dict[str, Any]:
    """Returns the summary of what is finished; `judgments` are those of its annotations, by iteration."""
    config = context.config
    selected, paired = _success(context, "select"), _success(context, "pairs")
    labels = selected.summary if selected else {"funnel": [], "categories": {}, "labels": {}}
    done = range(1, config.iterations + 1)
    made = _read(context, "pairs", Pair) if paired else []
    splits = pairs.split(config, made) if paired else None
    yields = {k: annotate.yield_of(context, found, made) for k, found in judgments.items()}
    seconds, tokens = _costs(context)
    return {
        "title": config.name,
        "model": context.seed_model.name,
        "seed": config.seed,
        "config_hash": digest(dataclasses.asdict(config)),
        "versions": versions(),
        "models": _models(context, splits, yields) if splits else [],
        **{name: labels[name] for name in ("funnel", "categories", "labels")},
        "pairs": _pairs(paired, splits) if paired and splits else {},
        "yields": [_yield(context, k, report) for k, report in yields.items()],
        "training": [
            row for k in done for stage in ("train", "prefer") if (row := _training(context, k, stage))
        ],
        "seconds": seconds,
        "tokens": tokens,
        "total_seconds": sum(seconds.values()),
        "peak_rss_mib": _peak_rss_mib(context),
    }


def _pairs(paired: Success, splits: pairs.Splits) -> dict[str, Any]:
    return {**paired.summary, "splits": {name: len(part) for name, part in vars(splits).items()}}


def _models(context: Context, splits: pairs.Splits, yields: dict[int, dict]) -> list[dict[str, Any]]:
    """Returns the numbers of every evaluated model, the seed first.

    `judgments`, `parsed` and `kept` count the annotation that the model was trained on: none for the seed.
    """
    models, seed = [], None
    for k in range(context.config.iterations + 1):
        if not _success(context, f"iteration_{k}/evaluate"):
            continue
        numbers = evaluate.finished(context, k, splits)
        greedy = evaluate.greedy_evaluation(context, k, splits)
        seed = greedy if k == 0 else seed
        made = yields.get(k, {"judgments": 0, "parse_rate": 0.0, "kept": 0})
        models.append(
            {
                "iteration": k,
                **numbers,
                "p_value_vs_seed": paired_test(seed, greedy, seed=context.config.seed).p_value
                if k and seed
                else None,
                "judgments": made["judgments"],
                "parsed": round(made["judgments"] * (made["parse_rate"] or 0.0)),
                "kept": made["kept"],
            }
        )
    return models


def _yield(context: Context, iteration: int, report: dict[str, Any]) -> dict[str, Any]:
    """Returns the yield of an iteration with plain counts."""
    success = require_success(context.iteration(iteration) / "annotate")
    judgments, histogram = report["judgments"], report["correct_histogram"]
    return {
        "iteration": iteration,
        **report,
        "too_long": len(success.summary["too_long"]),
        "parsed": round(judgments * (report["parse_rate"] or 0.0)),
        "forced": round(judgments * (report["forced"] or 0.0)),
        "correct_histogram": [
            histogram.get(str(n), 0) for n in range(max(map(int, histogram), default=0) + 1)
        ],
        "kept_verdicts": report["verdicts_kept"],
        "kept_before_balance": report["examples_correct"],
    }


def _training(context: Context, iteration: int, stage: str) -> dict[str, Any] | None:
    folder = context.iteration(iteration) / stage
    if not (success := read_success(folder)):
        return None
    steps = [line for line in read_metrics(folder) if "loss" in line]
    return {**success.summary, "method": success.fingerprint["config"]["train"]["method"], "steps": steps}


def _costs(context: Context) -> tuple[dict[str, float], dict[str, dict[str, int]]]:
    """Returns seconds and tokens by kind of stage, over all iterations and processes."""
    seconds: dict[str, float] = {}
    tokens: dict[str, dict[str, int]] = {}
    for name in stage_folders(context):
        folder = context.workdir / name
        if not folder.exists():
            continue
        work = read_work(folder)
        kind = name.split("/")[-1].replace("votes", "evaluate")
        seconds[kind] = round(seconds.get(kind, 0.0) + work.seconds, 1)
        counts = tokens.setdefault(kind, {"prompt": 0, "generated": 0})
        counts["prompt"] += work.prompt_tokens
        counts["generated"] += work.generated_tokens
    return seconds, tokens


def _peak_rss_mib(context: Context) -> float:
    """Returns the peak resident memory of this process, or of an earlier one of this run if that was
    higher.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    path = context.workdir / "summary.json"
    before = json.loads(path.read_text())["peak_rss_mib"] if path.exists() else 0.0
    return round(max(now, before), 1)


def _sampled_judgments(context: Context, judgments: dict[int, list[Judgment]]) -> list[SampledJudgment]:
    """Returns judgments to show: a seeded draw from all annotations."""
    if not _success(context, "pairs"):
        return []
    by_id = {pair.id: pair for pair in _read(context, "pairs", Pair)}
    found = [SampledJudgment(k, by_id[j.pair_id], j) for k, made in judgments.items() for j in made]
    draw = generator(context.config.seed, "report").permutation(len(found))[:_SHOWN_JUDGMENTS]
    return [found[i] for i in sorted(draw)]
