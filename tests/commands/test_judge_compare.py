"""`ste judge compare` and `show` in processes of their own, with a tiny model."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from tests.judges import GOOD, PAIRS, X, load_judge


def test_the_command_writes_what_python_returns(ste: Any, tiny_model: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "pairs.jsonl", tmp_path / "deep" / "verdicts.jsonl"
    data.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    flags = [
        "judge",
        "compare",
        f"--model={tiny_model}",
        f"--data={data}",
        f"--out={out}",
        "--max_new_tokens=2",
    ]
    process = ste.start(*flags)
    printed, err = process.communicate(timeout=300)
    assert (process.returncode, printed) == (0, ""), err
    assert "5 comparisons" in err
    expected = load_judge(tiny_model, max_new_tokens=2).compare_many(PAIRS)
    records = [json.loads(line) for line in out.read_text().splitlines()[1:]]
    assert [(r["id"], r["winner"], r["source"]) for r in records] == [
        (r.id, r.winner, r.comparison.metadata["source"]) for r in expected
    ]
    shown = ste.start(
        "judge", "show", f"--model={tiny_model}", f"--data={data}", "--row=1", "--max_new_tokens=2"
    )
    printed, err = shown.communicate(timeout=300)
    assert shown.returncode == 0, err
    assert printed.count(GOOD) >= 2
    assert "swapped" in printed


def test_a_killed_command_continues(ste: Any, tiny_model: Path, tmp_path: Path) -> None:
    pairs = [PAIRS[0] | {"id": f"p{i}", "instruction": f"{X} ({i})"} for i in range(500)]
    data, out = tmp_path / "pairs.jsonl", tmp_path / "verdicts.jsonl"
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    command = [
        "judge",
        "compare",
        f"--model={tiny_model}",
        f"--data={data}",
        "--max_new_tokens=8",
        "--sequences=2",
    ]
    process = ste.start(*command, f"--out={out}")
    journal = tmp_path / ".verdicts.jsonl.partial" / "journal"
    limit = time.monotonic() + 200
    while sum(path.read_bytes().count(b"\n") for path in journal.glob("*.journal")) < 1:
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    for path in (out, tmp_path / "whole.jsonl"):
        process = ste.start(*command, f"--out={path}")
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_a_broken_row_is_named_before_the_model_is_loaded(ste: Any, tmp_path: Path) -> None:
    data = tmp_path / "bad.jsonl"
    data.write_text(json.dumps(PAIRS[0]) + '\n{"instruction": 3}\n')
    process = ste.start(
        "judge", "compare", "--model=absent.gguf", f"--data={data}", f"--out={tmp_path / 'o'}"
    )
    _, err = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "bad.jsonl, line 2" in err
    assert "Traceback" not in err
