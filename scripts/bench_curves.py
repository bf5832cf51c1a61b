"""Measures time and memory of a sample over samples per prompt, prompt length, and prompts in flight.

  python scripts/bench_curves.py --model=MODEL --out=FOLDER

Each point runs `bench_decode.py` in a separate process (float32, 32 new tokens per sample, the second call is
timed). Writes `curves.csv` and `curves.png` and prints Markdown tables. `counted` is the size of the caches
computed from their shapes: one copy of each prompt and the generated tokens of each sample. `grown` is the
increase of peak memory over the first row, to compare with the increase of `counted`.
"""

import argparse
import csv
import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl
from bench_table import make_prompts

from ste_jax.checkpoint.source import open_model
from ste_jax.models.llama import LlamaConfig

mpl.use("agg")
from matplotlib import pyplot as plt

MIB = 2**20
NEW_TOKENS = 32
# Points (prompts, prompt length, samples) by the name of the quantity that varies.
CURVES = {
    "samples": [(1, 512, n) for n in (1, 2, 4, 8, 16, 32, 64)],
    "prompt length": [(1, n, 16) for n in (128, 256, 512, 1024, 2048, 4096)],
    "prompts in flight": [(n, 256, 4) for n in (1, 2, 4, 8, 16)],
}


def cache_bytes(cfg: LlamaConfig, prompts: int, length: int, samples: int) -> int:
    """Returns the bytes of the caches in float32: each prompt once, and the tokens of each sample."""
    token = 4 * 2 * cfg.num_layers * cfg.num_kv_heads * cfg.head_dim
    return token * prompts * ((length - 1) + samples * NEW_TOKENS)


def measure(model: str, prompts: list[list[int]], samples: int) -> dict:
    """Returns the result of `bench_decode.py` on these prompts."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(prompts, file)
        file.flush()
        script = str(Path(__file__).with_name("bench_decode.py"))
        sizes = [f"--samples={samples}", f"--new-tokens={NEW_TOKENS}"]
        sizes += [f"--sequences={samples * len(prompts)}", "--repeats=1", "--json"]
        command = [sys.executable, script, f"--model={model}", f"--prompts={file.name}", *sizes]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_curve(model: str, cfg: LlamaConfig, curve: str, make) -> list[dict]:
    """Returns the points of a curve."""
    rows: list[dict] = []
    for prompts, length, samples in CURVES[curve]:
        found = measure(model, make(prompts, length), samples)
        (seconds,), made = found["seconds"], prompts * samples
        counted = cache_bytes(cfg, prompts, length, samples) / MIB
        first = rows[0] if rows else {"peak_mib": found["peak_rss_mib"], "counted_mib": counted}
        row = {
            "curve": curve,
            "prompts": prompts,
            "length": length,
            "samples": samples,
            "seconds_per_sample": round(seconds / made, 3),
            "tokens_per_s": found["output_tokens_per_s"],
            "peak_mib": found["peak_rss_mib"],
            "grown_mib": found["peak_rss_mib"] - first["peak_mib"],
            "counted_mib": round(counted, 1),
            "counted_growth_mib": round(counted - first["counted_mib"], 1),
        }
        print(row, file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def plot(rows: list[dict], path: Path) -> None:
    """Plots the time per sample, and the peak memory with the one expected from the size of the caches."""
    axes = {"samples": "samples", "prompt length": "length", "prompts in flight": "prompts"}
    figure, grid = plt.subplots(2, len(CURVES), figsize=(11, 6), sharey="row", layout="constrained")
    for column, (curve, axis) in enumerate(axes.items()):
        points = [row for row in rows if row["curve"] == curve]
        sizes = [p[axis] for p in points]
        counted = [points[0]["peak_mib"] + p["counted_growth_mib"] for p in points]
        grid[0][column].plot(sizes, [p["seconds_per_sample"] for p in points], marker="o")
        grid[1][column].plot(sizes, [p["peak_mib"] for p in points], marker="o", label="measured")
        grid[1][column].plot(sizes, counted, linestyle="--", label="first point plus counted caches")
        for panel in (grid[0][column], grid[1][column]):
            panel.set_xscale("log", base=2)
            panel.set_xticks(sizes, labels=map(str, sizes))
            panel.set_xlabel(curve)
    for row, label in zip(grid, ("seconds per sample", "peak memory, MiB"), strict=True):
        row[0].set_ylabel(label)
        row[0].set_ylim(bottom=0)
    grid[1][0].legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measures the curves and writes the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", type=Path, required=True)
    a = parser.parse_args()

    source = open_model(a.model)

    def make(count: int, length: int) -> list[list[int]]:
        return make_prompts(source.tokenizer, count, length)

    a.out.mkdir(parents=True, exist_ok=True)
    rows = [row for curve in CURVES for row in measure_curve(a.model, source.architecture, curve, make)]
    with (a.out / "curves.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    plot(rows, a.out / "curves.png")
    for _, points in itertools.groupby(rows, lambda row: row["curve"]):
        table = list(points)
        print("\n| " + " | ".join(table[0]) + " |\n|" + "---|" * len(table[0]))
        for row in table:
            print("| " + " | ".join(map(str, row.values())) + " |")


if __name__ == "__main__":
    main()
