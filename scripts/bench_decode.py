"""Measures the speed of the decoding engine, prefill and sampling included.

  python scripts/bench_decode.py --model=MODEL --prompts=FILE --samples=16 --new-tokens=64 --json

FILE is a JSON list of lists of token ids. Every sample has exactly `--new-tokens` tokens (stop ids are
ignored), at temperature 0.7 and top-p 0.9. The first call compiles and is reported separately;
`output_tokens_per_s` is computed from the median of the later calls. `--choices=N` records the
log-probabilities of N tokens at every position.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Collection, Sequence
from pathlib import Path

from ste_jax.checkpoint.source import ModelSource, open_model
from ste_jax.decode.engine import Engine
from ste_jax.decode.protocol import Request, Sampling
from ste_jax.decode.settings import DecodeSettings
from ste_jax.randomness import sample_keys
from ste_jax.sharding import DECODE, make_mesh

SAMPLING = Sampling(temperature=0.7, top_p=0.9)


def read_prompts(path: Path) -> list[list[int]]:
    """Reads a JSON list of non-empty lists of ids."""
    prompts = json.loads(path.read_text())
    if not prompts or not all(p and all(isinstance(i, int) for i in p) for p in prompts):
        raise SystemExit(f"{path}: expected a list of non-empty lists of token ids")
    return prompts


def make_requests(prompts: Sequence[Sequence[int]], samples: int, new_tokens: int) -> list[Request]:
    """Returns a request for each prompt."""
    return [
        Request(str(i), tuple(prompt), sample_keys(0, "bench", str(i), samples), new_tokens)
        for i, prompt in enumerate(prompts)
    ]


def open_engine(source: ModelSource, settings: DecodeSettings, stop_ids: Collection[int]) -> Engine:
    """Returns an engine with a model on the first device."""
    mesh = make_mesh((1, 1, 1))
    model = source.load(DECODE, mesh, param_dtype=settings.dtype, dtype=settings.dtype)
    return Engine(model, mesh, settings, stop_ids)


def time_calls(
    engine: Engine, requests: list[Request], repeats: int, choices: int
) -> tuple[float, list[float]]:
    """Returns the seconds of the first call and of each of the later calls."""
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        groups = list(engine.generate(requests, SAMPLING, choices=tuple(range(choices))))
        seconds.append(time.perf_counter() - start)
        assert all(len(c.tokens) == requests[0].max_new_tokens for group in groups for c in group.completions)
    return seconds[0], seconds[1:]


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--choices", type=int, default=0, help="number of tokens with log-probabilities")
    parser.add_argument("--sequences", type=int, default=64, help="number of samples in flight")
    parser.add_argument(
        "--decode-steps-per-sync", type=int, default=64, help="steps between synchronizations with the host"
    )
    parser.add_argument("--repeats", type=int, default=3, help="number of timed calls")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    a = parser.parse_args()

    prompts = read_prompts(a.prompts)
    settings = DecodeSettings(
        sequences=max(a.sequences, a.samples),
        prefix_tokens=1 << 20,
        buckets=tuple(sorted({max(1, len(p) - 1) for p in prompts})),
        decode_steps_per_sync=a.decode_steps_per_sync,
        suffix_chunk=a.new_tokens,
        samples_per_slot=a.samples,
    )
    engine = open_engine(open_model(a.model), settings, stop_ids=())
    first, seconds = time_calls(engine, make_requests(prompts, a.samples, a.new_tokens), a.repeats, a.choices)
    tokens = len(prompts) * a.samples * a.new_tokens
    result = {
        "output_tokens_per_s": round(tokens / statistics.median(seconds), 1),
        "seconds": [round(s, 2) for s in seconds],
        "first_call_s": round(first, 2),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "prompts": len(prompts),
        "samples": a.samples,
        "new_tokens": a.new_tokens,
    }
    print(json.dumps(result) if a.json else "\n".join(f"{k:20} {v}" for k, v in result.items()))


if __name__ == "__main__":
    main()
