"""Pairs and files of them that the tests of readers share."""

import json
from pathlib import Path
from typing import Any

from ste_jax.data.comparisons import read_comparisons
from ste_jax.records import Comparison

USER, GOOD, BAD = (
    {"role": role, "content": text}
    for role, text in (("user", "Q?"), ("assistant", "yes"), ("assistant", "no"))
)
PAIR = {"instruction": "Q?", "response_a": "yes", "response_b": "no", "label": "A"}


def lines(path: Path, *rows: Any) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def read(tmp_path: Path, *rows: dict[str, Any]) -> list[Comparison]:
    return read_comparisons(lines(tmp_path / "p.jsonl", *rows), labels="required")


def without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


HH = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Q?\n\nAssistant:"
