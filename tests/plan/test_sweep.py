import csv
import dataclasses
import os
import runpy
from pathlib import Path

import pytest

from ste_jax.config import read_config
from ste_jax.models.presets import PRESETS
from ste_jax.plan.assumptions import Lengths
from ste_jax.plan.compile import in_child
from ste_jax.plan.sweep import (
    FITS,
    SweepCandidate,
    SweepResult,
    best,
    candidates,
    judge,
    plot,
    set_prices,
    sweep,
    write_csv,
)
from ste_jax.plan.topology import parse_topology
from tests.errors import raises

CONFIGS = Path(__file__).parents[2] / "configs"
CONFIG = read_config(runpy.run_path(str(CONFIGS / "llama3_70b.py"))["get_config"]("v6e-64").to_dict())
CFG = PRESETS["llama3_70b"]


def test_candidates_lie_on_all_devices():
    found = list(candidates(CFG, parse_topology("2xv5p-64"), [32, 64], ["full"]))
    assert {way.mesh for way in found} == {(2, 32, 1), (2, 16, 2), (2, 8, 4), (2, 4, 8)}
    for way in found:
        assert way.micro_rows % (way.mesh[0] * way.mesh[1]) == way.batch_rows % way.micro_rows == 0


def test_counting_leaves_out_what_cannot_fit():
    topology = parse_topology("v5p-32")
    verdicts = {
        remat: judge(CONFIG, CFG, topology, SweepCandidate("v5p-32", (1, 16, 1), 64, 16, remat), 0.3).verdict
        for remat in ("full", "none")
    }
    assert verdicts == {"full": "", "none": "OOM by counting"}
    # 988 GB of state on 8 chips of 96 GB.
    small = judge(
        CONFIG, CFG, parse_topology("v5p-16"), SweepCandidate("v5p-16", (1, 8, 1), 64, 8, "full"), 0.3
    )
    assert small.verdict == "OOM by counting"
    odd = dataclasses.replace(CFG, intermediate_size=28673)
    way = SweepCandidate("v6e-64", (1, 8, 8), 64, 8, "full")
    assert "'mlp'" in judge(CONFIG, odd, parse_topology("v6e-64"), way, 0.3).verdict


def test_a_sweep_compiles_the_best_that_fits_once(tmp_path):
    pytest.importorskip("libtpu")
    train = dataclasses.replace(CONFIG.train, row_length=128, loss_chunk=64, batch_rows=4, micro_rows=4)
    config = dataclasses.replace(CONFIG, train=train, train_mesh=(1, 4, 1))
    cfg = dataclasses.replace(PRESETS["llama3.2_1b"], vocab_size=512, hidden_size=256, num_layers=2)
    topologies = [parse_topology("v5e-4"), parse_topology("v6e-4")]
    said = []

    def run():
        return sweep(
            config,
            cfg,
            topologies,
            Lengths(),
            batch_rows=[4, 8],
            remats=["none", "full"],
            exhaustive=False,
            folder=tmp_path,
            on_compile=said.append,
        )

    rows = run()
    assert len(said) == 2
    fitting = [row for row in rows if row.verdict == FITS]
    assert [row.candidate.topology for row in fitting] == ["v5e-4", "v6e-4"]
    for row in fitting:
        assert row.peak_bytes is not None
        assert 0.5 * row.min_bytes < row.peak_bytes < 2**30
        others = [r for r in rows if r.candidate.topology == row.candidate.topology]
        assert row.tokens_per_s_per_chip == max(r.tokens_per_s_per_chip for r in others)
    with (tmp_path / "compiled.jsonl").open("a") as file:
        file.write('{"key": "cut sho')
    assert [dataclasses.asdict(row) for row in run()] == [dataclasses.asdict(row) for row in rows]
    assert len(said) == 2

    set_prices(rows, {"v5e-4": 1.0, "v6e-4": 1000.0})
    winner = best(rows, "tokens_per_unit")
    assert winner is not None
    assert winner.candidate.topology == "v5e-4"
    fastest = best(rows, "tokens_per_s_per_chip")
    assert fastest is not None
    assert fastest.candidate.topology == "v6e-4"
    write_csv(rows, tmp_path / "sweep.csv")
    with (tmp_path / "sweep.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(rows)
    assert {line["verdict"] for line in lines} == {FITS, "slower than one that fits"}
    plot(rows, tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes()[:4] == b"\x89PNG"


def test_nothing_that_fits_is_no_best():
    row = SweepResult(SweepCandidate("v6e-4", (1, 4, 1), 4, 4, "full"), "OOM")
    assert best([row], "tokens_per_s_per_chip") is None


def test_a_compiler_that_dies_ends_the_plan_with_an_error():
    with raises("out_of_host_memory"):
        in_child(os._exit, 9)
