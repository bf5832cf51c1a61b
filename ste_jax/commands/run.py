"""The commands of a run: all stages, one stage, how far it is, its report."""

import json
from typing import Any

from absl import app, flags
from etils import epath
from ml_collections import config_flags
from rich.console import Console

from ste_jax import pipeline
from ste_jax.config import read_config
from ste_jax.distributed import preemption, process
from ste_jax.distributed.preflight import software
from ste_jax.distributed.rendezvous import session
from ste_jax.paths import local_path
from ste_jax.report.terminal import render_terminal_table
from ste_jax.stages.context import Context
from ste_jax.status import render_status

STAGES = ("select", "pairs", "annotate", "train", "prefer", "evaluate")
_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, as configs/quickstart.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if missing.")
_ITERATION = flags.DEFINE_integer("iteration", 1, "Iteration of a single stage.", lower_bound=0)
_REDO = flags.DEFINE_string("redo", "", "Stage to delete and make again, with all that follows from it.")


def is_asked_for() -> bool:
    """Says whether the flags name a run."""
    return _CONFIG.value is not None or bool(_WORKDIR.value)


def main(argv: list[str]) -> None:
    """Runs `ste run`, a stage, `ste status` or `ste report`; `argv` holds what is not a flag."""
    if len(argv) != 2:
        raise app.UsageError(f"one command is enough: {' '.join(argv[1:])}")
    command = argv[1]
    if _CONFIG.value is None or not _WORKDIR.value:
        raise app.UsageError("--config and --workdir are needed")
    workdir = epath.Path(local_path(_WORKDIR.value, "--workdir"))
    context = Context(read_config(_CONFIG.value.to_dict()), workdir)
    first = 0 if command == "evaluate" else 1
    if not first <= _ITERATION.value <= context.config.iterations:
        raise app.UsageError(f"--iteration must be from {first} to config.iterations")
    if command == "status":
        Console().print(render_status(context.workdir, pipeline.stage_folders(context)))
        return
    if command == "report":
        with pipeline.exclusive(context.workdir):
            _show(context, pipeline.report(context))
        return
    with session(context.workdir, software(context.config)):
        preemption.install_handler()
        with pipeline.exclusive(context.workdir):
            _work(context, command)


def _work(context: Context, command: str) -> None:
    if _REDO.value:
        pipeline.redo(context, _REDO.value)
    if command in STAGES:
        summary = pipeline.run_stage(context, command, _ITERATION.value)
        if process.is_process_zero():
            print(json.dumps(summary, indent=1))
    elif summary := pipeline.run(context):
        _show(context, summary)


def _show(context: Context, summary: dict[str, Any]) -> None:
    Console().print(render_terminal_table(summary))
    print(f"\nsummary: {context.workdir / 'summary.json'}\nreport:  {context.workdir / 'report.html'}")
