"""The benchmark of the optimizer step, on a model that takes no time."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"
SMALL = ("--batch=2", "--length=32", "--target-fraction=0.25", "--steps=1")


def bench(model: Path, compiled: Path, *flags: str) -> list[str]:
    """The lines that the benchmark prints."""
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / "bench_sft.py"), f"--model={model}", *SMALL, *flags],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        },
    )
    return done.stdout.splitlines()


def test_it_prints_speed_memory_and_the_first_step(tiny_model: Path, compiled: Path) -> None:
    found = json.loads(bench(tiny_model, compiled, "--json")[-1])
    assert all(found[name] > 0 for name in ("tokens_per_s", "peak_rss_mib", "first_step_s"))
    assert len(found["step_s"]) == 1, "the first step, which compiles, is none of them"


def test_a_peer_gets_the_same_task(tiny_model: Path, compiled: Path, tmp_path: Path) -> None:
    """A stand-in for the other environment's Python prints its arguments."""
    python = tmp_path / "python"
    script = """#!/bin/sh
echo '{"peer": "'"$*"'", "tokens_per_s": 1.0, "peak_rss_mib": 1, "first_step_s": 1.0}'
"""
    python.write_text(script)
    python.chmod(0o755)
    _, _, peer, ours, _ = bench(tiny_model, compiled, f"--peer={python}", "--rounds=1")
    asked = (f"--model {tiny_model}", "--batch 2", "--length 32", "--target-fraction 0.25", "--steps 1")
    assert all(part in peer for part in (str(SCRIPTS / "bench_sft_peer.py"), *asked))
    assert ours.startswith("| `ste_jax`, remat=dots |")
