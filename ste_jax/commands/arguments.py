"""The spelling of flags: underscores, for which hyphens are accepted, and current names only."""

from ste_jax.errors import SteError
from ste_jax.shipped import resolve_config

# Flags that were renamed: the old name to the new one.
RENAMED_FLAGS = {"kept": "acceptance_rate"}


def normalize(arguments: list[str]) -> list[str]:
    """Returns the arguments of a program with flags in one spelling and shipped configurations as paths.

    Args:
      arguments: `sys.argv`; what follows `--` is left alone.

    Raises:
      SteError: "flag_renamed".
    """
    result: list[str] = []
    for i, argument in enumerate(arguments):
        if argument == "--":
            return [*result, *arguments[i:]]
        if result and result[-1] in ("--config", "-config"):
            argument = resolve_config(argument)
        elif argument.startswith("--"):
            argument = _flag(argument)
        result.append(argument)
    return result


def flag_value(arguments: list[str], name: str) -> str | None:
    """Returns the value of a flag in normalized arguments without parsing them; None if it is not given."""
    for i, argument in enumerate(arguments):
        if argument.startswith(f"--{name}="):
            return argument.partition("=")[2]
        if argument == f"--{name}" and i + 1 < len(arguments):
            return arguments[i + 1]
    return None


def _flag(argument: str) -> str:
    name, equals, value = argument[2:].partition("=")
    name = name.replace("-", "_")
    if name in RENAMED_FLAGS:
        raise SteError("flag_renamed", f"--{name} is now --{RENAMED_FLAGS[name]}")
    if name == "config":
        value = resolve_config(value)
    return f"--{name}{equals}{value}"
