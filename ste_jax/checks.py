"""Checks of the arguments of public functions, before anything is computed."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ste_jax.errors import SteError


def check_whole(name: str, value: Any, *, least: int | None = None) -> None:
    """Raises SteError "argument_invalid" unless a value is a whole number, and at least `least`."""
    if type(value) is not int or (least is not None and value < least):
        bound = "" if least is None else f" of {least} or more"
        raise SteError("argument_invalid", f"{name} must be a whole number{bound}, not {value!r}")


def check_number(name: str, value: Any) -> None:
    """Raises SteError "argument_invalid" unless a value is a finite number."""
    # Compared, not math.isfinite: that refuses integers of more than 64 bits.
    if isinstance(value, bool) or not isinstance(value, int | float) or not -math.inf < value < math.inf:
        raise SteError("argument_invalid", f"{name} must be a number, not {value!r}")


def check_bool(name: str, value: Any) -> None:
    """Raises SteError "argument_invalid" unless a value is True or False."""
    if not isinstance(value, bool):
        raise SteError("argument_invalid", f"{name} must be True or False, not {value!r}")


def check_text(name: str, value: Any) -> None:
    """Raises SteError "argument_invalid" unless a value is text."""
    if not isinstance(value, str):
        raise SteError("argument_invalid", f"{name} must be text, not {value!r}")


def as_list(name: str, values: Any) -> list[Any]:
    """Returns the items of an iterable.

    Raises:
      SteError: "argument_invalid" for text, a mapping, or what cannot be iterated.
    """
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise SteError("argument_invalid", f"{name} must be a list, not {type(values).__name__}")
    return list(values)
