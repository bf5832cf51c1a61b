"""Times the fine-tuning step of torch and transformers, on the ids of `bench_sft.py` and the same weights.

  .peers/bin/python scripts/bench_sft_peer.py --model=MODEL.gguf --batch=2 --length=1024 --steps=5

Arguments and output are those of `bench_sft.py`, which runs it for `--peer=PYTHON`; the weights are a GGUF
file. float32, AdamW after clipping, cross-entropy of the targets only. Requires
`pip install torch==2.13.0 transformers gguf accelerate`.
"""

import argparse
import json
import math
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import torch
import transformers

NO_TARGET = -100  # label that transformers excludes from the loss


def make_batch(rows: int, length: int, target_fraction: float, vocabulary: int) -> dict[str, torch.Tensor]:
    """Returns the rows that `bench_sft.make_batches` draws: input_ids and labels, int64 [rows, length]."""
    random = np.random.default_rng(0)
    ids = torch.tensor(np.stack([random.integers(0, vocabulary, length) for _ in range(rows)]))
    labels = ids.clone()
    labels[:, : length - max(1, round(length * target_fraction))] = NO_TARGET
    return {"input_ids": ids, "labels": labels}


def time_steps(model: torch.nn.Module, batch: dict[str, torch.Tensor], steps: int) -> list[float]:
    """Returns the seconds of 1 + `steps` steps; the first one makes the moments."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, betas=(0.9, 0.95), weight_decay=0.1)
    seconds = []
    for _ in range(1 + steps):
        start = time.perf_counter()
        loss = model(**batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - start)
        assert math.isfinite(loss.item())
    return seconds


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--target-fraction", type=float, default=0.25)
    parser.add_argument("--steps", type=int, default=5)
    a = parser.parse_args()

    model = transformers.AutoModelForCausalLM.from_pretrained(
        a.model.parent, gguf_file=a.model.name, dtype=torch.float32
    ).train()
    batch = make_batch(a.batch, a.length, a.target_fraction, model.config.vocab_size)
    first, *seconds = time_steps(model, batch, a.steps)
    result = {
        "peer": f"transformers {transformers.__version__}, torch {torch.__version__}",
        "tokens_per_s": round(a.batch * a.length / statistics.median(seconds), 1),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "first_step_s": round(first, 2),
        "step_s": [round(s, 2) for s in seconds],
        "batch": a.batch,
        "length": a.length,
        "target_fraction": a.target_fraction,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
