"""Measures the host memory that saving and restoring a training state takes in addition to the state.

  python scripts/bench_checkpoint.py --folder=/tmp/bench --gigabytes=4

A Llama of that size (float32 parameters and both moments of AdamW, random) is saved three times and restored;
each line gives the memory of the process before and at its peak. On a CPU the state is in the same memory; on
a TPU only the additional memory is that of the host.
"""

import argparse
import gc
import shutil
import time
from pathlib import Path

import jax

from ste_jax.checkpoint.orbax import TrainCheckpoints, on_mesh
from ste_jax.models.llama import LlamaConfig, initialize
from ste_jax.sharding import TRAIN, make_mesh
from ste_jax.training.settings import TrainSettings
from ste_jax.training.step import TrainState, abstract_state, init_state, make_optimizer

GB = 1e9
BYTES_PER_PARAMETER = 12  # the parameter and two moments
SETTINGS = TrainSettings(
    batch_rows=1, micro_rows=1, learning_rate=1e-5, param_dtype="float32", dtype="bfloat16"
)
SAVES = 3


def main() -> None:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="folder to create; deleted at the end")
    parser.add_argument("--gigabytes", type=float, default=4.0, help="size of the training state")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    try:
        measure(arguments.folder, architecture(arguments.gigabytes))
    finally:
        shutil.rmtree(arguments.folder)


def measure(folder: Path, cfg: LlamaConfig) -> None:
    """Prints a line for each save and for the restore."""
    mesh = make_mesh((1, 1, 1))
    print(f"state: {BYTES_PER_PARAMETER * cfg.parameter_count / GB:.2f} GB", flush=True)
    with jax.set_mesh(mesh):
        state = random_state(cfg)
        checkpoints = TrainCheckpoints(folder, keep=1)
        for step in range(1, SAVES + 1):
            begin = start()
            checkpoints.save(step, state, {})
            report(f"save {step}", begin)
        target = on_mesh(abstract_state(cfg, TRAIN, SETTINGS, 1), mesh)
        del state
        gc.collect()
        begin = start()
        state, _ = checkpoints.restore(SAVES, target)
        jax.block_until_ready(state)
        report("restore", begin)
        checkpoints.close()


def architecture(gigabytes: float) -> LlamaConfig:
    """Returns a Llama whose training state has about this many gigabytes."""
    layer = 4 * 2048 * 2048 + 3 * 2048 * 8192
    layers = max(1, round((gigabytes * GB / BYTES_PER_PARAMETER - 2 * 16_000 * 2048) / layer))
    return LlamaConfig(
        vocab_size=16_000,
        hidden_size=2048,
        intermediate_size=8192,
        num_layers=layers,
        num_heads=16,
        num_kv_heads=16,
        head_dim=128,
        context_length=4096,
    )


def random_state(cfg: LlamaConfig) -> TrainState:
    """Returns a state before its first update."""
    model = initialize(cfg, TRAIN, jax.random.key(0), param_dtype="float32", dtype="bfloat16")
    return jax.block_until_ready(init_state(model, make_optimizer(SETTINGS, 1)))


def memory(field: str) -> float:
    """Returns a field of this process's status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


def start() -> tuple[float, float]:
    """Resets the peak; returns the memory in use and the time."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS"), time.monotonic()


def report(what: str, begin: tuple[float, float]) -> None:
    """Prints the memory and time since `begin`."""
    before, at = begin
    peak = memory("VmHWM")
    print(
        f"{what}: {before / GB:.2f} GB before, peak {peak / GB:.2f} GB (+{(peak - before) / GB:.2f}), "
        f"{time.monotonic() - at:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
