"""`ste data`: shows what would be read from a file, without a model."""

from typing import TYPE_CHECKING

from absl import app

from ste_jax.commands.column_flag import COLUMN
from ste_jax.visible import visible

if TYPE_CHECKING:
    from ste_jax.data.overview import Overview

# Characters of a text that are shown.
_WIDTH = 300


def main(argv: list[str]) -> None:
    """Runs `ste data FILE`."""
    if len(argv) != 3:
        raise app.UsageError("data needs one file or folder")
    # Imported here: the help of a command must not wait for it.
    from ste_jax.data.overview import overview

    print(report(argv[2], overview(argv[2], COLUMN.value)))


def report(path: str, found: "Overview") -> str:
    """Returns the overview of a file as lines of printable characters."""
    from ste_jax.data.header import shown

    counts = ", ".join(f"{name} {count}" for name, count in found.counts.items() if count)
    lines = [
        f"{path}: {found.kind}",
        f"counts: {counts}",
        f"columns that are used: {', '.join(found.used)}",
        f"columns that are {found.fate}: {shown(found.others) or '(none)'}",
    ]
    for number, record in enumerate(found.first, 1):
        lines.append(f"record {number}")
        lines += [f"  {name}: {_cut(text)}" for name, text in record.items()]
    return "\n".join(visible(line, keep="") for line in lines)


def _cut(text: str) -> str:
    return text if len(text) <= _WIDTH else f"{text[:_WIDTH]} ... ({len(text)} characters)"
