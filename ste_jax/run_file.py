"""The file RUN.json of a workdir: the configuration of its run, the command, the commit and the versions.

`ste status WORKDIR` and `ste report WORKDIR` need nothing else, and the report shows how to repeat the run.
"""

import dataclasses
import json
import os
import shlex
from collections.abc import Sequence
from typing import Any

from etils import epath

from ste_jax.config import RunConfig, read_config
from ste_jax.distributed.preflight import commit_of, package_folder
from ste_jax.errors import SteError
from ste_jax.storage.files import parse_object, write_atomically
from ste_jax.storage.schema import SCHEMA_VERSION, check_version
from ste_jax.versions import versions

NAME = "RUN.json"
# Flags of a single stage, or of a single start.
_OF_ONE_START = ("--iteration", "--redo")
_REMEDY = "give --config and --workdir"


def write_run(workdir: epath.Path, config: RunConfig, command: Sequence[str]) -> None:
    """Writes the file, or replaces that of an earlier start.

    Args:
      workdir: folder of the run.
      config: the configuration.
      command: the arguments of the process, the program first; empty for a run that Python code started.
    """
    value = {
        "schema": "ste-run",
        "schema_version": SCHEMA_VERSION,
        "command": _whole_run(command),
        "folder": os.getcwd(),
        "commit": commit_of(package_folder()),
        "versions": versions(),
        "config": dataclasses.asdict(config),
    }
    write_atomically(workdir / NAME, json.dumps(value, indent=1))


def _whole_run(command: Sequence[str]) -> str:
    """Returns the command that makes the whole run, from one that may have made a single stage again."""
    if not command:
        return ""
    kept, skips = [], False
    for argument in command[2:]:
        name = argument.partition("=")[0]
        if not skips and name not in _OF_ONE_START:
            kept.append(argument)
        skips = name in _OF_ONE_START and "=" not in argument
    return shlex.join(["ste", "run", *kept])


def read_run(workdir: epath.Path) -> dict[str, Any]:
    """Returns the content of the file.

    Raises:
      SteError: "file_not_found", "data_invalid" or "schema_newer".
    """
    path = workdir / NAME
    if not path.exists():
        raise SteError("file_not_found", f"{path}: no such file; {_REMEDY}")
    value = parse_object(path.read_bytes(), str(path), _REMEDY)
    check_version(value, path)
    if not isinstance(value.get("config"), dict):
        raise SteError("data_invalid", f"{path}: holds no configuration; {_REMEDY}")
    return value


def config_of_run(workdir: epath.Path) -> RunConfig:
    """Returns the configuration of the run in a workdir.

    Raises:
      SteError: as `read_run`, or "config_invalid".
    """
    return read_config(read_run(workdir)["config"])
