"""The fields of a configuration with their types, defaults, stages and descriptions, from the dataclasses."""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from ste_jax.config import RunConfig
from ste_jax.config_field import INHERITED, STAGES, type_text


class FieldInfo(NamedTuple):
    """A field of a configuration.

    Attributes:
      name: dotted name, such as "select.size".
      type: its type, in words for choices.
      default: default value; `dataclasses.MISSING` if it is required.
      affects: stages that become stale when the value changes.
      by_content: True if the content of the named file or model counts, not its name.
      description: what it is.
    """

    name: str
    type: str
    default: Any
    affects: tuple[str, ...]
    by_content: bool
    description: str

    @property
    def stages(self) -> str:
        """The stages that the field affects, as text."""
        stages = "all" if set(self.affects) == set(STAGES) else ", ".join(self.affects) or "-"
        return stages + (" (content)" if self.by_content else "")

    @property
    def default_text(self) -> str:
        """The default value as it is written in a configuration."""
        return "required" if self.default is dataclasses.MISSING else literal(self.default)


def section_of(kind: Any) -> type | None:
    """Returns the dataclass of a field that holds a section, or None."""
    options = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return next((o for o in options if isinstance(o, type) and dataclasses.is_dataclass(o)), None)


def own_fields() -> Iterator[FieldInfo]:
    """Yields the fields of a configuration outside of its sections."""
    return _fields(RunConfig, (), nested=False)


def section_fields(name: str) -> Iterator[FieldInfo]:
    """Yields the fields of a section of a configuration and of those inside it, without its name."""
    (field,) = (field for field in dataclasses.fields(RunConfig) if field.name == name)
    section = section_of(field.type)
    assert section is not None, name
    return _fields(section, field.metadata["affects"], defaults=default_of(field))


def descriptions(section: type) -> dict[str, str]:
    """Returns the descriptions in the Attributes block of the docstring of a dataclass, by field."""
    found: dict[str, str] = {}
    _, _, block = inspect.cleandoc(section.__doc__ or "").partition("Attributes:\n")
    name = ""
    for line in block.splitlines():
        if match := re.fullmatch(r"  (\w+): (.*)", line):
            name, found[match[1]] = match[1], match[2]
        elif name and line.startswith("    "):
            found[name] += f" {line.strip()}"
    return found


def default_of(field: dataclasses.Field) -> Any:
    """Returns the default value of a field, or `dataclasses.MISSING`."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def literal(value: Any) -> str:
    """Returns a value as it is written in Python, with double quotes."""
    return repr(value).replace("'", '"')


def _fields(
    section: type, holder: tuple[str, ...], prefix: str = "", *, defaults: Any = None, nested: bool = True
) -> Iterator[FieldInfo]:
    """Yields the fields of a section; `defaults` is a section with the default values, if there is one."""
    described = descriptions(section)
    for field in dataclasses.fields(section):
        affects = holder if field.metadata["affects"] == INHERITED else field.metadata["affects"]
        default = getattr(defaults, field.name, default_of(field))
        if inner := section_of(field.type):
            if nested:
                yield from _fields(inner, affects, f"{prefix}{field.name}.", defaults=default)
            continue
        yield FieldInfo(
            name=f"{prefix}{field.name}",
            type=type_text(field.type),
            default=default,
            affects=tuple(affects),
            by_content=field.metadata["by_content"],
            description=described[field.name],
        )
