"""The configurations that the package ships, found by name from any folder.

In a checkout they are in `configs/`; an installed package holds the same files as `ste_jax/configs/`. A copy
works in any folder, since a configuration that builds on another one imports it by name.
"""

import runpy
import traceback
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ste_jax.errors import SteError


def config_folder() -> Path:
    """Returns the folder of the shipped configurations."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def config_names() -> list[str]:
    """Returns the names of the shipped configurations."""
    return sorted(path.stem for path in config_folder().glob("[!_]*.py"))


def resolve_config(value: str) -> str:
    """Returns the value of `--config` with the name of a shipped configuration replaced by its path.

    Args:
      value: "quickstart", "quickstart:runlocal", or the path of a file with an optional argument. An existing
        file of the same name comes first.
    """
    name, colon, argument = value.partition(":")
    if Path(name).is_file() or name not in config_names():
        return value
    return f"{config_folder() / name}.py{colon}{argument}"


def import_config(name: str) -> dict[str, Any]:
    """Returns the globals of a shipped configuration, such as `get_config`, for one that builds on it.

    Raises:
      SteError: "config_unknown".
    """
    if name not in config_names():
        raise SteError(
            "config_unknown", f"{name}: not a shipped configuration; there are {', '.join(config_names())}"
        )
    return runpy.run_path(str(config_folder() / f"{name}.py"))


def read_config_file(value: str | Path) -> dict[str, Any]:
    """Returns the fields that a configuration file sets, as nested dicts.

    Args:
      value: a shipped name or a path, with an optional argument after a colon.

    Raises:
      SteError: "config_unknown", if there is no such file, or "config_invalid", if it has no `get_config` or
        raises an error, which the message names with its line.
    """
    name, _, argument = resolve_config(str(value)).partition(":")
    if not Path(name).is_file():
        raise SteError(
            "config_unknown",
            f"{name}: there is no such file; shipped configurations are {', '.join(config_names())}",
        )
    try:
        return _run(name, argument)
    except SteError:
        raise
    except Exception as error:  # the file is a program, which may raise anything
        raise SteError("config_invalid", f"{_place(name, error)}: {_reason(error)}") from error


def _run(name: str, argument: str) -> dict[str, Any]:
    get_config = runpy.run_path(name).get("get_config")
    if get_config is None:
        raise SteError("config_invalid", f"{name}: defines no function get_config")
    config = get_config(argument) if argument else get_config()
    if not isinstance(config, ConfigDict):
        raise SteError(
            "config_invalid", f"{name}: get_config returns a {type(config).__name__}, not a ConfigDict"
        )
    return config.to_dict()


def _place(name: str, error: Exception) -> str:
    """Returns the file and the line that raised an error."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    return f"{name}, line {lines[-1]}" if lines else name


def _reason(error: Exception) -> str:
    return error.msg if isinstance(error, SyntaxError) else f"{type(error).__name__}: {error}"
