"""The command `ste`: commands to functions, errors to one clear line; nothing else."""

import errno
import json
import logging
import os
import sys

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

from absl import app, flags
from etils import epath
from ml_collections import config_flags
from rich.console import Console

from ste_jax import pipeline
from ste_jax.config import read_config
from ste_jax.report.terminal import render_terminal_table
from ste_jax.stages.context import Context
from ste_jax.status import render_status

STAGES = ("select", "pairs", "annotate", "train", "evaluate")
USAGE = """usage: ste COMMAND --config=FILE.py --workdir=FOLDER [--config.FIELD=VALUE ...]

  run                 all stages of all iterations; started again, it goes on where it was
  select | pairs      one stage
  annotate | train | evaluate --iteration=K
                      one stage of one iteration (evaluate takes 0 for the seed)
  status              what is done, what is left, how fast it goes
  report              writes summary.json and report.html of what is finished

  --redo=STAGE        first deletes a stage (select, pairs, iteration_1/annotate, ...) and what follows
"""
# How orbax says it, which writes by other means than Python's files.
_NO_SPACE = os.strerror(errno.ENOSPC)

_CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration file, as configs/quickstart.py.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if missing.")
_ITERATION = flags.DEFINE_integer("iteration", 1, "Iteration of a single stage.", lower_bound=0)
_REDO = flags.DEFINE_string("redo", "", "Stage to delete and make again, with all that follows from it.")


def _main(argv: list[str]) -> None:
    command = argv[1] if len(argv) == 2 else ""
    if command not in ("run", "status", "report", *STAGES):
        raise app.UsageError("which command?")
    if _CONFIG.value is None or not _WORKDIR.value:
        raise app.UsageError("--config and --workdir are needed")
    context = Context(read_config(_CONFIG.value.to_dict()), epath.Path(_WORKDIR.value).absolute())
    first = 0 if command == "evaluate" else 1
    if not first <= _ITERATION.value <= context.config.iterations:
        raise app.UsageError(f"--iteration must be from {first} to config.iterations")
    if command == "status":
        Console().print(render_status(context.workdir, pipeline.stage_folders(context.config)))
        return
    with pipeline.exclusive(context.workdir):
        if _REDO.value:
            pipeline.redo(context, _REDO.value)
        if command in STAGES:
            print(json.dumps(pipeline.run_stage(context, command, _ITERATION.value), indent=1))
        else:
            summary = pipeline.run(context) if command == "run" else pipeline.report(context)
            Console().print(render_terminal_table(summary))
            print(
                f"\nsummary: {context.workdir / 'summary.json'}\nreport:  {context.workdir / 'report.html'}"
            )


def _guarded(argv: list[str]) -> None:
    try:
        _main(argv)
    except app.UsageError as error:
        sys.exit(f"ste: {error}\n\n{USAGE}")
    except ValueError as error:
        if _NO_SPACE in str(error):
            sys.exit(_unwritable("a file", _NO_SPACE))
        sys.exit(f"ste: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        sys.exit(_unwritable(error.filename or "a file", error.strerror))
    except KeyboardInterrupt:
        sys.exit(f"ste: interrupted; what was finished is safe, {_again()} goes on from there")


def _unwritable(what: str, why: str | None) -> str:
    return (
        f"ste: cannot use {what}: {why}. What was finished is safe; make room, or choose a place that may be "
        f"read and written; {_again()} goes on from there"
    )


def _again() -> str:
    return "the same command without --redo" if _REDO.value else "the same command"


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; for a wrong file or field ml_collections raises errors of many kinds."""
    try:
        rest = flags.FLAGS(argv)
        if _CONFIG.value is not None:
            _CONFIG.value.lock()  # the first use tells that the file could not be read
        return rest
    except AttributeError as error:
        # It holds the KeyError of the unknown field, which may name a similar one in a second line.
        text = getattr(error.args[0], "args", error.args)[0]
        sys.exit(f"ste: --config has no field {' '.join(str(text).split())}")
    except (flags.Error, OSError) as error:
        # Above the last line ml_collections puts where it looked, or the traceback of the file.
        sys.exit(f"ste: {str(error).strip().splitlines()[-1].strip()}")


def main() -> None:
    """Entry point of the command `ste`."""
    logging.getLogger("absl").setLevel(logging.WARNING)
    if len(sys.argv) < 2 or sys.argv[1] in ("help", "-h", "--help"):
        print(USAGE)
        return
    app.run(_guarded, flags_parser=_parse_flags)
