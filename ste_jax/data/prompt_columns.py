"""The column of the prompt, in a table that may have several columns for it."""

from collections.abc import Iterable, Sequence
from typing import Any

from ste_jax.data.fields import Fields, is_absent
from ste_jax.data.rows import Table
from ste_jax.errors import SteError

# Columns that hold the whole prompt: two of them in a row must say the same.
WHOLE_COLUMNS = ("instruction", "prompt", "question")
# Columns that are joined with one of those, and are the prompt in a table without any.
PROMPT_COLUMNS = (*WHOLE_COLUMNS, "context", "input")


def prompt_column(columns: Iterable[str]) -> str:
    """Returns the column of the prompt of a table with these columns; "" if there is none."""
    return next((name for name in PROMPT_COLUMNS if name in {*columns}), "")


def is_filled(value: Any) -> bool:
    """Returns True for a cell that holds something: text that is not blank, a list with items, a number."""
    return not is_absent(value) and bool(value.strip() if isinstance(value, str) else value != [])


def filled_columns(fields: Fields, columns: Sequence[str]) -> list[str]:
    """Returns those of the columns of which a row has a value."""
    return [name for name in columns if is_filled(fields.get(name))]


def refuse_two_prompts(fields: Fields, where: str) -> None:
    """Refuses a row with two different prompts, of which one would be left out.

    Raises:
      SteError: "data_invalid" with both columns.
    """
    first, *others = filled_columns(fields, WHOLE_COLUMNS) or [""]
    for other in others:
        if _plain(fields[first]) != _plain(fields[other]):
            raise SteError(
                "data_invalid",
                f"{where}: the columns {first} and {other} hold different prompts; rename or remove the one "
                "that is not the prompt (to input or system, if it belongs to it)",
            )


def with_one_prompt(table: Table, column: str) -> Table:
    """Returns a table whose rows have their prompt in one column, also those that have it in another one.

    Args:
      table: the table.
      column: the column of the prompt, see `prompt_column`; "": there is none.

    Raises:
      SteError: "data_invalid" with the first row with two different prompts.
    """
    columns = WHOLE_COLUMNS if column in WHOLE_COLUMNS else PROMPT_COLUMNS[len(WHOLE_COLUMNS) :]
    rows = []
    for row in table.rows:
        refuse_two_prompts(row.fields, row.where)
        filled = filled_columns(row.fields, columns)
        if column and filled and not is_filled(row.fields.get(column)):
            fields = {name: value for name, value in row.fields.items() if name != filled[0]}
            row = row._replace(fields={**fields, column: row.fields[filled[0]]})
        rows.append(row)
    return table._replace(rows=rows)


def _plain(value: Any) -> str:
    """Returns the text of a prompt without the form in which it is written."""
    if isinstance(value, list) and len(value) == 1:
        message = value[0]
        value = message.get("content", message.get("value")) if isinstance(message, dict) else message
    return " ".join(str(value).split())
