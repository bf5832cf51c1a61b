"""Measures `ste convert` both ways on a synthetic Llama: peak memory, speed, and equality of all bits.

  python scripts/bench_convert.py --folder=/tmp/bench --gigabytes=8

Writes a sharded Hugging Face folder of random bfloat16 bits (three times its size on disk, all deleted at the
end), converts it into a model folder and back in processes of their own, compares every tensor, and then
measures the memory that saving the loaded model takes in addition to the model itself.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from ste_jax.checkpoint.export import config_fields
from ste_jax.checkpoint.hf import NAMES, weight_files
from ste_jax.checkpoint.layout import tensor_names, tensor_shapes
from ste_jax.models.llama import LlamaConfig, parameter_table
from ste_jax.text.tokenizer import load_tokenizer

GB = 1e9
SAVE = """
import sys
from pathlib import Path
from ste_jax.checkpoint.folder import save_model
from ste_jax.checkpoint.source import open_model
from ste_jax.sharding import TRAIN, make_mesh

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024

source = open_model(sys.argv[1])
model = source.load(TRAIN, make_mesh((1, 1, 1)), param_dtype="bfloat16", dtype="bfloat16")
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
save_model(sys.argv[2], model, source.card, source.tokenizer)
print(f"save_model: {before / 1e9:.2f} GB before, peak {memory('VmHWM') / 1e9:.2f} GB")
"""


def main() -> None:
    """Runs the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="folder to create; deleted at the end")
    parser.add_argument("--gigabytes", type=float, default=8.0)
    parser.add_argument(
        "--tokenizer", default=os.environ.get("STE_TEST_MODEL"), help="folder or file with any tokenizer"
    )
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    try:
        measure(arguments.folder, arguments.gigabytes, arguments.tokenizer)
    finally:
        shutil.rmtree(arguments.folder)


def measure(folder: Path, gigabytes: float, tokenizer: str) -> None:
    """Prints a line for each part."""
    cfg = architecture(gigabytes)
    sizes = {name: p.size * 2 for name, p in parameter_table(cfg).items()}
    largest = max(sizes.values())
    write_model(folder / "theirs", cfg, tokenizer)
    files = weight_files(folder / "theirs")
    total = sum(sizes.values())
    print(f"model: {total / GB:.2f} GB in {len(files)} files, largest parameter {largest / GB:.2f} GB")
    print(f"limit: {(2 * largest + GB) / GB:.2f} GB")
    for source, target in (("theirs", "ours"), ("ours", "back")):
        begin = time.monotonic()
        command = ["from ste_jax.cli import main; main()", "convert", folder / source, folder / target]
        peak = run([sys.executable, "-c", *map(str, command)])
        print(f"{source} -> {target}: peak {peak / GB:.2f} GB, {time.monotonic() - begin:.0f} s", flush=True)
    print("equal, bit by bit:", same_tensors(folder / "theirs", folder / "back"), flush=True)
    shutil.rmtree(folder / "back")
    shutil.rmtree(folder / "theirs")
    run([sys.executable, "-c", SAVE, str(folder / "ours"), str(folder / "again")])


def architecture(gigabytes: float) -> LlamaConfig:
    """Returns a Llama of about so many gigabytes in bfloat16, whose largest parameter is a sixth of it."""
    layers = max(1, round((gigabytes * GB / 2 - 2 * 64_000 * 4096) / 219_000_000))
    return LlamaConfig(
        vocab_size=64_000,
        hidden_size=4096,
        intermediate_size=14_336,
        num_layers=layers,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        context_length=8192,
    )


def write_model(folder: Path, cfg: LlamaConfig, tokenizer: str) -> None:
    """Writes random weights layer by layer, as the files of other people's models are sorted."""
    folder.mkdir()
    random, shapes = np.random.default_rng(0), tensor_shapes(cfg)
    by_layer: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for parameter, shape in shapes.items():
        for layer, name in enumerate(tensor_names(cfg, parameter, NAMES[parameter])):
            file = f"model-{layer:05d}.safetensors" if "layers" in name else "model-other.safetensors"
            by_layer.setdefault(file, []).append((name, shape))
    for file, tensors in by_layer.items():
        bits = {
            name: random.integers(0, 2**16, shape, np.uint16).view(ml_dtypes.bfloat16)
            for name, shape in tensors
        }
        save_file(bits, folder / file)
    known = load_tokenizer(tokenizer)
    known.save(folder)
    config = config_fields(cfg, np.dtype(ml_dtypes.bfloat16), known)
    (folder / "config.json").write_text(json.dumps(config))


def run(command: list[str]) -> int:
    """Runs a process to its end and returns its peak resident memory in bytes."""
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed with {os.waitstatus_to_exitcode(status)}: {command}")
    return usage.ru_maxrss * 1024


def same_tensors(before: Path, after: Path) -> bool:
    """Returns True if two folders hold the same tensors, NaNs included."""
    found = {name: bits for file in weight_files(after) for name, bits in tensors_of(file)}
    names = 0
    for file in weight_files(before):
        for name, read in tensors_of(file):
            names += 1
            if name not in found or not np.array_equal(read().view(np.uint16), found[name]().view(np.uint16)):
                return False
    return names == len(found)


def tensors_of(file: Path):
    """Yields (name, function that reads it) of a file."""
    with safe_open(file, framework="np") as opened:
        names = list(opened.keys())

    def read(name: str) -> np.ndarray:
        with safe_open(file, framework="np") as opened:
            return opened.get_tensor(name)

    return [(name, lambda name=name: read(name)) for name in names]


if __name__ == "__main__":
    main()
