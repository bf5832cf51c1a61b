"""Runs a configuration with several seeds, evaluates every model on sets of labelled pairs, and prints the
tables of docs/RESULTS.md.

  python scripts/study.py --config=pairwise_judge --workdir=study --model=MODEL --seeds=0,1,2 \\
      --pairs=pandalm.jsonl,mtbench.jsonl -- --config.instructions=prompts.jsonl

Arguments after `--` are passed to `ste run`. An interrupted command continues when it is repeated. With
`--tables` nothing is run, and the tables of the existing results are printed.
"""

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ste_jax.evaluation.numbers import judged
from ste_jax.evaluation.result import read_result
from ste_jax.metrics.length import length_balance
from ste_jax.metrics.policy import WRONG
from ste_jax.metrics.stats import (
    bootstrap_interval,
    difference_interval,
    evaluate_judgments,
    scores_of,
    sign_flip_test,
)
from ste_jax.records import ComparisonResult
from ste_jax.report.formats import interval, model_name, p_value, percent, signed

STE = [sys.executable, "-c", "from ste_jax.cli import command; command()"]
SEED_MODEL = "seed"


def main() -> None:
    """Runs the missing parts and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="small_judge", help="configuration of the runs")
    parser.add_argument("--prompt", default="verdict", help="judge prompt of the configuration")
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--model", help="seed model: value of --config.model")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--iterations", default="1,2,3", help="iterations whose models are evaluated")
    parser.add_argument("--pairs", default="", help="files of labelled pairs, separated by commas")
    parser.add_argument(
        "--limit", type=int, default=0, help="comparisons of each file, drawn by prompt; 0: all"
    )
    parser.add_argument("--tables", action="store_true", help="print the tables only")
    parser.add_argument("flags", nargs="*", help="flags of ste run")
    a = parser.parse_args()
    seeds, iterations = ([int(n) for n in text.split(",")] for text in (a.seeds, a.iterations))
    files = [Path(name) for name in a.pairs.split(",") if name]
    if not a.tables:
        if not a.model:
            parser.error("--model is missing: the seed model is evaluated, too")
        run(a, seeds, iterations, files)
    held_out = [json.loads(path.read_text()) for s in seeds if (path := summary(a.workdir, s)).exists()]
    print_held_out(held_out)
    outside = [found for file in files if (found := read_outside(a.workdir, file, seeds, iterations))]
    if outside:
        print_outside(outside, iterations)
    if held_out or outside:
        draw(held_out, outside, a.workdir / "study.png")


def summary(workdir: Path, seed: int) -> Path:
    """Returns the path of the summary of the run of a seed."""
    return workdir / f"seed{seed}" / "summary.json"


def result(workdir: Path, file: Path, model: str) -> Path:
    """Returns the path of the result file of a model on a file of pairs."""
    return workdir / "outside" / file.stem / f"{model}.jsonl"


def run(
    a: argparse.Namespace, seeds: Sequence[int], iterations: Sequence[int], files: Sequence[Path]
) -> None:
    """Trains with every seed, and evaluates every model on every file; stops at the first failure."""
    for seed in seeds:
        workdir = a.workdir / f"seed{seed}"
        flags = [f"--config={a.config}", f"--workdir={workdir}", f"--config.seed={seed}"]
        flags.append(f"--config.model={a.model}")
        subprocess.run([*STE, "run", *flags, *a.flags], check=True)
    models = {SEED_MODEL: a.model}
    models |= {f"seed{s}-{k}": a.workdir / f"seed{s}/iteration_{k}/model" for s in seeds for k in iterations}
    for file in files:
        for name, model in models.items():
            out = result(a.workdir, file, name)
            out.parent.mkdir(parents=True, exist_ok=True)
            options = [f"--prompt={a.prompt}", "--max_new_tokens=0", "--force_verdict", f"--limit={a.limit}"]
            flags = [f"--model={model}", f"--data={file}", f"--out={out}", *options]
            subprocess.run([*STE, "evaluate", *flags], check=True)


def print_held_out(summaries: Sequence[dict[str, Any]]) -> None:
    """Prints a row per seed and model with its numbers on the held-out pairs."""
    head = (
        "seed",
        "model",
        "pairs",
        "accuracy",
        "right in both orders",
        "flips",
        "says A",
        "kept",
        "p vs seed",
        "pooled",
        "p of pooled vs seed",
    )
    rows = [
        (
            summary_["seed"],
            model_name(m["iteration"]),
            m["n"],
            f"{percent(m['accuracy'])} {interval(m['interval95'])}",
            f"{percent(m['consistent_accuracy'])} {interval(m['consistent_interval95'])}",
            percent(m["flip_rate"]),
            percent(m["first_preference"]),
            m["kept"] or "",
            p_value(m["p_value_vs_seed"]),
            f"{percent(m['accuracy_pooled'])} {interval(m['pooled_interval95'])}",
            p_value(m.get("p_value_pooled_vs_seed")),
        )
        for summary_ in summaries
        for m in summary_["models"]
    ]
    print_table(head, rows)


def print_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints a Markdown table."""
    print(
        "", *("| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows)), sep="\n"
    )


def read_outside(
    workdir: Path, file: Path, seeds: Sequence[int], iterations: Sequence[int]
) -> dict[str, Any] | None:
    """Returns the numbers of a file for the seed model, and for each iteration over all seeds.

    None if there is no result of the seed model. The score of a pair in an iteration is the mean over the
    models of all seeds.
    """
    first = result(workdir, file, SEED_MODEL)
    if not first.exists():
        return None
    before = {p.id: p for p in judged(read_result(first), WRONG) if p.comparison.label != "tie"}
    found = evaluate_judgments(list(before.values()), seed=0).to_json()
    rows: dict[int, dict[str, Any]] = {}
    for k in iterations:
        paths = [path for s in seeds if (path := result(workdir, file, f"seed{s}-{k}")).exists()]
        after = [{p.id: p for p in judged(read_result(path), WRONG)} for path in paths]
        if after:
            rows[k] = against(before, after)
    return {"name": file.stem, "seed": found, "iterations": rows} if rows else None


def against(
    before: dict[str, ComparisonResult], after: Sequence[dict[str, ComparisonResult]]
) -> dict[str, Any]:
    """Returns accuracies, and the paired difference to the seed model, over prompts."""
    ids = sorted(before)
    scores = np.array(
        [[scores_of(results[id_], WRONG) for id_ in ids] for results in after]
    )  # [models, pairs, orders]
    consistent = (scores.min(axis=2) == 1.0).mean(axis=0)  # [pairs]
    old = np.array([scores_of(before[id_], WRONG) for id_ in ids])
    clusters = [before[id_].comparison.cluster for id_ in ids]
    change = scores.mean(axis=(0, 2)) - old.mean(axis=1)
    both = consistent - (old.min(axis=1) == 1.0)
    judges = [evaluate_judgments([results[id_] for id_ in ids], seed=0) for results in after]
    longer = [judge.longer_preference or 0.0 for judge in judges]
    pooled = np.array([[judge.pooled_scores[id_] for id_ in ids] for judge in judges]).mean(axis=0)
    balances = [length_balance(list(results.values()), WRONG, seed=0)["pooled"] for results in after]
    return {
        "accuracy_pooled": pooled.mean(),
        "pooled_interval95": bootstrap_interval(pooled, clusters, seed=0),
        "length_balanced": [balance["accuracy"] for balance in balances],
        "accuracy": scores.mean(),
        "interval95": bootstrap_interval(scores.mean(axis=(0, 2)), clusters, seed=0),
        "consistent_accuracy": consistent.mean(),
        "consistent_interval95": bootstrap_interval(consistent, clusters, seed=0),
        "longer": float(np.mean(longer)),
        "change": change.mean(),
        "interval": difference_interval(change, clusters, seed=0),
        "p": sign_flip_test(change, clusters, seed=0),
        "p_consistent": sign_flip_test(both, clusters, seed=0),
    }


def print_outside(outside: Sequence[dict[str, Any]], iterations: Sequence[int]) -> None:
    """Prints a row per file; change and tests compare the last iteration with the seed model."""
    head = ["set", "pairs", "longer wins", SEED_MODEL, *map(model_name, iterations), "change", "p"]
    head += ["both orders, seed", "last", "p", "prefers the longer, last"]
    head += ["pooled, seed", "pooled, last", "length-balanced, last"]
    rows = []
    for row in outside:
        seed, after = row["seed"], row["iterations"]
        last = after[max(after)]
        rows.append(
            [
                *(row["name"], seed["n"], percent(seed["longer_correct"]), percent(seed["accuracy"])),
                *(percent(after[k]["accuracy"]) if k in after else "" for k in iterations),
                *(f"{signed(100 * last['change'])} {interval(last['interval'])}", p_value(last["p"])),
                *(percent(seed["consistent_accuracy"]), percent(last["consistent_accuracy"])),
                *(p_value(last["p_consistent"]), percent(last["longer"]), percent(seed["accuracy_pooled"])),
                f"{percent(last['accuracy_pooled'])} {interval(last['pooled_interval95'])}",
                ", ".join(percent(share) for share in last["length_balanced"]),
            ]
        )
    print_table(head, rows)


def draw(held_out: Sequence[dict[str, Any]], outside: Sequence[dict[str, Any]], path: Path) -> None:
    """Plots validation accuracy during training, and accuracies with the intervals of the tables."""
    rows = {
        f"held-out, seed {run_['seed']}": {m["iteration"]: m for m in run_["models"]} for run_ in held_out
    }
    rows |= {row["name"]: {0: row["seed"], **row["iterations"]} for row in outside}
    figure = Figure(figsize=(11, 0.5 * len(rows) + 2.5), layout="constrained")
    learning, accuracy, consistent = figure.subplots(1, 3)
    draw_learning(learning, held_out)
    draw_shares(accuracy, list(rows.values()), "accuracy", "interval95")
    draw_shares(consistent, list(rows.values()), "consistent_accuracy", "consistent_interval95")
    learning.set_title("accuracy on validation pairs")
    accuracy.axvline(0.5, color="grey", linewidth=0.5)
    accuracy.set_title("accuracy, both orders")
    accuracy.set_yticks(range(len(rows)), list(rows))
    consistent.set_title("right in both orders")
    consistent.set_yticks([])
    marks = dict(zip(*reversed(consistent.get_legend_handles_labels()), strict=True))
    consistent.legend(marks.values(), marks.keys(), frameon=False)
    for axes in (learning, accuracy, consistent):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def draw_learning(axes: Axes, held_out: Sequence[dict[str, Any]]) -> None:
    """Draws a line per seed and iteration."""
    for run_, line in zip(held_out, itertools.cycle(("-", "--", ":"))):
        for training in run_["training"]:
            steps, values = zip(*((e["step"], e["accuracy"]) for e in training["evaluations"]), strict=True)
            k = training["iteration"]
            name = f"seed {run_['seed']}, {model_name(k)}"
            axes.plot(steps, values, marker=".", color=f"C{k}", linestyle=line, label=name)
    axes.set_xlabel("training step")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.legend(frameon=False)


def draw_shares(axes: Axes, rows: Sequence[dict[int, dict[str, Any]]], share: str, interval95: str) -> None:
    """Draws a row per set with a mark for the model of every iteration, with its interval."""
    for row, models in enumerate(rows):
        for k, numbers in sorted(models.items()):
            height, color = row + 0.18 * k, f"C{k}" if k else "grey"
            axes.plot(numbers[interval95], [height] * 2, color=color)
            axes.plot(numbers[share], height, "o", color=color, markersize=4, label=model_name(k))
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))


if __name__ == "__main__":
    main()
