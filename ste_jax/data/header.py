"""Checks of the columns of a table, made once before its rows are read."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from ste_jax.data.rows import Table
from ste_jax.errors import SteError

# What pandas, polars and readr add to the name of a column that occurs again.
_COPY = re.compile(r"(\.+|_duplicated_)\d+$")
# Columns of responses, and the command that reads them.
_COMMANDS = {
    ("responses",): "ste judge rank",
    ("response_a", "response_b"): "ste judge compare",
    ("chosen", "rejected"): "ste judge compare",
    ("response",): "ste judge score",
}
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars", ",": "commas"}


def check_header(
    table: Table,
    known: Collection[str],
    required: Iterable[tuple[str, Sequence[str]]],
    what: str,
    meant: Mapping[str, str] | None = None,
) -> None:
    """Refuses a table without the columns that it needs, or with one that is almost another.

    Args:
      table: the table.
      known: names of the columns that have a meaning.
      required: for each thing that is needed the name of it, and the columns any of which hold it.
      what: what the table is to hold, with the columns of it, for the error.
      meant: columns that are needed under another name, with the name that they have now as the key.

    Raises:
      SteError: "data_invalid": names what is missing, the columns that were found, and those expected.
    """
    missing = [name for name, columns in required if not set(columns) & set(table.columns)]
    near = _near(table.columns, known)
    # A name with a meaning of its own may be meant as the one that is missing: response_A and response_b.
    plain = {_plain(name): name for name in missing}
    near |= {name: plain[_plain(name)] for name in table.columns if _plain(name) in plain}
    alike = _alike([name for name in table.columns if name in known])
    if not missing and not near and not alike:
        return
    hints = [f"{found!r} is not {name!r}: rename or remove it" for found, name in near.items()]
    hints += [f"{one!r} and {other!r} are almost the same: rename or remove one" for one, other in alike]
    hints += [f"rename {found!r} to {name!r}" for found, name in (meant or {}).items() if found not in near]
    hints += _separators(table.columns)
    hints += [f"the file is one of `{command}`" for command in _other_commands(table.columns, missing)]
    if missing and not hints:
        hints = _typos([column for column in table.columns if column not in known], missing)
    wrong = {*near, *(other for _, other in alike), *(meant or {})}
    raise SteError(
        "data_invalid",
        f"{table.where(wrong)}: {_wrong(missing)}; found the columns: {shown(table.columns)}; expected {what}"
        + "".join(f"; {hint}" for hint in hints),
    )


def _wrong(missing: Sequence[str]) -> str:
    if not missing:
        return "a column is almost another one"
    if len(missing) == 1:
        return f"the column {missing[0]} is missing"
    return f"the columns {', '.join(missing)} are missing"


def shown(columns: Iterable[str]) -> str:
    """Returns column names as errors show them."""
    names = [str(name) for name in columns]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return (
        ", ".join(repr(n) if n != n.strip() or not n.isprintable() or not n else n for n in names[:20]) + more
    )


def likely_columns(columns: Sequence[str], known: Collection[str]) -> list[str]:
    """Returns the columns, those that are almost known ones under the known names: what a table may be."""
    near = _near(columns, known)
    return [near.get(name, name) for name in columns]


def _near(columns: Sequence[str], known: Collection[str]) -> dict[str, str]:
    """Returns the columns that are almost a known one, and its name.

    They differ from it in case, blanks and punctuation only, or are its second one: `label.1` of pandas.
    """
    # Sorted, since hashes order a set anew in each process; of several forms the one in small letters counts.
    plain = {_plain(name): name for name in sorted(known)}
    others = {column: [_plain(column), _plain(_COPY.sub("", str(column)))] for column in columns}
    found = {column: [plain[name] for name in names if name in plain] for column, names in others.items()}
    return {column: names[0] for column, names in found.items() if names and column not in known}


def _alike(columns: Iterable[str]) -> list[tuple[str, str]]:
    """Returns pairs of columns that differ in case, blanks and punctuation only."""
    first: dict[str, str] = {}
    pairs = [(first.setdefault(_plain(column), column), column) for column in columns]
    return [(one, other) for one, other in pairs if one != other]


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", str(name).casefold())


def _separators(columns: Sequence[str]) -> list[str]:
    """Returns a remark about a header that is a single cell, whose columns have another separator."""
    found = [mark for mark in _SEPARATORS if len(columns) == 1 and mark in columns[0]]
    return (
        [f"the columns are separated by {_SEPARATORS[found[0]]}: save the file with commas"] if found else []
    )


def _other_commands(columns: Sequence[str], missing: Sequence[str]) -> list[str]:
    """Returns the command that reads the responses of a table, if it is another one."""
    found = [command for names, command in _COMMANDS.items() if {*names} <= {*columns}]
    return found if any(name.startswith("response") for name in missing) else []


def _typos(columns: Sequence[str], missing: Sequence[str]) -> list[str]:
    close = {name: difflib.get_close_matches(name, columns, 1, 0.75) for name in missing}
    return [f"is {found[0]!r} the column {name}?" for name, found in close.items() if found]
