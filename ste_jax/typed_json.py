"""Checks that JSON values have the types that the fields of a dataclass declare."""

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from ste_jax.errors import SteError

T = TypeVar("T")
Check = Callable[[Any], bool]
# Larger numbers fit neither an array nor a float.
_MOST = 2**63


def build(kind: type[T], value: Any) -> T:
    """Returns the dataclass whose fields a JSON object holds; a list in a field of tuples stays a list.

    Raises:
      ValueError: names the fields that are unknown, missing or of another type.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"not an object but a {type(value).__name__}")
    checks, required = field_checks(kind), _required(kind)
    if unknown := sorted(value.keys() - checks.keys()):
        raise ValueError(f"unknown fields: {', '.join(map(repr, unknown))}")
    if missing := sorted(required - value.keys()):
        raise ValueError(f"missing fields: {', '.join(missing)}")
    check_types(value, checks)
    return kind(**value)


def build_known(kind: type[T], value: Mapping[str, Any], what: str) -> T:
    """Returns the dataclass whose fields a JSON object holds among other keys.

    Raises:
      SteError: "data_invalid": the object is not `what`, since a field is missing or of another type.
    """
    checks = field_checks(kind)
    try:
        return build(kind, {name: item for name, item in value.items() if name in checks})
    except (ValueError, RecursionError) as error:
        raise SteError("data_invalid", f"not {what} ({error})") from error


def check_types(value: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    """Raises ValueError with the first field that its check does not accept; absent fields are skipped."""
    for name, item in value.items():
        if name in checks and not checks[name](item):
            shown = ascii(item)
            shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
            raise ValueError(f"the field {name} is {shown}, a {type(item).__name__} that it cannot hold")


@functools.cache
def field_checks(kind: Any, names: frozenset[str] | None = None) -> dict[str, Check]:
    """Returns the check of every field of a dataclass, or of those with these names."""
    hints = typing.get_type_hints(kind)
    fields = [field.name for field in dataclasses.fields(kind)]
    return {name: accepts(hints[name]) for name in fields if names is None or name in names}


@functools.cache
def _required(kind: Any) -> frozenset[str]:
    """Returns the names of the fields without a default."""
    absent = dataclasses.MISSING
    fields = dataclasses.fields(kind)
    return frozenset(f.name for f in fields if f.default is absent and f.default_factory is absent)


def accepts(hint: Any) -> Check:
    """Returns the function that is True for JSON values of a type.

    A float may be written as an int; numbers must be finite. Tuples are written as lists.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [accepts(argument) for argument in arguments]
        return lambda value: any(check(value) for check in inner)
    if origin is Literal:
        return lambda value: type(value) is str and value in arguments
    if origin is list or (origin is tuple and arguments[1:] == (...,)):
        return _list_of(arguments[0])
    if origin is tuple:
        return _list_of_each(arguments)
    if origin is dict:
        inner_check = accepts(arguments[1])
        return lambda value: type(value) is dict and all(map(inner_check, value.values()))
    return _PLAIN[hint]


def _list_of(hint: Any) -> Check:
    check = accepts(hint)
    if hint is int:
        # Token ids: lists of thousands, of which only the types and the ends are looked at.
        return lambda value: (
            type(value) is list
            and (not value or (set(map(type, value)) == {int} and check(min(value)) and check(max(value))))
        )
    return lambda value: type(value) is list and all(map(check, value))


def _list_of_each(hints: tuple[Any, ...]) -> Check:
    checks = [accepts(hint) for hint in hints]
    return lambda value: (
        type(value) is list
        and len(value) == len(checks)
        and all(check(item) for check, item in zip(checks, value, strict=True))
    )


def check_unicode(value: Mapping[str, Any]) -> None:
    """Raises ValueError with the first field whose text cannot be written to a file as UTF-8."""
    for name, item in value.items():
        if isinstance(item, str | dict):
            try:
                json.dumps(item, ensure_ascii=False).encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"the field {name} holds an unpaired surrogate") from error


def _is_json(value: Any) -> bool:
    """Returns True for a JSON value at any depth whose numbers can be written."""
    if type(value) is dict:
        return all(map(_is_json, value.values()))
    if type(value) is list:
        return all(map(_is_json, value))
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) in (bool, str) or _PLAIN[int](value)


_PLAIN: dict[Any, Check] = {
    Any: _is_json,
    str: lambda value: type(value) is str,
    bool: lambda value: type(value) is bool,
    int: lambda value: type(value) is int and -_MOST <= value < _MOST,
    float: lambda value: (
        (type(value) is float and math.isfinite(value)) or (type(value) is int and abs(value) < _MOST)
    ),
    type(None): lambda value: value is None,
    dict: lambda value: type(value) is dict and _is_json(value),
}
