"""`ste plan`: what a run holds and costs on TPU slices that are not here.

`--sweep` compares shapes of the mesh, micro-batches and recomputation over topologies (see `plan.sweep`).
"""

import dataclasses
import json
from typing import get_args

from absl import app, flags
from ml_collections import config_flags
from rich.console import Console

from ste_jax.config import RunConfig, read_config
from ste_jax.models.llama import LlamaConfig
from ste_jax.paths import local_path
from ste_jax.plan.compile import in_child
from ste_jax.plan.model import architecture_of
from ste_jax.plan.phases import PHASES, Lengths, Phase, PhasePlan, phase_mesh, phases_of, plan_phase
from ste_jax.plan.rerun import stage_hours
from ste_jax.plan.sweep import plot, set_prices, sweep, write_csv
from ste_jax.plan.table import render_plan, render_sweep
from ste_jax.plan.topology import Topology, parse_topology
from ste_jax.training.settings import Remat

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, as configs/llama3_70b.py.")
_TOPOLOGY = flags.DEFINE_list("topology", None, "Slices, as v5p-128 or 2xv6e-256; several for a sweep.")
_PHASE = flags.DEFINE_enum("phase", "all", ["all", *PHASES], "Program to compile.")
_PRICE = flags.DEFINE_list("price-per-chip-hour", None, "For the cost in money; a sweep: one a topology.")
_JSON = flags.DEFINE_bool("json", False, "Prints JSON.")
_KEPT = flags.DEFINE_float("kept", 0.5, "Share of pairs and orders that give an example.", 0.0, 1.0)
_SWEEP = flags.DEFINE_bool("sweep", False, "Looks for the fastest way to train instead.")
_BATCH_ROWS = flags.DEFINE_list(
    "batch-rows", None, "Of a sweep: rows of a step; default: the configuration's."
)
_REMAT = flags.DEFINE_list("remat", ["full", "dots"], "Of a sweep: what to recompute.")
_EXHAUSTIVE = flags.DEFINE_bool("exhaustive", False, "Of a sweep: compiles also what cannot be the best.")
_OUT = flags.DEFINE_string("out", "sweep", "Of a sweep: folder of sweep.csv, sweep.png and compiled.jsonl.")
_LENGTHS = {
    field.name: flags.DEFINE_integer(
        f"{field.name}-tokens",
        getattr(Lengths(), field.name),
        "Mean tokens.",
        lower_bound=1,
    )
    for field in dataclasses.fields(Lengths)
}


def main(argv: list[str]) -> None:
    """Prints the plan of a configuration on a topology, or compares ways to train on several."""
    if len(argv) != 2 or _CONFIG.value is None or not _TOPOLOGY.value:
        raise app.UsageError("plan wants --config and --topology, and no other words")
    config = read_config(_CONFIG.value.to_dict())
    cfg, topologies = architecture_of(config.model), [parse_topology(name) for name in _TOPOLOGY.value]
    lengths = Lengths(**{name: flag.value or 1 for name, flag in _LENGTHS.items()})
    prices = _prices(len(topologies))
    if _SWEEP.value:
        _sweep(config, cfg, topologies, lengths, prices)
    elif len(topologies) == 1:
        _plan(config, cfg, topologies[0], lengths, prices[0] if prices else None)
    else:
        raise app.UsageError("plan takes one --topology; --sweep takes several")


def _prices(topologies: int) -> list[float]:
    try:
        prices = [float(price) for price in _PRICE.value or ()]
    except ValueError as error:
        raise app.UsageError(f"--price-per-chip-hour wants numbers: {error}") from error
    if len(prices) not in (0, 1, topologies):
        raise app.UsageError(f"--price-per-chip-hour wants 1 or {topologies} numbers, not {len(prices)}")
    return prices * topologies if len(prices) == 1 else prices


def _plan(
    config: RunConfig, cfg: LlamaConfig, topology: Topology, lengths: Lengths, price: float | None
) -> None:
    wanted: list[Phase] = [phase for phase in phases_of(config) if _PHASE.value in ("all", phase)]
    if not wanted:
        raise app.UsageError(
            f"--phase: the configuration has no {_PHASE.value}, only {', '.join(phases_of(config))}; "
            "set train.method, or prefer.epochs"
        )
    for phase in wanted:
        phase_mesh(phase, config, topology)  # a wrong mesh is told before minutes of compiling
    console = Console(stderr=True)
    plans: list[PhasePlan] = []
    for phase in wanted:
        with console.status(f"compiling {phase} for {topology.name}"):
            plans.append(in_child(plan_phase, phase, config, cfg, topology.name, lengths))
    kept = 0.0 if _KEPT.value is None else _KEPT.value
    stages = stage_hours(config, cfg, topology, lengths, kept) if _PHASE.value == "all" else []
    hours = sum(stage.chip_hours for stage in stages)
    report = {
        "config": config.name,
        "model": config.model,
        "topology": topology.name,
        "chips": topology.chips,
        "devices": topology.devices,
        "fits": all(plan.fits for plan in plans),
        "phases": {plan.phase: plan.to_json() for plan in plans},
        "stages": [dataclasses.asdict(stage) for stage in stages],
        "chip_hours": hours,
        "price_per_chip_hour": price,
        "cost": None if price is None else price * hours,
        "assumed": {**dataclasses.asdict(lengths), "kept": kept},
    }
    if _JSON.value:
        print(json.dumps(report, indent=1))
    else:
        render_plan(Console(), report)


def _sweep(
    config: RunConfig, cfg: LlamaConfig, topologies: list[Topology], lengths: Lengths, prices: list[float]
) -> None:
    unknown = sorted({*(_REMAT.value or ())} - {*get_args(Remat)})
    if unknown or not all(rows.isdigit() and int(rows) for rows in _BATCH_ROWS.value or ()):
        raise app.UsageError(f"--remat takes {', '.join(get_args(Remat))}, --batch-rows numbers above 0")
    folder, console = local_path(_OUT.value or ".", "--out"), Console(stderr=True)
    folder.mkdir(parents=True, exist_ok=True)
    rows = sweep(
        config,
        cfg,
        topologies,
        lengths,
        batch_rows=[int(rows) for rows in _BATCH_ROWS.value or ()] or [config.train.batch_rows],
        remats=[remat for remat in get_args(Remat) if remat in (_REMAT.value or ())],
        exhaustive=bool(_EXHAUSTIVE.value),
        folder=folder,
        say=console.print,
    )
    set_prices(rows, dict(zip((topology.name for topology in topologies), prices, strict=False)))
    write_csv(rows, folder / "sweep.csv")
    plot(rows, folder / "sweep.png")
    if _JSON.value:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
    else:
        render_sweep(Console(), rows)
        print(f"\nall {len(rows)} candidates: {folder / 'sweep.csv'}; plot: {folder / 'sweep.png'}")
