"""The whole run on one page: the order of the stages and of the iterations, and how stages are undone."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import filelock
from etils import epath

from ste_jax import summary
from ste_jax.distributed import process
from ste_jax.records import Comparison, Instruction, Judgment
from ste_jax.stages import annotate, evaluate, pairs, prefer, select, train
from ste_jax.stages.context import Context
from ste_jax.storage.files import remove
from ste_jax.storage.readers import read_records
from ste_jax.storage.success import require_success


def run(context: Context) -> dict[str, Any]:
    """Runs what is left of a run, and returns its summary (of many hosts only on the first, else {})."""
    config = context.config
    train.check(context)
    context.check_files()
    instructions = select.run(context)
    splits = pairs.split(config, pairs.run(context, instructions))
    evaluate.run(context, 0, splits)
    told = report(context)
    for iteration in range(1, config.iterations + 1):
        judgments = annotate.run(context, iteration, splits.train)
        train.run(context, iteration, judgments, splits)
        prefer.run(context, iteration, judgments, splits)
        evaluate.run(context, iteration, splits)
        told = report(context)
    return told


def report(context: Context) -> dict[str, Any]:
    """Writes the summary and the report of what is finished, and returns the summary; see `run`."""
    return summary.write(context, stage_folders(context)) if process.is_process_zero() else {}


def run_stage(context: Context, stage: str, iteration: int) -> dict[str, Any]:
    """Runs one stage (of one iteration), and returns its summary; what it reads must be finished."""
    context.check_files()
    if stage == "select":
        select.run(context)
        return require_success(context.workdir / "select").summary
    if stage == "pairs":
        pairs.run(context, _read(context, "select", Instruction))
        return require_success(context.workdir / "pairs").summary
    splits = pairs.split(context.config, _read(context, "pairs", Comparison))
    if stage == "prefer" and not context.config.prefer:
        raise ValueError("config: no preference training is asked for; set prefer.epochs above 0")
    if stage == "evaluate":
        return evaluate.run(context, iteration, splits)
    if stage == "annotate":
        annotate.run(context, iteration, splits.train)
    else:
        judgments = _read(context, f"iteration_{iteration}/annotate", Judgment)
        {"train": train, "prefer": prefer}[stage].run(context, iteration, judgments, splits)
    return require_success(context.iteration(iteration) / stage).summary


def _read(context: Context, name: str, kind: type) -> list:
    return read_records(context.workdir / name, kind)


def stage_folders(context: Context) -> list[str]:
    """Returns the stages of a run in their order, by folder; also preferences that were asked for before."""
    config = context.config
    names = ["select", "pairs", "iteration_0/evaluate"]
    names += ["iteration_0/votes"] if config.evaluate.votes else []
    for k in range(1, config.iterations + 1):
        names += [f"iteration_{k}/annotate", f"iteration_{k}/train"]
        prefers = config.prefer or prefer.has_started(context.iteration(k))
        names += [f"iteration_{k}/prefer"] if prefers else []
        names += [f"iteration_{k}/evaluate"]
        names += [f"iteration_{k}/votes"] if config.evaluate.votes else []
    return names


def redo(context: Context, name: str) -> None:
    """Deletes a stage's folder and those of everything that follows from it.

    Raises:
      ValueError: there is no such stage.
    """
    names = stage_folders(context)
    if name not in names:
        raise ValueError(f"--redo: there is no stage {name!r}; choose from: {', '.join(names)}")
    process.on_process_zero(lambda: _delete(context, name, names))


def _delete(context: Context, name: str, names: list[str]) -> None:
    leaf = name.endswith(("evaluate", "votes"))
    # The last first: what a kill leaves was made from what is still there.
    for doomed in [name] if leaf else reversed(names[names.index(name) :]):
        folder = context.workdir / doomed
        remove(folder)
        if doomed.endswith("/prefer"):
            prefer.undo(folder.parent)
        elif doomed.endswith(("/train", "/evaluate")):
            remove(folder.parent / ("model" if doomed.endswith("/train") else "votes"))


@contextlib.contextmanager
def exclusive(workdir: epath.Path) -> Iterator[None]:
    """Makes the workdir and holds it for this process and those of its run on other hosts.

    Raises:
      ValueError: another run works in it, or it cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / f".writable.{process.index()}.{os.getpid()}"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"workdir {workdir} cannot be written ({error.strerror}); choose another --workdir"
        ) from error
    lock = filelock.FileLock(str(workdir / ".lock"), timeout=0)
    try:
        with lock if process.is_process_zero() else contextlib.nullcontext():
            process.barrier()
            yield
    except filelock.Timeout as error:
        raise ValueError(
            f"another run works in {workdir}; wait for it, or give this one another --workdir"
        ) from error
