"""Prints plans as tables in the terminal."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from ste_jax.plan.sweep import FITS, OOM, SweepResult, best

_GIB = 2**30


def render_plan(console: Console, report: dict[str, Any]) -> None:
    """Prints memory and cost of each program, and the chip-hours of the stages."""
    console.print(
        f"{report['config']} ({report['model']}) on {report['topology']}: {report['chips']} chips, "
        f"{report['devices']} devices",
        markup=False,
    )
    phases = list(report["phases"].values())
    console.print(_programs(phases))
    for phase in phases:
        if phase["error"]:
            console.print(f"{phase['phase']}: OOM: {_first_line(phase['error'])}", markup=False)
        console.print(
            f"{phase['phase']}: expected at {phase['efficiency']:.0%} of the roofline "
            f"({phase['efficiency_source']})",
            markup=False,
        )
    if report["stages"]:
        console.print(_stages(report))
        assumed = ", ".join(f"{name} {value}" for name, value in report["assumed"].items())
        console.print(f"assumed: {assumed}; loading, compiling and saving are not included", markup=False)


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if line.strip()), "")[:200]


def _programs(phases: list[dict[str, Any]]) -> Table:
    table = Table("program", *(phase["phase"] for phase in phases))

    def row(name: str, unit: float, field: str, places: int = 0) -> None:
        values = [phase[field] for phase in phases]
        table.add_row(name, *("OOM" if v is None else f"{v / unit:,.{places}f}" for v in values))

    table.add_row("mesh: data x fsdp x tensor", *("x".join(map(str, phase["mesh"])) for phase in phases))
    table.add_row("fits", *("yes" if phase["fits"] else "no" for phase in phases))
    row("peak GiB per device", _GIB, "peak_hbm_bytes", 2)
    row("limit GiB", _GIB, "hbm_limit_bytes", 2)
    for name in dict.fromkeys(name for phase in phases for name in phase["holds"]):
        sizes = [phase["holds"].get(name) for phase in phases]
        table.add_row(f"  {name}", *("" if size is None else f"{size / _GIB:.2f}" for size in sizes))
    row("compile time s", 1, "compile_s")
    row("tokens per step", 1, "tokens")
    row("TFLOP", 1e12, "flops", 1)
    row("HBM GB per device", 1e9, "hbm_bytes", 1)
    row("network GB per device", 1e9, "network_bytes", 1)
    row("roofline ms", 1e-3, "roofline_s", 1)
    table.add_row("bound by", *(phase["bound"] for phase in phases))
    row("expected ms", 1e-3, "expected_s", 1)
    row("tokens/s/chip", 1, "tokens_per_s_per_chip")
    return table


def _stages(report: dict[str, Any]) -> Table:
    price = report["price_per_chip_hour"]
    table = Table(
        "stage", "prompts", "samples per prompt", "M tokens", "chip-hours", *(["money"] if price else [])
    )
    for stage in report["stages"]:
        table.add_row(
            stage["stage"],
            f"{stage['prompts']:,}" if stage["prompts"] else "",
            str(stage["samples"]) if stage["samples"] else "",
            f"{stage['tokens'] / 1e6:,.1f}",
            f"{stage['chip_hours']:,.1f}",
            *([f"{price * stage['chip_hours']:,.0f}"] if price else []),
        )
    total = [f"{report['cost']:,.0f}"] if price else []
    table.add_row("all", "", "", "", f"{report['chip_hours']:,.1f}", *total)
    return table


def render_sweep(console: Console, rows: Sequence[SweepResult]) -> None:
    """Prints the compiled candidates and the best of them, per chip and per unit of money."""
    table = Table("topology", "mesh", "rows", "remat", "verdict", "peak GiB", "tokens/s/chip", "bound by")
    for row in rows:
        if row.verdict not in (FITS, OOM):
            continue
        way = row.candidate
        table.add_row(
            way.topology,
            "x".join(map(str, way.mesh)),
            f"{way.batch_rows}, {way.micro_rows} per micro-batch",
            way.remat,
            row.verdict,
            "OOM" if row.peak_bytes is None else f"{row.peak_bytes / _GIB:.1f}",
            f"{row.tokens_per_s_per_chip:,.0f}",
            row.bound,
        )
    console.print(table)
    for name, field, unit in (
        ("per chip", "tokens_per_s_per_chip", "tokens/s/chip"),
        ("per unit of money", "tokens_per_unit", "tokens"),
    ):
        if winner := best(rows, field):
            console.print(f"best {name}: {getattr(winner, field):,.0f} {unit}, {winner.candidate}")
    if best(rows, "tokens_per_s_per_chip") is None:
        console.print("nothing fits: try more chips, a larger tensor axis, fewer rows or bfloat16 moments")
