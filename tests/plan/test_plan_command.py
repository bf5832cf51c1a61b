"""`ste plan` as it is called."""

import dataclasses
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from ste_jax.config import read_config
from ste_jax.models.presets import PRESETS
from ste_jax.plan.assumptions import Lengths
from ste_jax.plan.compile import in_child
from ste_jax.plan.cost import train_cost
from ste_jax.plan.phases import plan_phase
from ste_jax.plan.topology import parse_topology

ROOT = Path(__file__).parents[2]


def plan(*arguments: str, config: str = "llama3_70b.py") -> subprocess.CompletedProcess:
    program = "from ste_jax.cli import main; main()"
    command = [sys.executable, "-c", program, "plan", f"--config={ROOT / 'configs' / config}", *arguments]
    environment = {**os.environ, "XLA_FLAGS": ""}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)


def test_a_plan_in_json():
    pytest.importorskip("libtpu")
    done = plan(
        "--topology=v5litepod-4", "--json", "--price_per_chip_hour=2", "--config.model=smollm2_135m",
        "--config.mesh=(1, 4, 1)", "--config.train_mesh=()", "--config.train.micro_rows=4",
        "--config.train.batch_rows=8", "--config.train.row_length=256", "--config.decode.sequences=60",
        "--config.decode.buckets=(256,)", "--config.annotate.max_new_tokens=128",
        "--config.decode.prefix_tokens=4096",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["topology"], report["chips"], report["fits"]) == ("v5e-4", 4, True)
    assert list(report["phases"]) == ["sft", "prefill", "decode", "validate"]
    for phase in report["phases"]:
        found = report["phases"][phase]
        assert found["fits"] is True
        assert found["devices"] == 4
        assert 0 < found["peak_hbm_bytes"] < found["hbm_limit_bytes"] == 15.75 * 2**30
        assert found["compile_s"] > 0
        assert found["roofline_s"] <= found["expected_s"]
        assert sum(found["holds"].values()) == pytest.approx(found["peak_hbm_bytes"], rel=0.01)
    hours = sum(stage["chip_hours"] for stage in report["stages"])
    assert report["cost"] == pytest.approx(2 * hours)


def test_preference_training_is_compiled_as_a_program_of_its_own():
    pytest.importorskip("libtpu")
    tiny = dataclasses.replace(PRESETS["llama3.2_1b"], vocab_size=512, hidden_size=256, num_layers=1)
    value = runpy.run_path(str(ROOT / "configs" / "llama3_70b.py"))["get_config"]().to_dict()
    value |= {"mesh": (1, -1, 1), "train_mesh": (), "prefer": {"epochs": 1.0, "learning_rate": 5e-7}}
    value["train"] |= {"row_length": 128, "batch_rows": 4, "micro_rows": 4, "loss_chunk": 64}
    config = read_config(value)
    plan = in_child(plan_phase, "dpo", config, tiny, "v5e-4", Lengths())
    assert (plan.phase, plan.mesh, plan.fits) == ("dpo", (1, 4, 1), True)
    # Rows of two judgments are twice as long: twice the work, and a little more for the longer attention.
    mesh = {"data": 1, "fsdp": 4, "tensor": 1}
    sft = train_cost(tiny, parse_topology("v5e-4"), mesh, config.train, Lengths().target_share)
    assert plan.cost.tokens == 2 * sft.tokens
    assert 2.0 < plan.cost.flops / sft.flops < 2.2
    # A device has a row of 256: three arrays of its tokens, four of its targets, three numbers of a pair.
    assert plan.holds["batch"] == 4 * (7 * 256 + 3)
    assert 3 * plan.holds["parameters"] < plan.peak_hbm_bytes < 2**30


def test_what_does_not_fit_is_a_result():
    pytest.importorskip("libtpu")
    done = plan(
        "--topology=v5e-1", "--phase=sft", "--config.model=smollm2_1.7b", "--config.mesh=(1, 1, 1)",
        "--config.train_mesh=(1, 1, 1)", "--config.train.micro_rows=1", "--config.train.batch_rows=1",
        "--config.train.row_length=256",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "sft: OOM" in done.stdout
    assert "exceeds" in done.stdout.replace("\n", " ") or "RESOURCE_EXHAUSTED" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--topology=v6e-8"], r"mesh: \(1, 8, 8\) needs 64 devices"),
        (
            ["--topology=v6e-256"],
            "uses 64 of the 256 devices of v6e-256; set mesh to sizes whose product is 256",
        ),
        (["--topology=v6e-64", "--config.model=somebody/else"], "neither a local file nor a known name"),
        (["--topology=v6e-64", "--phase=dpo"], "no phase dpo, only sft, prefill, decode"),
        (["--topology=v6e-64", "--sweep", "--remat=some"], "--remat takes none, dots, full"),
        (["--topology=v6e-64", "--kept=0.3"], "--acceptance_rate"),
    ],
)
def test_wrong_calls(arguments, message):
    done = plan("--phase=decode", *arguments)
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
