"""The README of an exported judge: what it decides by, and what it must not be used for."""

from pathlib import Path
from typing import Any

from ste_jax.checkpoint.card import ModelCard

README = "README.md"


def readme(card: ModelCard) -> str | None:
    """Returns the README in Markdown, or None for a model whose card says nothing about its decisions."""
    if card.shortcuts is None:
        return None
    prompt = (card.judge_prompt or {}).get("name")
    used = f" with the prompt `{prompt}`" if prompt else ""
    rows = [_row(line) for line in card.shortcuts["lines"]]
    return "\n".join(
        (
            f"# {card.name}",
            "",
            f"A judge of two responses, trained by ste_jax{used}. `model.json` holds its settings.",
            "",
            "## What this judge decides by",
            "",
            card.shortcuts["summary"],
            "",
            "| | measured | share | 95% interval | |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "Measured on the held-out pairs of its training run. **!** marks what speaks against a use.",
            "",
        )
    )


def _row(line: dict[str, Any]) -> str:
    bounds = line["interval95"]
    cells = (
        "**!**" if line["warning"] else "",
        line["name"].replace("_", " "),
        f"{100 * line['share']:.1f}%",
        "" if bounds is None else f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}%",
        line["text"],
    )
    return f"| {' | '.join(cells)} |"


def write_readme(card: ModelCard, folder: Path) -> None:
    """Writes the README into a model folder if there is something to say."""
    text = readme(card)
    if text is not None:
        (folder / README).write_text(text, encoding="utf-8")
