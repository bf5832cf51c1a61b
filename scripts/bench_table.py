"""Compares the speed of the engine with other libraries and with the arithmetic limit of the machine.

  python scripts/bench_table.py --model=MODEL.gguf [--prompts=FILE] [--peers-python=.peers/bin/python]

Prints a Markdown table with the median and the range over the rounds. Each measurement runs in a separate
process (`bench_decode.py` or `bench_peers.py`), the libraries in alternation; the limit uses the measured
speed of float32 matrix products of XLA. Without `--prompts`, four prompts of 512 tokens are cut from the
starter instructions. A library that is not installed in `--peers-python` is reported and skipped.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

from machine import product_speed

from ste_jax.checkpoint.source import open_model
from ste_jax.models.llama import LlamaConfig
from ste_jax.plan.cost import attention_flops, matrix_parameters
from ste_jax.text.tokenizer import Tokenizer

HERE = Path(__file__).parent
PEERS = ("transformers", "llama.cpp")


def make_prompts(tokenizer: Tokenizer, count: int, length: int) -> list[list[int]]:
    """Returns prompts of `length` tokens, cut from the starter instructions."""
    lines = (resources.files("ste_jax") / "data/starter_instructions.jsonl").read_text().splitlines()
    ids = tokenizer.encode_plain("\n".join(json.loads(line)["instruction"] for line in lines))
    return [ids[i * length : (i + 1) * length] for i in range(count)]


def forward_flops(cfg: LlamaConfig, prompts: list[list[int]], samples: int, new_tokens: int) -> float:
    """Returns the necessary FLOPs: each prompt once without logits, and each new token with logits."""
    layers, logits = matrix_parameters(cfg), cfg.vocab_size * cfg.hidden_size
    flops = 0.0
    for length in map(len, prompts):
        flops += length * (2 * layers + attention_flops(cfg, length))
        # A new token attends to all tokens before it, a token of the prompt to half of the prompt on average.
        per_token = 2 * (layers + logits) + 2 * attention_flops(cfg, length + new_tokens / 2)
        flops += samples * new_tokens * per_token
    return flops


def run(command: list[str]) -> dict | None:
    """Returns the JSON object that a script prints, or None if its library is not installed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "ModuleNotFoundError" in done.stderr:
        print(f"skipped: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure(a: argparse.Namespace, prompts: Path) -> dict[str, list[dict]]:
    """Runs the libraries in alternation and returns their results by name."""
    arguments = [f"--model={a.model}", f"--prompts={prompts}"]
    arguments += [f"--samples={a.samples}", f"--new-tokens={a.new_tokens}"]
    engine = [sys.executable, str(HERE / "bench_decode.py"), *arguments, "--repeats=2", "--json"]
    commands = {
        peer: [a.peers_python, str(HERE / "bench_peers.py"), f"--peer={peer}", *arguments] for peer in PEERS
    }
    commands["ste_jax"] = engine
    results: dict[str, list[dict]] = {name: [] for name in commands}
    for number in range(a.rounds):
        for name, command in commands.items():
            if result := run(command):
                results[name].append(result)
                print(f"round {number + 1}, {name}: {result}", file=sys.stderr, flush=True)
    return {name: found for name, found in results.items() if found}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--prompts", type=Path, help="JSON list of lists of token ids")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers-python", default=sys.executable)
    a = parser.parse_args()

    source = open_model(str(a.model))
    with tempfile.TemporaryDirectory() as folder:
        file = a.prompts or Path(folder) / "prompts.json"
        if not a.prompts:
            file.write_text(json.dumps(make_prompts(source.tokenizer, 4, 512)))
        prompts = json.loads(file.read_text())
        rate = product_speed(2048, 2048, 2048)
        results = measure(a, file)
    flops = forward_flops(source.architecture, prompts, a.samples, a.new_tokens)
    speeds = {name: [r["output_tokens_per_s"] for r in found] for name, found in results.items()}
    limit = len(prompts) * a.samples * a.new_tokens / (flops / rate)
    print(
        "| | tokens/s | range | of the limit | " + " | ".join(f"times {p}" for p in PEERS) + " | peak MiB |"
    )
    print("|---|---|---|---|" + "---|" * (len(PEERS) + 1))
    for name, found in results.items():
        speed = statistics.median(speeds[name])
        against = [f"{speed / statistics.median(speeds[p]):.2f}" if p in speeds else "" for p in PEERS]
        spread = f"{min(speeds[name]):.0f}-{max(speeds[name]):.0f}"
        peak = max(r["peak_rss_mib"] for r in found)
        cells = [name, f"{speed:.0f}", spread, f"{speed / limit:.0%}", *against, f"{peak:,}"]
        print("| " + " | ".join(cells) + " |")
    print(f"| limit at {rate / 1e9:.0f} GFLOP/s | {limit:.0f} | | 100% |" + " |" * (len(PEERS) + 1))


if __name__ == "__main__":
    main()
