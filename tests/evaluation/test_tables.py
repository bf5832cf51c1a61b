"""Output of `ste stats` for result files with unusual names and invalid values."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.evaluation_cases import item, result, right

NASTY = "riv\x1b[2Jers [/b]\x07\x9b1m\ud800"


@pytest.fixture
def planted(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that writes a result file in which `change` has edited every row."""

    def write(change: Callable[[dict[str, Any]], None]) -> Path:
        items = [item(i, "AB"[i % 2], subset="rivers") for i in range(4)]
        path = result(tmp_path / "r.jsonl", items, lambda one, order, _: right(one, order)).path
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        del rows[0]["sha256"]  # as in files of earlier versions
        for row in rows:
            change(row)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


def test_names_of_others_do_not_steer_the_terminal(ste: Any, planted: Callable[..., Path]) -> None:
    def rename(row: dict[str, Any]) -> None:
        if "settings" in row:
            row["settings"]["model"]["name"] = NASTY
        else:
            row["subset"] = NASTY

    path = planted(rename)
    for command in (("stats", str(path)), ("compare", str(path), str(path))):
        out, err = ste.start(*command).communicate(timeout=100)
        assert err == ""
        assert "riv\ufffd[2Jers [/b]\ufffd\ufffd1m\ufffd" in out
        assert not set(out) & {"\x1b", "\x07", "\x9b"}
