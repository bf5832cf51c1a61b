"""The summary of what a run has finished: summary.json, and the report that is drawn from it."""

import dataclasses
import json
import resource
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from ste_jax.metrics.stats import Metrics, paired_test
from ste_jax.pairs.splits import Splits
from ste_jax.randomness import generator
from ste_jax.records import Comparison, Judgment
from ste_jax.report.advice import advice
from ste_jax.report.disagreements import Disagreements, disagreements
from ste_jax.report.page import SampledJudgment, write_report
from ste_jax.run_file import NAME as RUN_FILE
from ste_jax.run_file import read_run
from ste_jax.stages import evaluate, pairs
from ste_jax.stages.context import Context
from ste_jax.storage.files import digest, read_json, write_atomically
from ste_jax.storage.readers import read_records, read_some
from ste_jax.storage.record_set import read_work
from ste_jax.storage.success import Success, read_success
from ste_jax.training.metrics import read_metrics
from ste_jax.versions import versions

_SHOWN_JUDGMENTS = 10


def write(context: Context, folders: Sequence[str]) -> dict[str, Any]:
    """Writes summary.json and report.html of the finished stages, and returns the summary.

    No model is opened, so the files can be written where the models of the run are missing.

    Args:
      context: the run.
      folders: folders of all stages, in order.
    """
    splits = None
    if _success(context, "pairs"):
        splits = pairs.split(
            context.config, read_records(context.workdir / "pairs", Comparison), context.named
        )
    summary = _summarize(context, folders, splits)
    summary["advice"] = advice(summary)
    write_atomically(
        context.workdir / "summary.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n"
    )
    samples, differing = _sampled_judgments(context, splits), _disagreements(context, splits)
    write_report(summary, samples, context.workdir / "report.html", differing)
    return summary


def _success(context: Context, name: str) -> Success | None:
    return read_success(context.workdir / name)


def _summarize(context: Context, folders: Sequence[str], splits: Splits | None) -> dict[str, Any]:
    config = context.config
    selected, paired = _success(context, "select"), _success(context, "pairs")
    chosen = selected.summary if selected else {"funnel": [], "categories": {}, "labels": {}}
    done = range(1, config.iterations + 1)
    yields = {k: row for k in done if (row := _yield(context, k))}
    seconds, tokens = _costs(context, folders)
    return {
        "title": config.name,
        "model": chosen.get("model", config.model),
        "seed": config.seed,
        "objective": config.train.objective,
        "pointwise": context.prompt.is_pointwise,
        "max_new_tokens": config.annotate.max_new_tokens,
        "config_hash": digest(dataclasses.asdict(config)),
        **_origin(context),
        "versions": versions(),
        "models": _models(context, splits, yields),
        **{name: chosen[name] for name in ("funnel", "categories", "labels")},
        "columns_left_out": chosen.get("columns_left_out", []),
        "pairs": {**paired.summary, "splits": {name: len(part) for name, part in vars(splits).items()}}
        if paired and splits
        else {},
        "yields": list(yields.values()),
        "training": [
            row for k in done for stage in ("train", "prefer") if (row := _training(context, k, stage))
        ],
        "seconds": seconds,
        "tokens": tokens,
        "total_seconds": sum(seconds.values()),
        "peak_rss_mib": _peak_rss_mib(context),
    }


def _origin(context: Context) -> dict[str, str]:
    """Returns the shell commands that make the run again, and the commit; "" if they are not known."""
    known = read_run(context.workdir) if (context.workdir / RUN_FILE).exists() else {}
    command, folder = str(known.get("command", "")), str(known.get("folder", ""))
    again = f"cd {shlex.quote(folder)}\n{command}" if command else ""
    return {"command": again, "commit": str(known.get("commit", ""))}


def _models(context: Context, splits: Splits | None, yields: dict[int, dict]) -> list[dict[str, Any]]:
    """Returns the numbers of every evaluated model, the seed first.

    `judgments`, `parsed` and `kept` count the annotation that the model was trained on: none for the seed.
    """
    if splits is None:
        return []
    models = []
    parts = {"test": splits.test, "labelled": splits.labelled}
    seed: dict[str, Metrics | None] = dict.fromkeys(parts)
    for k in _evaluated(context):
        numbers = evaluate.finished(context, k, splits)
        greedy = {name: evaluate.greedy_evaluation(context, k, pairs) for name, pairs in parts.items()}
        seed = greedy if k == 0 else seed
        tests = {name: _tests(context.config.seed, seed[name], greedy[name] if k else None) for name in parts}
        if numbers["labelled"]:
            numbers["labelled"] |= tests["labelled"]
        made = yields.get(k, {"judgments": 0, "parsed": 0, "kept": 0})
        made = {name: made[name] for name in ("judgments", "parsed", "kept")}
        models.append({"iteration": k, **numbers, **tests["test"], **made})
    return models


def _evaluated(context: Context) -> list[int]:
    """Returns the iterations whose evaluation is finished; 0 is the seed model."""
    return [k for k in range(context.config.iterations + 1) if _success(context, f"iteration_{k}/evaluate")]


def _disagreements(context: Context, splits: Splits | None) -> Disagreements | None:
    """Returns the decisions of the last evaluated model that differ from the labels."""
    evaluated = _evaluated(context)
    if splits is None or not splits.labelled or not evaluated:
        return None
    return disagreements(evaluated[-1], evaluate.results(context, evaluated[-1], splits.labelled))


def _tests(draws: int, seed: Metrics | None, trained: Metrics | None) -> dict[str, float | None]:
    """Returns the p-values of verdicts and pooled decisions of a trained model; None without one."""
    tests = {"p_value_vs_seed": False, "p_value_pooled_vs_seed": True}
    if seed is None or trained is None:
        return dict.fromkeys(tests)
    return {
        name: paired_test(seed, trained, seed=draws, pooled=pooled).p_value for name, pooled in tests.items()
    }


def _yield(context: Context, iteration: int) -> dict[str, Any] | None:
    """Returns the yield of an iteration: of its training, if that is finished, else of its annotation."""
    annotated = _success(context, f"iteration_{iteration}/annotate")
    if not annotated:
        return None
    trained = _success(context, f"iteration_{iteration}/train")
    report = (trained or annotated).summary["yield"]
    if "parse_rate" in report:  # Runs of earlier versions have shares.
        counts = {"parsed": report["parse_rate"], "forced": report["forced"]}
        report = report | {n: round(report["judgments"] * (share or 0.0)) for n, share in counts.items()}
    histogram = report["correct_histogram"]
    return {
        "iteration": iteration,
        **report,
        "too_long": len(annotated.summary["too_long"]),
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
    return {**success.summary, "method": success.fingerprint["config"][stage]["objective"], "steps": steps}


def _costs(context: Context, folders: Sequence[str]) -> tuple[dict[str, float], dict[str, dict[str, int]]]:
    """Returns seconds and tokens by kind of stage, over all iterations and processes."""
    seconds: dict[str, float] = {}
    tokens: dict[str, dict[str, int]] = {}
    for name in folders:
        folder = context.workdir / name
        if not folder.exists():
            continue
        work = read_work(folder)
        kind = name.split("/")[-1]
        kind = "evaluate" if kind in ("votes", "probes") else kind
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
    before = read_json(path, "delete it: it is written again")["peak_rss_mib"] if path.exists() else 0.0
    return round(max(now, before), 1)


def _sampled_judgments(context: Context, splits: Splits | None) -> list[SampledJudgment]:
    """Returns judgments to show: a seeded draw from all annotations."""
    if splits is None:
        return []
    by_id = {pair.id: pair for part in vars(splits).values() for pair in part}
    done = range(1, context.config.iterations + 1)
    counts = {k: s.count for k in done if (s := _success(context, f"iteration_{k}/annotate"))}
    draw = generator(context.config.seed, "report").permutation(sum(counts.values()))[:_SHOWN_JUDGMENTS]
    shown, before = [], 0
    for k, count in counts.items():
        indices = [int(index) - before for index in draw if before <= index < before + count]
        judgments = read_some(context.iteration(k) / "annotate", Judgment, indices)
        shown += [SampledJudgment(k, by_id[j.pair_id], j) for j in judgments]
        before += count
    return shown
