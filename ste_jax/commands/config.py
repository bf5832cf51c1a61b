"""`ste config` shows every field of a configuration, `ste init` prints the file of one to copy and edit."""

import dataclasses
import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from absl import app

from ste_jax.visible import visible

if TYPE_CHECKING:
    from ste_jax.config_reference import FieldInfo

_WIDTH = 100


def main(argv: list[str]) -> None:
    """Runs `ste config [NAME]` or `ste init NAME`."""
    from ste_jax.shipped import config_names

    if argv[1] == "init":
        if len(argv) != 3 or argv[2] not in config_names():
            names = ", ".join(config_names())
            raise app.UsageError(f"init needs the name of a shipped configuration: {names}")
        print(source(argv[2]), end="")
        return
    if len(argv) > 3:
        raise app.UsageError("config takes the name or the file of one configuration")
    print(visible(listing(argv[2] if len(argv) == 3 else "")))


def source(name: str) -> str:
    """Returns the text of the file of a shipped configuration. A copy of it works in any folder."""
    from ste_jax.shipped import config_folder

    return (config_folder() / f"{name}.py").read_text("utf-8")


def listing(config: str) -> str:
    """Returns every field with its value, type, stages and description.

    Args:
      config: a shipped name or a file, with an optional argument after a colon; "": the defaults.

    Raises:
      SteError: the configuration cannot be read.
    """
    from ste_jax.config import RunConfig, read_config
    from ste_jax.config_reference import own_fields, section_fields, section_of
    from ste_jax.shipped import read_config_file

    value = dataclasses.asdict(read_config(read_config_file(config))) if config else None
    lines = _lines(own_fields(), value)
    for field in dataclasses.fields(RunConfig):
        if section_of(field.type) is not None and field.name != "prefer":
            section = None if value is None else value[field.name]
            lines += ["", f"{field.name}:", *_lines(section_fields(field.name), section, f"{field.name}.")]
    return "\n".join(lines)


def _lines(fields: Iterable["FieldInfo"], values: Mapping[str, Any] | None, prefix: str = "") -> list[str]:
    from ste_jax.config_reference import literal

    lines = []
    for field in fields:
        shown = field.default_text if values is None else literal(_value(values, field.name))
        lines.append(f"{prefix}{field.name} = {shown}")
        about = f"{field.description} ({field.type}; affects: {field.stages})"
        lines += textwrap.wrap(about, _WIDTH, initial_indent="    ", subsequent_indent="    ")
    return lines


def _value(values: Mapping[str, Any], name: str) -> Any:
    """Returns the value of a dotted name; None for a field of a section that is not there."""
    value: Any = values
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
