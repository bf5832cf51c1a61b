"""The command `ste`: commands to modules, errors to one clear line; nothing else.

A module of `ste_jax.commands` holds a family of commands, with their flags and a `main(argv)`. Only that of
the command at hand is imported: commands share no flags and wait for no imports but their own.
"""

import errno
import importlib
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import NoReturn

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

from absl import app, flags

from ste_jax import options
from ste_jax.distributed.preemption import EXIT_STOPPED, StopRequested

_RUN = ("run", "select", "pairs", "annotate", "train", "prefer", "status", "report")
MODULES: dict[str, str] = {
    **{command: "ste_jax.commands.run" for command in _RUN},
    "evaluate": "ste_jax.commands.evaluate",
    "judge": "ste_jax.commands.judge",
    "stats": "ste_jax.commands.results",
    "compare": "ste_jax.commands.results",
    "convert": "ste_jax.commands.convert",
    "plan": "ste_jax.commands.plan",
    "preflight": "ste_jax.commands.preflight",
}
USAGE = """usage: ste COMMAND --config=FILE.py --workdir=FOLDER [--config.FIELD=VALUE ...]

  run                 all stages of all iterations; started again, it goes on where it was
  select | pairs      one stage
  annotate | train | prefer | evaluate --iteration=K
                      one stage of one iteration (evaluate takes 0 for the seed)
  status              what is done, what is left, how fast it goes
  report              writes summary.json and report.html of what is finished
  SIGTERM             stops at the next safe point with exit code 75: the same command goes on from there
  --redo=STAGE        first deletes a stage (select, pairs, iteration_1/annotate, ...) and what follows

  evaluate --model=MODEL (--benchmark=NAME [--path=FOLDER] | --data=FILE) --out=RESULT [--json]
           [--limit=N --votes=K --policy=wrong|rewardbench|dropped]
                      any model on any benchmark, in both orders; writes a result file
  stats RESULT        every number of a result file again, without a model
  compare RESULT_A RESULT_B
                      paired tests of two results

  plan --config=FILE.py --topology=v5p-128 [--phase=sft|dpo|prefill|decode] [--price-per-chip-hour=X] [--json]
                      what the run holds and costs on TPU slices, by the TPU compiler; needs no TPU
  preflight --config=FILE.py --workdir=FOLDER [--wait=SECONDS]
                      started on every worker of a pod: says which is missing, differs or lacks something
  convert SOURCE FOLDER
                      a Hugging Face model or GGUF file -> a model folder, a model folder -> Hugging Face

On many hosts each runs the same command; elsewhere than on TPUs with STE_COORDINATOR=HOST:PORT of worker 0,
STE_WORKERS and STE_WORKER (from 0) in its environment. docs/TPU.md says what happens when one dies.
STE_TRACEBACK=1 in the environment prints where in the code an error came from.
`ste COMMAND --help` lists all flags of a command.
"""
# How orbax says it, which writes by other means than Python's files.
_NO_SPACE = os.strerror(errno.ENOSPC)
_CODE = Path(__file__).parent
_COMMANDS = "ste_jax.commands"


def _guarded(argv: list[str]) -> None:
    try:
        importlib.import_module(MODULES[sys.argv[1]]).main(argv)
    except StopRequested:
        print(f"ste: stopped; what was finished is safe, {_again()} goes on from there", file=sys.stderr)
        sys.exit(EXIT_STOPPED)
    except app.UsageError as error:
        sys.exit(f"ste: {error}\n\n{USAGE}")
    except ValueError as error:
        if _NO_SPACE in str(error):
            _end(_unwritable("a file", _NO_SPACE))
        _end(f"{error}{'' if _is_ours(error) else ' (set STE_TRACEBACK=1 to see where)'}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise
        _end(_unwritable(error.filename or "a file", error.strerror))
    except KeyboardInterrupt:
        sys.exit(f"ste: interrupted; what was finished is safe, {_again()} goes on from there")


def _end(line: str) -> NoReturn:
    if os.environ.get("STE_TRACEBACK"):
        traceback.print_exc()
    sys.exit(f"ste: {line}")


def _is_ours(error: ValueError) -> bool:
    """Says whether a `raise` of ours made the error: then its text says all there is to know."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    # Compiled code leaves no frame, and JAX takes its own away: the last line is then the call of ours.
    return Path(last.filename).is_relative_to(_CODE) and (last.line or "").startswith("raise ")


def _unwritable(what: str, why: str | None) -> str:
    return (
        f"cannot use {what}: {why}. What was finished is safe; make room, or choose a place that may be "
        f"read and written; {_again()} goes on from there"
    )


def _again() -> str:
    redo = any(argument.startswith("--redo") for argument in sys.argv)
    return "the same command without --redo" if redo else "the same command"


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; for a wrong file or field ml_collections raises errors of many kinds."""
    try:
        rest = flags.FLAGS(argv)
        if "config" in flags.FLAGS and flags.FLAGS["config"].value is not None:
            flags.FLAGS["config"].value.lock()  # the first use tells that the file could not be read
        return rest
    except AttributeError as error:
        _refuse_renamed(argv)
        # It holds the KeyError of the unknown field, which may name a similar one in a second line.
        text = getattr(error.args[0], "args", error.args)[0]
        sys.exit(f"ste: --config has no field {' '.join(str(text).split())}")
    except (flags.Error, OSError) as error:
        # Above the last line ml_collections puts where it looked, or the traceback of the file.
        sys.exit(f"ste: {str(error).strip().splitlines()[-1].strip()}")


def _refuse_renamed(argv: list[str]) -> None:
    """Ends the program if an argument `--config.FIELD` is the old name of a renamed field."""
    from ste_jax.config import renamed_field

    for argument in argv:
        field = argument.lstrip("-").removeprefix("config.").partition("=")[0]
        if argument.startswith("-") and (new := renamed_field(field)):
            sys.exit(f"ste: --config.{field} is now --config.{new}")


def _help_of_flags() -> str:
    """Returns what the flags of the modules that the command at hand imported mean."""
    modules = [name for name in flags.FLAGS.flags_by_module_dict() if name.startswith(_COMMANDS)]
    return "".join(flags.FLAGS.module_help(name) + "\n" for name in sorted(modules))


def command() -> None:
    """Entry point of the command `ste`, as a program of its own."""
    options.restart_with_options()
    main()


def main() -> None:
    """Runs the command that the arguments of the program name."""
    logging.getLogger("absl").setLevel(logging.WARNING)
    if len(sys.argv) < 2 or sys.argv[1] in ("help", "-h", "--help"):
        print(USAGE)
        return
    if sys.argv[1] not in MODULES:
        sys.exit(f"ste: which command?\n\n{USAGE}")
    importlib.import_module(MODULES[sys.argv[1]])
    if {"-h", "--help"}.intersection(sys.argv[2:]):
        print(USAGE + _help_of_flags())
        return
    app.run(_guarded, flags_parser=_parse_flags)
