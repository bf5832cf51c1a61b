"""Measures the speed of the engine on judgments of labelled pairs, with stop ids and mixed lengths.

  python scripts/bench_judging.py --model=MODEL --pairs=FILE.jsonl [--pairs=...] --prompts=64 --samples=8

Each line of a file has the fields `instruction, response_a, response_b, label`. Prompts are taken from the
files in turn; those of more than 1,024 tokens are skipped. Prints a JSON object with the seconds, the
occupancy (the fraction of slot steps in which a sample was running) and the counts of the engine.
"""

import argparse
import dataclasses
import itertools
import json
import statistics
import time
from pathlib import Path

import numpy as np
from bench_decode import SAMPLING, make_requests, open_engine

from ste_jax.checkpoint.source import open_model
from ste_jax.decode.settings import DecodeSettings
from ste_jax.judging.prompts import load_prompt
from ste_jax.judging.protocol import JudgeSettings, JudgingProtocol
from ste_jax.records import Comparison


def read_prompts(
    judge: JudgingProtocol, files: list[Path], count: int, max_tokens: int
) -> list[tuple[int, ...]]:
    """Returns the judge prompts of the first pairs, taken from the files in turn."""
    rows = itertools.chain.from_iterable(itertools.zip_longest(*[f.read_text().splitlines() for f in files]))
    prompts = []
    for row in (json.loads(line) for line in rows if line):
        texts = {name: row[name] for name in ("instruction", "response_a", "response_b")}
        ids = judge.prompt_ids(Comparison(id="", prompt_id="", label="A", **texts), "as_given")
        if len(ids) <= max_tokens:
            prompts.append(ids)
        if len(prompts) == count:
            return prompts
    raise SystemExit(f"the files have only {len(prompts)} prompts of up to {max_tokens} tokens")


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--pairs", type=Path, action="append", required=True)
    parser.add_argument("--judge-prompt", default="short")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--sequences", type=int, default=32, help="number of samples in flight")
    parser.add_argument(
        "--samples-per-slot", type=int, default=4, help="number of samples of a slot in flight"
    )
    parser.add_argument("--prompts-per-slot", type=int, default=2, help="number of prompts that a slot holds")
    parser.add_argument(
        "--decode-steps-per-sync", type=int, default=8, help="steps between synchronizations with the host"
    )
    a = parser.parse_args()

    source = open_model(a.model)
    judging = JudgeSettings(load_prompt(a.judge_prompt), a.new_tokens, force_verdict=False, seed=0)
    prompts = read_prompts(JudgingProtocol(judging, source.tokenizer), a.pairs, a.prompts, 1024)
    settings = DecodeSettings(
        sequences=a.sequences,
        prompts_per_slot=a.prompts_per_slot,
        buckets=(512, 1024),
        decode_steps_per_sync=a.decode_steps_per_sync,
        samples_per_slot=a.samples_per_slot,
    )
    engine = open_engine(source, settings, source.tokenizer.stop_ids)
    requests = make_requests(prompts, a.samples, a.new_tokens)
    start = time.perf_counter()
    groups = list(engine.generate(requests, SAMPLING))
    seconds = time.perf_counter() - start
    lengths = [len(c.tokens) for g in groups for c in g.completions]
    result = {
        "seconds": round(seconds, 1),
        "occupancy": round(engine.usage.occupancy, 3),
        "output_tokens_per_s": round(sum(lengths) / seconds, 1),
        "median_new_tokens": statistics.median(lengths),
        "stopped": round(np.mean([c.finish == "stop" for g in groups for c in g.completions]), 3),
        **dataclasses.asdict(engine.usage),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
