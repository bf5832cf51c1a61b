"""Does the method improve the judge? Runs configs/small_judge.py with several seeds, asks every model about
sets of labelled pairs, and prints the tables of docs/RESULTS.md.

  python scripts/study.py --workdir=study --model=MODEL --seeds=0,1,2 \\
      --pairs=pandalm.jsonl,mtbench.jsonl -- --config.instructions=prompts.jsonl

What follows `--` goes to `ste run`. Everything is resumable: the same command goes on where it was. With
`--tables` nothing is run, and what is there is put into tables.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ste_jax.evaluation.numbers import judged
from ste_jax.evaluation.result import read_result
from ste_jax.judging.stats import (
    WRONG,
    JudgedPair,
    difference_interval,
    evaluate_judgments,
    sign_flip_test,
)
from ste_jax.report.formats import interval, model_name, p_value, percent, signed

STE = [sys.executable, "-c", "from ste_jax.cli import command; command()"]
CONFIG = Path(__file__).parents[1] / "configs" / "small_judge.py"
SEED_MODEL = "seed"


def main() -> None:
    """Runs what is missing, and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--model", help="the seed model, as it is given to the runs")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--iterations", default="1,2,3", help="of which the models are asked about the pairs")
    parser.add_argument("--pairs", default="", help="files of labelled pairs, by commas")
    parser.add_argument("--limit", type=int, default=0, help="prompts of each file, drawn at random; 0: all")
    parser.add_argument("--tables", action="store_true", help="runs nothing")
    parser.add_argument("flags", nargs="*", help="for ste run")
    a = parser.parse_args()
    seeds, iterations = ([int(n) for n in text.split(",")] for text in (a.seeds, a.iterations))
    files = [Path(name) for name in a.pairs.split(",") if name]
    if not a.tables:
        if not a.model:
            parser.error("--model is missing: the seed model is asked about the pairs too")
        run(a, seeds, iterations, files)
    held_out = [json.loads(path.read_text()) for s in seeds if (path := summary(a.workdir, s)).exists()]
    print_held_out(held_out)
    outside = [found for file in files if (found := read_outside(a.workdir, file, seeds, iterations))]
    if outside:
        print_outside(outside, iterations)
        draw(outside, iterations, a.workdir / "study.png")


def summary(workdir: Path, seed: int) -> Path:
    """Returns where the run of a seed leaves its numbers."""
    return workdir / f"seed{seed}" / "summary.json"


def result(workdir: Path, file: Path, model: str) -> Path:
    """Returns where the judgments of a model on a file of pairs are."""
    return workdir / "outside" / file.stem / f"{model}.jsonl"


def run(
    a: argparse.Namespace, seeds: Sequence[int], iterations: Sequence[int], files: Sequence[Path]
) -> None:
    """Trains with every seed, and asks every model about every file; ends with the first failure."""
    for seed in seeds:
        workdir = a.workdir / f"seed{seed}"
        flags = [f"--config={CONFIG}", f"--workdir={workdir}", f"--config.seed={seed}"]
        flags.append(f"--config.model={a.model}")
        subprocess.run([*STE, "run", *flags, *a.flags], check=True)
    models = {SEED_MODEL: a.model}
    models |= {f"seed{s}-{k}": a.workdir / f"seed{s}/iteration_{k}/model" for s in seeds for k in iterations}
    for file in files:
        for name, model in models.items():
            out = result(a.workdir, file, name)
            out.parent.mkdir(parents=True, exist_ok=True)
            asked = ["--prompt=verdict", "--max_new_tokens=0", "--force_verdict", f"--limit={a.limit}"]
            flags = [f"--model={model}", f"--data={file}", f"--out={out}", *asked]
            subprocess.run([*STE, "evaluate", *flags], check=True)


def print_held_out(summaries: Sequence[dict[str, Any]]) -> None:
    """Prints a row a seed and model: the pairs that were made beside those trained on."""
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
    )
    rows = [
        (
            one["seed"],
            model_name(m["iteration"]),
            m["n"],
            f"{percent(m['accuracy'])} {interval(m['interval95'])}",
            f"{percent(m['consistent_accuracy'])} {interval(m['consistent_interval95'])}",
            percent(m["flip_rate"]),
            percent(m["first_preference"]),
            m["kept"] or "",
            p_value(m["p_value_vs_seed"]),
        )
        for one in summaries
        for m in one["models"]
    ]
    print_table(head, rows)


def print_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints Markdown."""
    print(
        "", *("| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows)), sep="\n"
    )


def read_outside(
    workdir: Path, file: Path, seeds: Sequence[int], iterations: Sequence[int]
) -> dict[str, Any] | None:
    """Returns the numbers of a file: of the seed model, and of each iteration over all seeds.

    None if nobody has been asked about it. An iteration's score of a pair is the mean over its models, one a
    seed.
    """
    first = result(workdir, file, SEED_MODEL)
    if not first.exists():
        return None
    before = {p.pair_id: p for p in judged(read_result(first), WRONG) if p.label != "tie"}
    found = evaluate_judgments(list(before.values()), seed=0)
    rows: dict[int, dict[str, Any]] = {}
    for k in iterations:
        paths = [path for s in seeds if (path := result(workdir, file, f"seed{s}-{k}")).exists()]
        after = [{p.pair_id: p for p in judged(read_result(path), WRONG)} for path in paths]
        if after:
            rows[k] = against(before, after)
    return {"name": file.stem, "seed": found, "iterations": rows} if rows else None


def against(before: dict[str, JudgedPair], after: Sequence[dict[str, JudgedPair]]) -> dict[str, Any]:
    """Returns accuracies, and the paired difference to the seed model, over prompts."""
    ids = sorted(before)
    scores = np.array([[one[id_].scores(WRONG) for id_ in ids] for one in after])  # [models, pairs, orders]
    old = np.array([before[id_].scores(WRONG) for id_ in ids])
    clusters = [before[id_].cluster for id_ in ids]
    change = scores.mean(axis=(0, 2)) - old.mean(axis=1)
    both = (scores.min(axis=2) == 1.0).mean(axis=0) - (old.min(axis=1) == 1.0)
    longer = [evaluate_judgments([one[id_] for id_ in ids], seed=0).longer_preference or 0.0 for one in after]
    return {
        "accuracy": scores.mean(),
        "each": scores.mean(axis=(1, 2)).tolist(),
        "consistent": (scores.min(axis=2) == 1.0).mean(),
        "longer": float(np.mean(longer)),
        "change": change.mean(),
        "interval": difference_interval(change, clusters, seed=0),
        "p": sign_flip_test(change, clusters, seed=0),
        "p_consistent": sign_flip_test(both, clusters, seed=0),
    }


def print_outside(outside: Sequence[dict[str, Any]], iterations: Sequence[int]) -> None:
    """Prints a row a file; change and tests are those of the last iteration against the seed model."""
    head = ["set", "pairs", "longer wins", SEED_MODEL, *map(model_name, iterations), "change", "p"]
    head += ["both orders, seed", "last", "p", "prefers the longer, last"]
    rows = []
    for one in outside:
        seed, after = one["seed"], one["iterations"]
        last = after[max(after)]
        rows.append(
            [
                *(one["name"], seed.n, percent(seed.longer_correct), percent(seed.accuracy)),
                *(percent(after[k]["accuracy"]) if k in after else "" for k in iterations),
                *(f"{signed(100 * last['change'])} {interval(last['interval'])}", p_value(last["p"])),
                *(percent(seed.consistent_accuracy), percent(last["consistent"])),
                *(p_value(last["p_consistent"]), percent(last["longer"])),
            ]
        )
    print_table(head, rows)


def draw(outside: Sequence[dict[str, Any]], iterations: Sequence[int], path: Path) -> None:
    """Plots the accuracy of every model by set and iteration."""
    figure = Figure(figsize=(9, 0.45 * len(outside) + 1.5), layout="constrained")
    axes = figure.subplots()
    for row, one in enumerate(outside):
        axes.plot(one["seed"].accuracy, row, "o", color="grey", label=None if row else "seed")
        for k in iterations:
            each = one["iterations"].get(k, {}).get("each", [])
            label = None if row else f"iteration {k}"
            axes.plot(each, [row - 0.15 * k] * len(each), "|", color=f"C{k}", markersize=9, label=label)
    axes.axvline(0.5, color="grey", linewidth=0.5)
    axes.set_yticks(range(len(outside)), [one["name"] for one in outside])
    axes.set_xlabel("accuracy, mean of both orders; a mark for every seed")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
