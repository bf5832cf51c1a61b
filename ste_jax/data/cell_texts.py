"""The texts in cells that hold a text or a list of texts, as responses do."""

from collections.abc import Callable, Sequence
from typing import Any

from ste_jax.data.rows import Row


def cell_texts(value: Any) -> list[str]:
    """Returns the text of a cell, or the texts of its list; none if it holds anything else."""
    values = value if isinstance(value, list | tuple) else [value]
    return list(values) if all(isinstance(text, str) for text in values) else []


def with_texts(row: Row, columns: Sequence[str], change: Callable[[str], str]) -> Row:
    """Returns a row in which a function has changed each text in some columns."""
    fields = dict(row.fields)
    for name in columns:
        texts = [change(text) for text in cell_texts(fields.get(name))]
        if texts:
            fields[name] = texts if isinstance(fields[name], list | tuple) else texts[0]
    return row._replace(fields=fields)
