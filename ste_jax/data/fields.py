"""Typed access to the columns of a row. Errors name the source, the position and the column.

In an optional column, a missing value, None and NaN all mean that there is no value. In a required column
each of them is an error.
"""

import ast
import base64
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ste_jax.errors import SteError

Fields = Mapping[str, Any]
_LONGEST_LITERAL = 1_000_000  # characters; its syntax tree may take a hundred times the memory


def is_absent(value: Any) -> bool:
    """Returns True for None and NaN, the two ways in which tables leave a cell out."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def required_text(fields: Fields, name: str, where: str) -> str:
    """Returns a text column, which may be empty. Raises SteError "data_invalid" if it holds anything else."""
    value = fields.get(name)
    if value is None:
        raise SteError("data_invalid", f"{where}: the column {name} is missing or null")
    return _text(value, name, where)


def optional_text(fields: Fields, name: str, where: str) -> str | None:
    """Returns a text column, or None where there is no value."""
    value = fields.get(name)
    return None if is_absent(value) else _text(value, name, where)


def text_list(fields: Fields, name: str, where: str) -> list[str]:
    """Returns a column that holds a list of texts, or such a list written as text (see `written_list`).

    Raises:
      SteError: "data_invalid", if the list is missing or empty or holds anything but texts.
    """
    value = fields.get(name)
    if isinstance(value, str):
        value = written_list(value, f"{where}, column {name}")
    if not isinstance(value, list | tuple) or not value:
        raise SteError("data_invalid", f"{where}: the column {name} must be a list of at least one text")
    return [_text(text, f"{name}[{index}]", where) for index, text in enumerate(value)]


def written_list(text: str, where: str) -> list[Any]:
    """Returns the list that a text cell holds: as JSON, or as pandas writes it to CSV (a tuple, too).

    Lists are read only as Python itself writes them: `['a' 'b']`, the form of numpy, would be one text.

    Raises:
      SteError: "data_invalid" if the cell is anything else.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _literal(text.strip())
    if not isinstance(value, list | tuple):
        raise SteError(
            "data_invalid",
            f"{where}: the text is not a list, neither as JSON nor as Python writes it; save the lists as "
            "JSON (json.dumps; arrays of numpy by tolist() first), or the table as Parquet or JSON lines",
        )
    return list(value)


def _literal(text: str) -> Any:
    if not text.startswith(("[", "(")) or len(text) > _LONGEST_LITERAL:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            value = ast.literal_eval(text)
        # Which characters are escaped depends on the version of Python that wrote them.
        is_own = ascii(value) == text.encode("ascii", "backslashreplace").decode()
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return value if is_own else None


def optional_name(fields: Fields, name: str, where: str) -> str | None:
    """Returns a short text or a number as text (ids, groups), or None where there is no value or it is blank.

    Raises:
      SteError: "data_invalid", if the column holds anything else.
    """
    value = fields.get(name)
    if is_absent(value):
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SteError("data_invalid", f"{where}: the column {name} holds {type(value).__name__}, not text")
    return valid_unicode(str(value), name, where).strip() or None


def optional_group(fields: Fields, name: str, where: str) -> str | None:
    """Returns the name of a group, or several names of a list separated by commas; see `optional_name`."""
    value = fields.get(name)
    if not isinstance(value, list | tuple):
        return optional_name(fields, name, where)
    names = (optional_name({name: item}, name, where) for item in value)
    return ", ".join(filter(None, names)) or None


def unique_id(fields: Fields, default: str, where: str, seen: dict[str, str]) -> str:
    """Returns the id of a row and records it.

    Args:
      fields: the row.
      default: the id of a row without one.
      where: position of the row.
      seen: positions by id of the rows read so far; the row is added.

    Raises:
      SteError: "data_invalid", if another row has the same id.
    """
    identifier = optional_name(fields, "id", where) or default
    if identifier in seen:
        raise SteError("data_invalid", f"{where}: the id {identifier!r} is also the id of {seen[identifier]}")
    seen[identifier] = where
    return identifier


def check_unique(ids: Sequence[str], name: str) -> None:
    """Refuses ids of records in memory, the argument `name`, that occur twice.

    Raises:
      SteError: "data_invalid".
    """
    seen: dict[str, int] = {}
    for index, id_ in enumerate(ids):
        if (first := seen.setdefault(id_, index)) != index:
            raise SteError(
                "data_invalid", f"{name}[{index}]: the id {id_!r} is also the id of {name}[{first}]"
            )


def json_value(value: Any) -> Any:
    """Returns a cell as a JSON value: NaN as None, bytes as base64 text, dates and the like as text."""
    if isinstance(value, Mapping):
        return {str(key): json_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(inner) for inner in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value)


def extra_columns(fields: Fields, known: frozenset[str], where: str) -> dict[str, Any]:
    """Returns the columns that are not `known`, as JSON values.

    Raises:
      SteError: "data_invalid", if one is nested too deeply or holds text that cannot be written as UTF-8.
    """
    extra: dict[str, Any] = {}
    for name, value in fields.items():
        if name in known:
            continue
        try:
            extra[name] = json_value(value)
            valid_unicode(json.dumps([name, extra[name]], ensure_ascii=False), str(name), where)
        # An integer of more than 4,300 digits is a ValueError.
        except (RecursionError, ValueError) as error:
            if isinstance(error, SteError):
                raise
            raise SteError(
                "data_invalid", f"{where}: the column {name!r} cannot be written as JSON ({error})"
            ) from error
    return extra


def valid_unicode(text: str, name: str, where: str) -> str:
    """Returns `text`. Raises SteError "data_invalid" if it cannot be written to a file as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        shown = name.encode(errors="backslashreplace").decode()
        raise SteError(
            "data_invalid", f"{where}: the column {shown} contains an unpaired surrogate"
        ) from error
    return text


def _text(value: Any, name: str, where: str) -> str:
    if not isinstance(value, str):
        found = "NaN" if is_absent(value) and value is not None else f"a {type(value).__name__}"
        raise SteError("data_invalid", f"{where}: the column {name} is {found}, expected text")
    return valid_unicode(value, name, where)
