"""The commands of a run: all stages, one stage, its status, its report."""

import dataclasses
import json
import logging
import sys
from typing import TYPE_CHECKING, Any

from absl import app, flags

from ste_jax.commands.config_flag import define_config
from ste_jax.commands.topology_flag import TOPOLOGY
from ste_jax.errors import SteError
from ste_jax.paths import local_path
from ste_jax.visible import visible

if TYPE_CHECKING:
    from ste_jax.config import RunConfig
    from ste_jax.stages.context import Context

STAGES = ("select", "pairs", "annotate", "train", "prefer", "evaluate")
_CONFIG = define_config("Configuration: a file, or the name of a shipped one.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; created if it is missing.")
_ITERATION = flags.DEFINE_integer("iteration", 1, "Iteration of a single stage.", lower_bound=0)
_DRY_RUN = flags.DEFINE_bool(
    "dry_run",
    False,
    "Print what `ste run` would read, make and show to the judge, and the time that it would take, measured "
    "by a short probe; with --topology its chip-hours on TPUs instead. Nothing is written.",
)
_REDO = flags.DEFINE_string("redo", "", "Stage to delete and run again, with all later ones.")


def is_given() -> bool:
    """Returns True if the flags name a run."""
    return _CONFIG.value is not None or bool(_WORKDIR.value)


def main(argv: list[str]) -> None:
    """Runs `ste run`, a stage, `ste status` or `ste report`; `argv` holds what is not a flag."""
    looks = argv[1] in ("status", "report")
    if len(argv) > (3 if looks and not is_given() else 2):
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[2:])}")
    folder = argv[2] if len(argv) == 3 else _WORKDIR.value
    if not folder or (_CONFIG.value is None and not looks):
        needed = "a workdir is" if looks else "--config and --workdir are"
        raise app.UsageError(f"{needed} required")
    # Imported here: the help of a command must not wait for JAX.
    from etils import epath

    from ste_jax.config import read_config

    workdir = epath.Path(local_path(folder, "--workdir"))
    if _CONFIG.value is None:
        from ste_jax.run_file import config_of_run

        if not workdir.is_dir():
            raise SteError("file_not_found", f"{workdir}: no such folder")
        config = config_of_run(workdir)
    else:
        config = read_config(_CONFIG.value.to_dict())
    if argv[1] == "run":
        _check_paths(config)
    from ste_jax.stages.context import Context

    context = Context(config, workdir)
    first = 0 if argv[1] == "evaluate" else 1
    if not first <= _ITERATION.value <= context.config.iterations:
        raise app.UsageError(f"--iteration must be from {first} to config.iterations")
    if _DRY_RUN.value:
        _dry_run(context, argv[1])
    else:
        {"status": _status, "report": _report}.get(argv[1], _work)(context, argv[1])


def _check_paths(config: "RunConfig") -> None:
    """Checks that the files of a configuration exist, before libraries are loaded that take seconds."""
    from ste_jax.checkpoint.location import check_exists
    from ste_jax.data.sources import is_path

    check_exists(config.model)
    files = [config.instructions] if is_path(config.instructions) else []
    for path in (*files, config.labelled_pairs, *config.select.decontaminate):
        if path and not local_path(path, "file").exists():
            raise SteError("file_not_found", f"{path}: no such file or folder")


def _dry_run(context: "Context", command: str) -> None:
    from ste_jax import pipeline
    from ste_jax.commands.dry_run import print_dry_run

    topologies = TOPOLOGY.value or [""]
    if command != "run" or len(topologies) > 1:
        raise app.UsageError("--dry_run belongs to ste run, with one --topology at most")
    if not topologies[0]:
        pipeline.check_devices(context)
    pipeline.check_inputs(context)
    print_dry_run(context, topologies[0])


def _status(context: "Context", command: str) -> None:
    from rich.console import Console

    from ste_jax import pipeline
    from ste_jax.status import render_status

    Console().print(render_status(context.workdir, pipeline.stage_folders(context)))


def _report(context: "Context", command: str) -> None:
    from ste_jax import pipeline

    if not context.workdir.is_dir():
        raise SteError("file_not_found", f"--workdir {context.workdir}: no such folder")
    # Without the lock: finished stages are read and files replaced atomically, also while a run works here.
    _show(context, pipeline.report(context))


def _work(context: "Context", command: str) -> None:
    from ste_jax import pipeline
    from ste_jax.distributed import preemption, process
    from ste_jax.distributed.preflight import software
    from ste_jax.distributed.rendezvous import session
    from ste_jax.run_file import write_run

    with session(context.workdir, software(dataclasses.asdict(context.config))):
        preemption.install_handler()
        with pipeline.exclusive(context.workdir):
            _open_log(context)
            if process.is_process_zero():
                write_run(context.workdir, context.config, sys.argv)
            if _REDO.value:
                pipeline.redo(context, _REDO.value)
            if command not in STAGES:
                if summary := pipeline.run_stages(context):
                    _show(context, summary)
                return
            summary = pipeline.run_stage(context, command, _ITERATION.value)
            if process.is_process_zero():
                print(json.dumps(summary, indent=1))


def _open_log(context: "Context") -> None:
    from ste_jax import logs
    from ste_jax.distributed import process
    from ste_jax.versions import versions

    logs.open_file(context.workdir / "logs", process.index())
    log = logging.getLogger(__name__)
    log.info("versions: %s", json.dumps(versions()))
    log.info("config: %s", json.dumps(dataclasses.asdict(context.config)))
    logs.watch_compilation()
    logs.log_devices()


def _show(context: "Context", summary: dict[str, Any]) -> None:
    from rich.console import Console

    from ste_jax.data.header import shown
    from ste_jax.report.terminal import render_terminal_table

    Console().print(render_terminal_table(summary))
    if left_out := summary.get("columns_left_out"):
        print(f"\ncolumns of the instructions that are not read: {shown(left_out)}")
    workdir = visible(str(context.workdir))
    print(f"\nsummary: {workdir}/summary.json\nreport:  {workdir}/report.html")
