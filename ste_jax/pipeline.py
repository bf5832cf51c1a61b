"""The order of stages and iterations of a run, and how stages are deleted to run again."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
from etils import epath
from ml_collections import ConfigDict

from ste_jax import summary
from ste_jax.config import RunConfig, read_config
from ste_jax.distributed import process
from ste_jax.distributed.preflight import software
from ste_jax.distributed.rendezvous import session
from ste_jax.errors import SteError
from ste_jax.pairs.splits import Splits
from ste_jax.pairs.used import write_splits
from ste_jax.paths import local_path
from ste_jax.records import Comparison, Instruction, Judgment
from ste_jax.run_file import write_run
from ste_jax.shipped import read_config_file
from ste_jax.stages import annotate, evaluate, pairs, prefer, select, train
from ste_jax.stages.context import Context
from ste_jax.stages.templates import check_template
from ste_jax.storage.files import remove
from ste_jax.storage.readers import IndexedRecords, read_records
from ste_jax.storage.success import require_success


def run(config: str | Path | ConfigDict | RunConfig, workdir: str | Path) -> dict[str, Any]:
    """Runs what is left of a run and returns its summary.

    On several processes all call it; only the first returns the summary, the others {}.

    Args:
      config: name of a shipped configuration ("quickstart", "quickstart:runlocal"), path of a file, or the
        configuration itself.
      workdir: folder of the run, created if it is missing. A run that was begun there is continued.

    Raises:
      SteError: the configuration, a file that it names, or the workdir cannot be used.
    """
    if isinstance(config, str | Path):
        config = read_config(read_config_file(config))
    elif isinstance(config, ConfigDict):
        config = read_config(config.to_dict())
    context = Context(config, epath.Path(local_path(workdir, "workdir")))
    with session(context.workdir, software(dataclasses.asdict(config))), exclusive(context.workdir):
        if process.is_process_zero():
            write_run(context.workdir, config, ())
        return run_stages(context)


def run_stages(context: Context) -> dict[str, Any]:
    """Runs what is left of a run in the session and the workdir that the caller holds; see `run`."""
    config = context.config
    check_devices(context)
    check_inputs(context)
    instructions = select.run(context)
    pairs.run(context, instructions)
    splits = _splits(context)
    evaluate.run(context, 0, splits)
    result = report(context)
    for iteration in range(1, config.iterations + 1):
        judgments = annotate.run(context, iteration, splits.train)
        train.run(context, iteration, judgments, splits)
        prefer.run(context, iteration, judgments, splits)
        evaluate.run(context, iteration, splits)
        result = report(context)
    return result


def check_devices(context: Context) -> None:
    """Checks, before hours of work, that the devices can train with the settings.

    Raises:
      SteError: see `stages.train.check`.
    """
    train.check(context)


def check_inputs(context: Context) -> None:
    """Checks the files, the libraries and the templates that later stages need.

    Raises:
      SteError: one of them is missing or cannot be used.
    """
    context.check_files()
    check_template(context)


def report(context: Context) -> dict[str, Any]:
    """Writes the summary and the report of the finished stages, and returns the summary; see `run`."""
    return summary.write(context, stage_folders(context)) if process.is_process_zero() else {}


def run_stage(context: Context, stage: str, iteration: int) -> dict[str, Any]:
    """Runs one stage (of one iteration), and returns its summary; what it reads must be finished."""
    check_inputs(context)
    if stage == "select":
        select.run(context)
        return require_success(context.workdir / "select").summary
    if stage == "pairs":
        pairs.run(context, _read(context, "select", Instruction))
        return require_success(context.workdir / "pairs").summary
    splits = _splits(context)
    if stage == "prefer" and not context.config.prefer:
        raise SteError("config_invalid", "config: set prefer.epochs above 0 for preference training")
    if stage == "evaluate":
        return evaluate.run(context, iteration, splits)
    if stage == "annotate":
        annotate.run(context, iteration, splits.train)
    else:
        judgments = IndexedRecords(context.iteration(iteration) / "annotate", Judgment)
        {"train": train, "prefer": prefer}[stage].run(context, iteration, judgments, splits)
    return require_success(context.iteration(iteration) / stage).summary


def _splits(context: Context) -> Splits:
    """Returns the finished pairs by use, and notes that of labelled pairs; those to train on stay on disk."""
    finished = IndexedRecords(context.workdir / "pairs", Comparison)
    splits = pairs.split(context.config, finished, context.named)
    labelled = context.config.labelled_pairs
    process.on_process_zero(lambda: write_splits(context.workdir, labelled, splits))
    return splits


def _read(context: Context, name: str, kind: type) -> list:
    return read_records(context.workdir / name, kind)


def stage_folders(context: Context) -> list[str]:
    """Returns the folders of the stages in order, including preference training of an earlier config."""
    config = context.config
    names = ["select", "pairs", "iteration_0/evaluate"]
    parts = [name for name in ("votes", "probes") if getattr(config.evaluate, name)]
    names += [f"iteration_0/{name}" for name in parts]
    for k in range(1, config.iterations + 1):
        names += [f"iteration_{k}/annotate", f"iteration_{k}/train"]
        prefers = config.prefer or prefer.has_started(context.iteration(k))
        names += [f"iteration_{k}/prefer"] if prefers else []
        names += [f"iteration_{k}/evaluate"]
        names += [f"iteration_{k}/{name}" for name in parts]
    return names


def redo(context: Context, name: str) -> None:
    """Deletes the folder of a stage and those of all stages that depend on it.

    Raises:
      SteError: "stage_unknown".
    """
    names = stage_folders(context)
    if name not in names:
        raise SteError("stage_unknown", f"--redo: no stage {name!r}; choose from: {', '.join(names)}")
    process.on_process_zero(lambda: _delete(context, name, names))


def _delete(context: Context, name: str, names: list[str]) -> None:
    leaf = name.endswith(("evaluate", "votes", "probes"))
    # Last first, so that after a kill the inputs of every remaining stage are still there.
    for stage in [name] if leaf else reversed(names[names.index(name) :]):
        folder = context.workdir / stage
        remove(folder)
        if stage.endswith("/prefer"):
            prefer.undo(folder.parent)
        elif stage.endswith("/train"):
            remove(folder.parent / "model")
        elif stage.endswith("/evaluate"):
            for part in ("votes", "probes"):
                remove(folder.parent / part)


@contextlib.contextmanager
def exclusive(workdir: epath.Path) -> Iterator[None]:
    """Creates the workdir and holds it for the processes of this run.

    Raises:
      SteError: "workdir_in_use" or "workdir_unwritable".
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / f".writable.{process.index()}.{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise SteError(
            "workdir_unwritable",
            f"workdir {workdir} cannot be written ({error.strerror}); choose another --workdir",
        ) from error
    lock = filelock.FileLock(str(workdir / ".lock"), timeout=0)
    try:
        with lock if process.is_process_zero() else contextlib.nullcontext():
            process.barrier()
            yield
    except filelock.Timeout as error:
        raise SteError(
            "workdir_in_use", f"another run works in {workdir}; wait for it, or choose another --workdir"
        ) from error
