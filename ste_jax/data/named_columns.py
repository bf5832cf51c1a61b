"""Columns of a table that the user names, since no reader can find them by itself."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ste_jax.data.fields import Fields, is_absent, valid_unicode
from ste_jax.data.header import shown
from ste_jax.data.rows import Table
from ste_jax.errors import SteError


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedColumns:
    """Columns that the user names.

    Attributes:
      prompt: column of the prompt; "": the first one with a known name.
      reference: column of a correct answer; "": `reference`.
      shown: columns that the judge prompt shows (`JudgePrompt.columns`). They are not joined with the
        instruction.
    """

    prompt: str = ""
    reference: str = ""
    shown: tuple[str, ...] = ()

    def checked(self, table: Table) -> Table:
        """Returns a table in which every row has the columns that the judge prompt shows.

        Raises:
          SteError: "data_invalid": the table lacks a column that is needed.
        """
        for name, reason in self.needed.items():
            if name not in table.columns:
                raise SteError(
                    "data_invalid",
                    f"{table.where()}: the column {name} is missing ({reason}); found the columns: "
                    f"{shown(table.columns)}",
                )
        absent = dict.fromkeys(self.shown)
        return table._replace(rows=[row._replace(fields={**absent, **row.fields}) for row in table.rows])

    @property
    def needed(self) -> dict[str, str]:
        """Columns that a table must have, and what names them."""
        needed = {name: f"the judge prompt shows {{{name}}}" for name in self.shown}
        return needed | ({self.prompt: "it is named as that of the prompt"} if self.prompt else {})

    def texts(self, row: Fields, where: str) -> dict[str, str]:
        """Returns the texts of a row that the judge prompt shows, by column; "" where a cell is empty.

        Raises:
          SteError: "data_invalid", if a column is missing, or holds neither text, a number nor a list.
        """
        for name in self.shown:
            if name not in row:
                raise SteError(
                    "data_invalid",
                    f"{where}: the column {name} is missing: the judge prompt shows {{{name}}}",
                )
        return {name: shown_text(row[name], name, where) for name in self.shown}

    def without_shown(self, row: Fields) -> Mapping[str, Any]:
        """Returns a row without the columns that the judge prompt shows."""
        return {name: value for name, value in row.items() if name not in self.shown} if self.shown else row


BY_NAME = NamedColumns()


def shown_text(value: Any, name: str, where: str) -> str:
    """Returns the text of a cell that the judge prompt shows; a list of texts is parted by blank lines.

    Raises:
      SteError: "data_invalid", if the cell holds neither text, a number nor a list of them.
    """
    if is_absent(value):
        return ""
    parts = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(part, str | int | float) for part in parts):
        raise SteError(
            "data_invalid", f"{where}: the column {name} must hold text or a list of texts to be shown"
        )
    return valid_unicode("\n\n".join(map(str, parts)), name, where)
