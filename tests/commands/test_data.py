"""`ste data`: what is read from a file, as printable lines and without JAX."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ste_jax.commands.data import report
from ste_jax.data.overview import overview
from tests.errors import raises


def shown(tmp_path: Path, *rows: dict[str, Any], name: str = "f.jsonl") -> list[str]:
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return report(name, overview(str(path))).splitlines()


def test_pairs_are_shown_with_their_columns_and_counts(tmp_path):
    row = {"prompt": "Q?", "response1": "a", "response2": "b", "overall_preference": 1, "domain": "x"}
    lines = shown(tmp_path, row, row | {"response2": "a "}, row | {"prompt": "R?", "overall_preference": 0})
    assert lines[:5] == [
        "f.jsonl: pairs (prompt: prompt; responses: response1, response2; label: overall_preference)",
        "counts: rows 3, prompts 2, labelled B 2, labelled tie 1, labelled A or B with equal responses 1",
        "columns that are used: prompt, response1, response2, overall_preference",
        "columns that are passed through to results: domain",
        "record 1",
    ]
    assert [line for line in lines if line.startswith("record")] == ["record 1", "record 2", "record 3"]


def test_instructions_and_rankings_are_shown(tmp_path):
    lines = shown(tmp_path, {"instruction": "Sum up.", "input": "Text.", "output": "o"})
    assert lines[:4] == [
        "f.jsonl: instructions",
        "counts: rows 1, different texts 1",
        "columns that are used: instruction, input",
        "columns that are not read: output",
    ]
    assert "  instruction: Sum up.\\n\\nText." in lines
    assert (
        shown(tmp_path, {"prompt": "Q", "responses": ["a", "b"], "k": 1})[1] == "counts: rows 1, responses 2"
    )
    (tmp_path / "l.txt").write_text("one\ntwo\n")
    assert overview(str(tmp_path / "l.txt")).counts["rows"] == 2


def test_responses_to_score_are_shown(tmp_path):
    row = {"prompt": "Q?", "response": "r", "baseline": "b", "k": 1}
    lines = shown(tmp_path, row, row | {"baseline": None})
    assert lines[0].startswith("f.jsonl: responses to score")
    assert lines[1:4] == [
        "counts: rows 2, with a baseline 1",
        "columns that are used: prompt, response, baseline",
        "columns that are passed through to results: k",
    ]
    assert "  baseline: b" in lines
    dolly = {"instruction": "Q?", "context": "", "response": None}
    assert shown(tmp_path, dolly)[0] == "f.jsonl: instructions"
    assert shown(tmp_path, {"messages": [{"role": "user", "content": "Q?"}], "response": "r"})[0].endswith(
        "instructions"
    )


def test_repeated_pairs_are_counted(tmp_path):
    row = {"instruction": "Q?", "response_a": "a", "response_b": "b", "label": "A"}
    swapped = row | {"response_a": "b", "response_b": "a", "label": "B"}
    assert "repeated 2" in shown(tmp_path, row, swapped, row, row | {"instruction": "R?"})[1]
    assert "repeated" not in shown(tmp_path, row)[1]


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["prompt", "Chosen", "Rejected"], ["'Chosen' is not 'chosen'", "'Rejected' is not 'rejected'"]),
        (["Prompt", "Chosen", "Rejected"], ["'prompt'", "'chosen'", "'rejected'"]),
        (
            ["Instruction", "Response A", "Response B", "Label"],
            ["'instruction'", "'Response A'", "'Response B'"],
        ),
        (["Instruction", "Response A", "Response B", "Label"], ["'Label' is not 'label'"]),
        (["Question", "conversation-a", "conversation-b"], ["'Question'", "'conversation-a'"]),
        (["Prompt", "Responses"], ["'Prompt'", "'Responses'"]),
        (["Prompt", "Response", "Baseline"], ["'Prompt'", "'Response'", "'Baseline'"]),
        (["Prompt", "Source"], ["'Prompt'", "'Source'"]),
    ],
)
def test_names_that_are_almost_known_keep_their_kind(tmp_path, names, places):
    with raises("data_invalid", "f.jsonl, line 1", *places):
        shown(tmp_path, dict.fromkeys(names, "x"))


def test_no_text_of_a_file_reaches_the_terminal_as_a_control(tmp_path):
    lines = shown(
        tmp_path,
        {"prompt": "\x1b[2Jx\u202ey\0\x9b", "chosen": "Zürich\r\n\a", "rejected": "\u2028", "\x1b]0;t": "c"},
    )
    assert all(line.isprintable() for line in lines)
    assert "  instruction: \\x1b[2Jx\\u202ey\\x00\\x9b" in lines
    assert any(line.endswith(": Zürich\\r\\n\\x07") for line in lines)
    long = shown(tmp_path, {"prompt": "x" * 5000})
    assert max(map(len, long)) < 400


@pytest.mark.parametrize("rows", [[{"words": "x"}], [{"prompt": "Q", "chosen": "a", "rejected": 3}]])
def test_what_cannot_be_read_is_refused(tmp_path, rows):
    with raises("data_invalid", "f.jsonl, line 1"):
        shown(tmp_path, *rows)


def test_contradictions_are_found(tmp_path):
    row = {"instruction": "Q", "response_a": "a", "response_b": "b", "label": "A"}
    with raises("data_invalid", "line 2", "line 1"):
        shown(tmp_path, row, row | {"label": "B"})


def test_the_command_loads_no_jax(tmp_path):
    (tmp_path / "f.jsonl").write_text('{"prompt": "Q?"}\n')
    program = (
        "import sys; from ste_jax.cli import main; sys.argv = ['ste', 'data', 'f.jsonl']\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        "assert 'jax' not in sys.modules"
    )
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("f.jsonl: instructions\ncounts: rows 1")
