"""`ste plan`: memory and cost of a run on TPU slices, by the TPU compiler; needs no TPU.

`--sweep` compares mesh shapes, micro-batches and recomputation over topologies (see `plan.sweep`).
"""

import dataclasses
import json
from typing import TYPE_CHECKING

from absl import app, flags

from ste_jax.commands.config_flag import define_config
from ste_jax.commands.topology_flag import TOPOLOGY
from ste_jax.plan.assumptions import PHASES, Lengths, Phase

if TYPE_CHECKING:
    from ste_jax.config import RunConfig
    from ste_jax.models.llama import LlamaConfig
    from ste_jax.plan.phases import PhasePlan
    from ste_jax.plan.topology import Topology

_REMATS = ("none", "dots", "full")
_CONFIG = define_config("Configuration file, as configs/llama3_70b.py.")
_PHASE = flags.DEFINE_enum("phase", "all", ["all", *PHASES], "Program to compile.")
_PRICE = flags.DEFINE_list(
    "price_per_chip_hour", None, "Price of a chip-hour, for the cost. For --sweep: one price per topology."
)
_JSON = flags.DEFINE_bool("json", False, "Print JSON.")
_ACCEPTANCE = flags.DEFINE_float(
    "acceptance_rate", 0.5, "Share of pairs and orders that give a training example.", 0.0, 1.0
)
_SWEEP = flags.DEFINE_bool("sweep", False, "Search for the fastest way to train.")
_BATCH_ROWS = flags.DEFINE_list(
    "batch_rows", None, "With --sweep: rows per step. Default: the value of the configuration."
)
_REMAT = flags.DEFINE_list("remat", ["full", "dots"], "With --sweep: recomputation modes (none, dots, full).")
_EXHAUSTIVE = flags.DEFINE_bool("exhaustive", False, "With --sweep: also compile what cannot be the best.")
_OUT = flags.DEFINE_string(
    "out", "sweep", "With --sweep: output folder of sweep.csv, sweep.png and compiled.jsonl."
)
_LENGTHS = {
    field.name: flags.DEFINE_integer(
        f"{field.name}_tokens",
        getattr(Lengths(), field.name),
        f"Assumed mean tokens per {field.name}.",
        lower_bound=1,
    )
    for field in dataclasses.fields(Lengths)
}


def main(argv: list[str]) -> None:
    """Prints the plan of a configuration on a topology, or compares ways to train on several."""
    if len(argv) != 2 or _CONFIG.value is None or not TOPOLOGY.value:
        raise app.UsageError("plan needs --config and --topology, and takes no other arguments")
    # Imported here: the help of a command must not wait for JAX.
    from ste_jax.config import read_config
    from ste_jax.plan.model import architecture_of
    from ste_jax.plan.topology import parse_topology

    config = read_config(_CONFIG.value.to_dict())
    cfg, topologies = architecture_of(config.model), [parse_topology(name) for name in TOPOLOGY.value]
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
        raise app.UsageError(f"--price_per_chip_hour takes numbers: {error}") from error
    if len(prices) not in (0, 1, topologies):
        raise app.UsageError(f"--price_per_chip_hour takes 1 or {topologies} numbers, not {len(prices)}")
    return prices * topologies if len(prices) == 1 else prices


def _plan(
    config: "RunConfig", cfg: "LlamaConfig", topology: "Topology", lengths: Lengths, price: float | None
) -> None:
    from rich.console import Console

    from ste_jax.plan.compile import in_child
    from ste_jax.plan.phases import phase_mesh, phases_of, plan_phase
    from ste_jax.plan.rerun import stage_hours
    from ste_jax.plan.table import render_plan
    from ste_jax.plan.work import run_work

    phases: list[Phase] = [phase for phase in phases_of(config) if _PHASE.value in ("all", phase)]
    if not phases:
        raise app.UsageError(
            f"--phase: the configuration has no phase {_PHASE.value}, only {', '.join(phases_of(config))}; "
            "set train.objective, prefer.epochs or pairs.validation"
        )
    for phase in phases:
        phase_mesh(phase, config, topology)  # report a wrong mesh before minutes of compiling
    console = Console(stderr=True)
    plans: list[PhasePlan] = []
    for phase in phases:
        with console.status(f"compiling {phase} for {topology.name}"):
            plans.append(in_child(plan_phase, phase, config, cfg, topology.name, lengths))
    accepted = 0.0 if _ACCEPTANCE.value is None else _ACCEPTANCE.value
    work = run_work(config, lengths, kept=accepted)
    stages = stage_hours(config, cfg, topology, lengths, work) if _PHASE.value == "all" else []
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
        "assumed": {**dataclasses.asdict(lengths), "acceptance_rate": accepted},
    }
    if _JSON.value:
        print(json.dumps(report, indent=1))
    else:
        render_plan(Console(), report)


def _sweep(
    config: "RunConfig",
    cfg: "LlamaConfig",
    topologies: "list[Topology]",
    lengths: Lengths,
    prices: list[float],
) -> None:
    from rich.console import Console

    from ste_jax.paths import local_path
    from ste_jax.plan.sweep import plot, set_prices, sweep, write_csv
    from ste_jax.plan.table import render_sweep

    unknown = sorted({*(_REMAT.value or ())} - {*_REMATS})
    if unknown or not all(rows.isdigit() and int(rows) for rows in _BATCH_ROWS.value or ()):
        raise app.UsageError(f"--remat takes {', '.join(_REMATS)}, --batch_rows numbers above 0")
    folder, console = local_path(_OUT.value or ".", "--out"), Console(stderr=True)
    folder.mkdir(parents=True, exist_ok=True)
    rows = sweep(
        config,
        cfg,
        topologies,
        lengths,
        batch_rows=[int(rows) for rows in _BATCH_ROWS.value or ()] or [config.train.batch_rows],
        remats=[remat for remat in _REMATS if remat in (_REMAT.value or ())],
        exhaustive=bool(_EXHAUSTIVE.value),
        folder=folder,
        on_compile=console.print,
    )
    set_prices(rows, dict(zip((topology.name for topology in topologies), prices, strict=False)))
    write_csv(rows, folder / "sweep.csv")
    plot(rows, folder / "sweep.png")
    if _JSON.value:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
    else:
        render_sweep(Console(), rows)
        print(f"\nall {len(rows)} candidates: {folder / 'sweep.csv'}; plot: {folder / 'sweep.png'}")
