"""Times the optimizer step of fine-tuning: rows of one example each, float32, AdamW.

  python scripts/bench_sft.py --model=MODEL --batch=2 --length=1024 --target-fraction=0.25 --steps=5 --json

The last part of each row is its target. The first step compiles and is reported separately; `tokens_per_s`
is the number of tokens of the batch over the median time of the later steps. `limit_tokens_per_s` counts
the needed products (no recomputation, vocabulary for targets only), at the speed of one float32 product of
this model's sizes, which is timed just before.

`--peer=PYTHON` runs `bench_sft_peer.py`, torch and transformers, in that environment with the same model, a
GGUF file, --batch, --length, --target-fraction and --steps, in alternation with itself, `--rounds` times,
each in a separate process, and prints a table of the medians.

`--remat-table` runs itself once for every value of `--remat`, each in a separate process, and prints time
and memory.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import jax
import numpy as np
from machine import product_speed

from ste_jax import options
from ste_jax.checkpoint.source import ModelSource, open_model
from ste_jax.models.llama import LlamaConfig
from ste_jax.plan.cost import attention_flops, matrix_parameters
from ste_jax.records import TrainingExample
from ste_jax.sharding import TRAIN, make_mesh
from ste_jax.training.batch import Batches
from ste_jax.training.settings import Remat, TrainSettings
from ste_jax.training.step import init_state, make_optimizer, put_batch, train_step


def make_batches(settings: TrainSettings, target_fraction: float, vocabulary: int) -> Batches:
    """Returns the batches of random examples that fill a row each."""
    random = np.random.default_rng(0)
    targets = max(1, round(settings.row_length * target_fraction))
    examples = []
    for i in range(settings.batch_rows):
        ids = random.integers(0, vocabulary, settings.row_length).tolist()
        prompt, target = ids[:-targets], ids[-targets:]
        examples.append(
            TrainingExample(id=str(i), pair_id=str(i), order="as_given", prompt=prompt, target=target)
        )
    return Batches(examples, settings, seed=0, iteration=1)


def step_flops(cfg: LlamaConfig, rows: int, length: int, targets: int) -> float:
    """Returns the floating-point operations of the products of a step: forward once, backward twice."""
    logits = 2.0 * cfg.vocab_size * cfg.hidden_size
    forward = length * (2.0 * matrix_parameters(cfg) + attention_flops(cfg, length)) + targets * logits
    return 3.0 * rows * forward


def run_once(command: list[str], a: argparse.Namespace) -> dict:
    """Returns what a script prints that times the same task."""
    same = ("model", "batch", "length", "target_fraction", "steps")
    flags = [part for name in same for part in (f"--{name.replace('_', '-')}", str(getattr(a, name)))]
    done = subprocess.run([*command, *flags], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def own_command(a: argparse.Namespace) -> list[str]:
    """Returns what runs this script once; --remat is still to be added."""
    own = [sys.executable, __file__, f"--loss-chunk={a.loss_chunk}", "--json"]
    return [*own, f"--micro={a.micro}"] if a.micro else own


def print_table(a: argparse.Namespace) -> None:
    """Measures the peer and ourselves by turns, and prints both and the limit in Markdown."""
    peers, ours, script = [], [], Path(__file__).with_name("bench_sft_peer.py")
    for _ in range(a.rounds):
        peers.append(run_once([a.peer, str(script)], a))
        ours.append(run_once([*own_command(a), f"--remat={a.remat}"], a))
    print("| | tokens/s, median | all rounds | of the peer, median of rounds | peak memory MiB |")
    print("|---|---|---|---|---|")
    base = [peer["tokens_per_s"] for peer in peers]
    own_memory, peer_memory = (f"{max(row['peak_rss_mib'] for row in rows):,}" for rows in (ours, peers))
    for name, speeds, memory in (
        (peers[0]["peer"], base, peer_memory),
        (f"`ste_jax`, remat={a.remat}", [own["tokens_per_s"] for own in ours], own_memory),
        ("limit of the products", [own["limit_tokens_per_s"] for own in ours], ""),
    ):
        share = statistics.median(speed / peer for speed, peer in zip(speeds, base, strict=True))
        rounds = ", ".join(f"{speed:.0f}" for speed in speeds)
        print(f"| {name} | {statistics.median(speeds):.0f} | {rounds} | {share:.2f} | {memory} |")


def print_remat_table(a: argparse.Namespace) -> None:
    """Measures every rematerialisation policy and prints time and memory in Markdown."""
    print("| `remat` | s a step, median | all steps | tokens/s | peak memory MiB |\n|---|---|---|---|---|")
    for remat in get_args(Remat):
        row = run_once([*own_command(a), f"--remat={remat}"], a)
        steps = ", ".join(map(str, row["step_s"]))
        print(
            f"| {remat} | {statistics.median(row['step_s']):.2f} | {steps} | {row['tokens_per_s']} | "
            f"{row['peak_rss_mib']:,} |",
            flush=True,
        )


def time_steps(
    source: ModelSource, settings: TrainSettings, target_fraction: float, steps: int
) -> list[float]:
    """Returns the seconds of 1 + `steps` steps; the first one compiles."""
    mesh = make_mesh((1, 1, 1))
    batches = make_batches(settings, target_fraction, source.architecture.vocab_size)
    seconds = []
    with jax.set_mesh(mesh):
        llama = source.load(TRAIN, mesh, param_dtype=settings.param_dtype, dtype=settings.dtype)
        state = init_state(llama, make_optimizer(settings, 1 + steps))
        del llama
        for _ in range(1 + steps):
            start = time.perf_counter()
            batch = put_batch(batches.batch(0), TRAIN, mesh)
            state, values = train_step(state, batch, settings=settings, total_steps=1 + steps)
            jax.block_until_ready((state, values))
            seconds.append(time.perf_counter() - start)
            assert np.isfinite(float(values["loss"]))
    return seconds


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--micro", type=int, help="rows of a micro-batch; default: --batch")
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--target-fraction", type=float, default=0.25)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--remat", choices=get_args(Remat), default="dots")
    parser.add_argument("--loss-chunk", type=int, default=256)
    parser.add_argument(
        "--peer", metavar="PYTHON", help="Python of an environment with torch; also measures the peer"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of --peer")
    parser.add_argument(
        "--remat-table", action="store_true", help="print time and memory for every value of --remat"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    a = parser.parse_args()

    if a.remat_table:
        print_remat_table(a)
        return
    if a.peer:
        print_table(a)
        return
    options.restart_with_options()  # not before: a peer has the environment that the user gave
    settings = TrainSettings(
        learning_rate=1e-6,
        batch_rows=a.batch,
        micro_rows=a.micro or a.batch,
        row_length=a.length,
        remat=a.remat,
        loss_chunk=a.loss_chunk,
    )
    source = open_model(a.model)
    cfg = source.architecture
    speed = product_speed(a.batch * a.length, cfg.hidden_size, cfg.intermediate_size)
    flops = step_flops(cfg, a.batch, a.length, round(a.length * a.target_fraction))
    first, *seconds = time_steps(source, settings, a.target_fraction, a.steps)
    result = {
        "tokens_per_s": round(a.batch * a.length / statistics.median(seconds), 1),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "first_step_s": round(first, 2),
        "limit_tokens_per_s": round(a.batch * a.length / (flops / speed), 1),
        "product_gflops": round(speed / 1e9, 1),
        "step_s": [round(s, 2) for s in seconds],
        "batch": a.batch,
        "micro": settings.micro_rows,
        "length": a.length,
        "target_fraction": a.target_fraction,
        "remat": a.remat,
    }
    print(json.dumps(result) if a.json else "\n".join(f"{k:20} {v}" for k, v in result.items()))


if __name__ == "__main__":
    main()
