"""Compiles the shipped configurations for the slices that they name; prints the tables of docs/TPU.md.

  python scripts/plan_tables.py --rows=plan_rows.jsonl

Requires the TPU compiler (`pip install -e '.[plan]'`) but no TPU; about half an hour and 6 GB on two cores.
Rows that are already in the file are not compiled again. `--only=v5p` selects slices whose name contains
v5p, `--phase=sft` one of the programs.
"""

import argparse
import dataclasses
import itertools
import json
import runpy
import sys
from pathlib import Path
from typing import Any

from ste_jax.config import RunConfig, read_config
from ste_jax.models.llama import LlamaConfig
from ste_jax.plan.assumptions import PHASES, Lengths
from ste_jax.plan.compile import in_child
from ste_jax.plan.model import architecture_of
from ste_jax.plan.phases import phases_of, plan_phase

CONFIGS = Path(__file__).parents[1] / "configs"
GIB = 2**30
BIG = "llama3.1_405b"  # training only: its weights need more devices than there are key/value heads to decode
_HEAD = (
    "| model | slice | mesh | {} | peak GiB | limit GiB | fits | roofline {} | bound by | "
    "expected tokens/s/chip | compiled in s |\n" + "|---" * 11 + "|"
)
# Configuration, its argument, the slice.
RUNS = [
    ("llama3_8b", "", "v6e-8"),
    ("llama3_8b", "", "v5e-16"),
    ("paper_70b", "v5p-32", "v5p-32"),
    ("paper_70b", "v6e-64", "v6e-64"),
    ("paper_70b", "v5e-128", "v5e-128"),
    ("paper_70b", "v5e-16", "v5e-16"),  # adapters
    ("paper_70b", "2xv5p-64", "2xv5p-64"),
    ("paper_70b", "v5p-128", "v5p-128"),
    (BIG, "", "v5p-512"),
]


def load(name: str, argument: str) -> tuple[RunConfig, LlamaConfig]:
    """Returns a shipped configuration and its architecture; for 405B that of 70B, on 256 chips."""
    path = CONFIGS / f"{'paper_70b' if name == BIG else name}.py"
    config = read_config(runpy.run_path(str(path))["get_config"](argument).to_dict())
    if name == BIG:
        train = dataclasses.replace(config.train, micro_rows=64)
        config = dataclasses.replace(config, model=name, train_mesh=(1, 64, 4), mesh=(1, -1, 8), train=train)
    return config, architecture_of(config.model)


def main() -> None:
    """Compiles the rows that are missing in the file and prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--only", default="")
    parser.add_argument("--phase", action="append", choices=PHASES)
    a = parser.parse_args()
    rows = [json.loads(line) for line in a.rows.read_text().splitlines()] if a.rows.exists() else []
    done = {(row["config"], row["topology"], row["phase"]) for row in rows}
    for phase, (name, argument, topology) in itertools.product(a.phase or PHASES, RUNS):
        if (name, topology, phase) in done or a.only not in topology or (name == BIG and phase != "sft"):
            continue
        config, cfg = load(name, argument)
        if phase not in phases_of(config):
            continue
        plan = in_child(plan_phase, phase, config, cfg, topology, Lengths())
        row = {"config": name, "topology": topology, "settings": settings(config), **plan.to_json()}
        rows.append(row)
        with a.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{name} {topology} {phase}: fits {plan.fits}", file=sys.stderr, flush=True)
    print_rows(rows)


def settings(config: RunConfig) -> dict[str, Any]:
    """Returns what else of a configuration the table tells."""
    return {
        "batch_rows": config.train.batch_rows,
        "micro_rows": config.train.micro_rows,
        "sequences": config.decode.sequences,
    }


def print_rows(rows: list[dict[str, Any]]) -> None:
    """Prints the Markdown tables, training first."""
    print(_HEAD.format("rows a step, at once", "s"))
    for row in rows:
        if row["phase"] == "sft":
            at_once = f"{row['settings']['batch_rows']}, {row['settings']['micro_rows']}"
            print(_row(row, at_once, f"{row['roofline_s']:.2f} | {row['bound']}"))
    print("\n" + _HEAD.format("program, samples in flight", "ms"))
    for row in rows:
        if row["phase"] != "sft":
            what = f"{row['phase']}, {row['settings']['sequences']}"
            print(_row(row, what, f"{row['roofline_s'] * 1e3:.1f} | {row['bound']}"))


def _row(row: dict[str, Any], what: str, roofline: str) -> str:
    peak = "over" if row["peak_hbm_bytes"] is None else f"{row['peak_hbm_bytes'] / GIB:.1f}"
    mesh = "x".join(map(str, row["mesh"]))
    limit, fits = row["hbm_limit_bytes"] / GIB, "yes" if row["fits"] else "no"
    speed = f"{row['tokens_per_s_per_chip']:,.0f} | {row['compile_s']:.0f}"
    return (
        f"| {row['config']} | {row['topology']} | {mesh} | {what} | {peak} | {limit:.2f} | {fits} | "
        f"{roofline} | {speed} |"
    )


if __name__ == "__main__":
    main()
