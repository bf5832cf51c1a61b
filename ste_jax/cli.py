"""The command `ste`: finds the module of a command, and turns errors into exit codes and one clear line.

A module of `ste_jax.commands` holds a family of commands: their flags, and a `main(argv)`. Only the module of
the given command is imported, and it imports the rest of the package in `main`: `ste COMMAND --help` loads no
JAX. A `SteError` prints its message. Any other error prints its first line and the path of a log file
that holds the full traceback. SIGTERM ends every command with exit code 75, from its first moment on.
"""

import difflib
import errno
import importlib
import logging
import os
import re
import signal
import sys
from pathlib import Path
from typing import NoReturn

from ste_jax.distributed import preemption

# Before the other imports: a preemption does not wait for them.
preemption.exit_on_signal()

from absl import flags

from ste_jax import __version__, logs, options
from ste_jax.commands.arguments import flag_value, normalize
from ste_jax.commands.usage import usage, usage_of
from ste_jax.distributed import process
from ste_jax.distributed.preemption import EXIT_STOPPED, StopRequested
from ste_jax.errors import SteError
from ste_jax.shipped import read_config_file
from ste_jax.visible import visible_message

_RUN = ("run", "select", "pairs", "annotate", "train", "prefer", "status", "report")
MODULES: dict[str, str] = {
    **{command: "ste_jax.commands.run" for command in _RUN},
    "evaluate": "ste_jax.commands.evaluate",
    "judge": "ste_jax.commands.judge",
    "calibrate": "ste_jax.commands.calibrate",
    "stats": "ste_jax.commands.results",
    "compare": "ste_jax.commands.results",
    "data": "ste_jax.commands.data",
    "config": "ste_jax.commands.config",
    "init": "ste_jax.commands.config",
    "completion": "ste_jax.commands.completion",
    "convert": "ste_jax.commands.convert",
    "plan": "ste_jax.commands.plan",
    "preflight": "ste_jax.commands.preflight",
}
# Commands that compute: they may start the interpreter again with faster options.
_COMPUTES = frozenset({*_RUN, "evaluate", "judge", "calibrate", "convert", "plan"}) - {"status", "report"}
_NO_MAPPING = re.compile(r"--config\.([\w.]+)=.*: Failed to parse '(.*)' as a ConfigDict")
_NO_BOOLEAN = re.compile(r"--([\w.]+)=(.*): \('Non-boolean argument")
_HELP = frozenset({"-h", "--help"})
_COMMANDS = "ste_jax.commands"
# The text by which Orbax, which does not write with Python's files, reports a full disk.
_NO_SPACE = os.strerror(errno.ENOSPC)
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def command() -> None:
    """Runs `ste` as a program of its own; the entry point of the package."""
    preemption.block_signal()  # until `main`, which may run in this interpreter or in the next one
    if len(sys.argv) > 1 and sys.argv[1] in _COMPUTES and not _HELP.intersection(sys.argv):
        options.restart_with_options()
    options.choose_platform()
    main()


def main() -> None:
    """Runs the command that `sys.argv` names."""
    preemption.exit_on_signal()
    try:
        _dispatch()
        sys.stdout.flush()
    except BrokenPipeError:
        _end_of_pipe()
    except KeyboardInterrupt:
        _end_interrupted()
    finally:
        preemption.ignore_signal()


def _end_interrupted() -> NoReturn:
    """Ends the process after Ctrl-C without the shutdown of the interpreter.

    A thread of XLA that still compiles would touch what the shutdown has freed, and end in a fault.
    """
    print(f"ste: interrupted; what was finished is safe, {_again()} goes on from there", file=sys.stderr)
    sys.stderr.flush()
    os._exit(128 + signal.SIGINT)


def _end_of_pipe() -> NoReturn:
    """Ends the process as SIGPIPE does: the reader of the output, such as `head`, has read enough."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
    sys.exit(128 + signal.SIGPIPE)


def _dispatch() -> None:
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    if len(sys.argv) < 2 or sys.argv[1] in ("help", *_HELP):
        print(usage())
        return
    if sys.argv[1] in ("version", "--version"):
        print(f"ste {__version__}")
        return
    if sys.argv[1] not in MODULES:
        near = difflib.get_close_matches(sys.argv[1], MODULES, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        _fail(f"{sys.argv[1]!r} is not a command; {hint}`ste help` lists them")
    try:
        sys.argv[:] = normalize(sys.argv)  # absl and ml_collections read this list
    except SteError as error:
        _fail(str(error))
    importlib.import_module(MODULES[sys.argv[1]])
    # After absl.logging is imported, which sets the level of this logger.
    logging.getLogger("absl").setLevel(logging.WARNING)
    if _HELP.intersection(sys.argv[2:]):
        print(usage_of(sys.argv[1]) + _help_of_flags())
        return
    # Here: --help and --version do without it.
    from absl import app

    app.run(_guarded, flags_parser=_parse_flags)


def _fail(message: str) -> NoReturn:
    """Ends the process with one message, which may hold text from files."""
    sys.exit(f"ste: {visible_message(message)}")


def _guarded(argv: list[str]) -> None:
    from absl.app import UsageError

    logs.start()
    try:
        importlib.import_module(MODULES[sys.argv[1]]).main(argv)
    except BrokenPipeError:
        _end_of_pipe()
    except StopRequested:
        print(f"ste: stopped; what was finished is safe, {_again()} goes on from there", file=sys.stderr)
        sys.exit(EXIT_STOPPED)
    except UsageError as error:
        _fail(f"{error}; see `ste {sys.argv[1]} --help`")
    except SteError as error:
        logging.getLogger("ste_jax").error("%s [%s]", error, error.code)
        _fail(str(error))
    except Exception as error:
        _end(error)


def _end(error: Exception) -> NoReturn:
    """Ends the process with one line about an error that is not a `SteError`, and logs its traceback."""
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        line = _unwritable(error.filename or "a file", error.strerror)
    elif _NO_SPACE in str(error):
        line = _unwritable("a file", _NO_SPACE)
    else:
        text = str(error).strip().splitlines()
        line = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
    path = logs.write_error(error, _log_folder(), process.index())
    _fail(f"{line} (the full traceback is in {path})" if path else line)


def _log_folder() -> Path | None:
    """Returns the folder of log files of the run that the arguments name, if there is such a run."""
    workdir = flag_value(sys.argv, "workdir")
    folder = Path(os.path.expanduser(workdir)) if workdir and "://" not in workdir else None
    return folder / "logs" if folder and folder.is_dir() else None


def _unwritable(what: str, why: str | None) -> str:
    return (
        f"cannot use {what}: {why}. What was finished is safe; make room, or choose a folder that can be "
        f"read and written; {_again()} goes on from there"
    )


def _again() -> str:
    redo = any(argument.startswith("--redo") for argument in sys.argv)
    return "the same command without --redo" if redo else "the same command"


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags; ml_collections raises errors of many kinds for a wrong file or field."""
    try:
        rest = flags.FLAGS(argv)
        if "config" in flags.FLAGS and flags.FLAGS["config"].value is not None:
            flags.FLAGS["config"].value.lock()  # reports a file that could not be read
        return rest
    except (AttributeError, KeyError) as error:
        _refuse_broken_config(argv)
        _refuse_renamed(argv)
        # An AttributeError holds the KeyError of the unknown field, which may name a similar one in a second
        # line; the KeyError of an unknown section is raised as it is.
        text = " ".join(str(getattr(error.args[0], "args", error.args)[0]).split())
        field, _, near = text.partition(" Did you mean ")
        hint = f" (did you mean {near.split()[0]}?)" if near else ""
        _fail(f"--config has no field {field}{hint}: docs/CONFIG.md and `ste config` list the fields")
    except (flags.Error, OSError) as error:
        _refuse_broken_config(argv)
        _refuse_renamed(argv)
        if match := _NO_MAPPING.search(str(error)):
            field, value = match.groups()
            _fail(f"--config.{field}: expected a mapping, such as {{{value!r}: 1.0}}, not {value!r}")
        if match := _NO_BOOLEAN.search(str(error)):
            field, value = match.groups()
            _fail(f"--{field} must be True or False, not {value!r}")
        # Above the last line ml_collections puts where it looked, or the traceback of the file.
        _fail(str(error).strip().splitlines()[-1].strip())
    except Exception:  # the configuration is a program, which may raise anything
        _refuse_broken_config(argv)
        raise


def _refuse_broken_config(argv: list[str]) -> None:
    """Ends the program if the file of --config raises an error, which is named with its line."""
    if name := flag_value(argv, "config"):
        try:
            read_config_file(name)
        except SteError as error:
            _fail(str(error))


def _refuse_renamed(argv: list[str]) -> None:
    """Ends the program if an argument `--config.FIELD=VALUE` has the old name of a field or a value."""
    from ste_jax.config_renames import renamed_field, renamed_value

    for argument in argv:
        if not argument.startswith(("--config.", "-config.")):
            continue
        name, _, value = argument.lstrip("-").partition("=")
        names = name.split(".")[1:]
        if new := renamed_value(".".join(names), value):
            _fail(f"the value {value!r} of --config.{'.'.join(names)} is now {new!r}")
        for end in range(1, len(names) + 1):  # a renamed section, too
            field = ".".join(names[:end])
            if new := renamed_field(field):
                _fail(f"--config.{field} is now --config.{new}")


def _help_of_flags() -> str:
    """Returns the help of the flags that the module of the given command defines."""
    modules = [name for name in flags.FLAGS.flags_by_module_dict() if name.startswith(_COMMANDS)]
    return "".join(flags.FLAGS.module_help(name) + "\n" for name in sorted(modules))
