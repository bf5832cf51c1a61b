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
        (["prompt", "choosen", "rejected"], ["'choosen' to 'chosen'"]),
        (["prompt", "chosen", "rejcted"], ["'rejcted' to 'rejected'"]),
        (["Prompt", "Choosen", "rejected"], ["'Prompt' is not 'prompt'", "'Choosen' to 'chosen'"]),
        (["prompt", "chosen_response", "rejected_response"], ["'chosen_response' to 'chosen'"]),
        (
            ["prompt", "preferred", "dispreferred"],
            ["'preferred' to 'chosen'", "'dispreferred' to 'rejected'"],
        ),
        (["prompt", "answer_a", "answer_b", "winner"], ["'answer_a' to 'response_a'", "'answer_b'"]),
        (["instruction", "output_a", "output_b", "label"], ["'output_a' to 'response_a'", "'output_b'"]),
        (["question", "completion1", "completion2"], ["'completion1' to 'response_a'", "'completion2'"]),
        (["prompt", "model_a_reply", "model_b_reply"], ["'model_a_reply' to 'response_a'"]),
        (["prompt", "answerLeft", "answerRight"], ["'answerLeft' to 'response_a'", "'answerRight'"]),
        (["prompt", "response_a", "reponse_b"], ["'reponse_b' to 'response_b'"]),
        (["instruction", "response_a", "response_A"], ["response_b", "'response_a' and 'response_A'"]),
        (["prompt", "response_A", "response_b"], ["'response_A' is not 'response_a'"]),
        (["prompt", "response_1", "label"], ["response_2"]),
        (["prompt", "rejected"], ["chosen"]),
    ],
)
def test_names_that_are_almost_known_keep_their_kind(tmp_path, names, places):
    with raises("data_invalid", "f.jsonl, line 1", *places):
        shown(tmp_path, dict.fromkeys(names, "x"))


@pytest.mark.parametrize(
    "names",
    [
        ["question", "option_a", "option_b", "answer"],
        ["question", "answer_a", "answer_b", "answer_c"],
        ["prompt", "chosen"],
        ["text", "score_response_a", "score_response_b"],
        ["prompt", "model_a", "model_b", "winner"],
        ["instruction", "response_id", "response_en"],
        ["instruction", "input", "output"],
    ],
)
def test_other_columns_are_those_of_instructions(tmp_path, names):
    assert overview_kind(tmp_path, names) == "f.jsonl: instructions"


def overview_kind(tmp_path: Path, names: list[str]) -> str:
    return shown(tmp_path, dict.fromkeys(names, "x"))[0]


def test_texts_that_may_be_read_wrongly_are_counted(tmp_path):
    row = {"prompt": "Name it.", "response_a": "a", "response_b": "b"}
    code, user = '[{"role": "user", "content": get()}]', '{"user": 1, "assistant": 2}'
    rows = [row | {"prompt": f"Task {number}."} for number in range(6)]
    quoted = {"prompt": "Name a river.", "response_a": "Name a river. Po", "response_b": "Name a river. Don"}
    counts = shown(tmp_path, *rows, row | {"response_b": code}, row | {"prompt": user}, quoted)[1]
    assert "texts that begin like conversations 2" in counts
    assert "whose responses repeat the prompt 1" in counts
    assert "begin like" not in shown(tmp_path, *rows)[1]
    assert (
        "begin like conversations 1" in shown(tmp_path, {"prompt": "a"}, {"prompt": "b"}, {"prompt": code})[1]
    )
    scored = [{"prompt": "Q?", "response": text} for text in ("a", "b", code)]
    assert "begin like conversations 1" in shown(tmp_path, *scored)[1]


def test_one_part_of_several_is_shown_as_such(tmp_path):
    row = {"prompt": "Q?"}
    assert (
        "other parts of the data set, which are not read, 2"
        in shown(tmp_path, row, name="train-00001-of-00003.jsonl")[1]
    )
    assert "parts" not in shown(tmp_path, row, name="train-00000-of-00001.jsonl")[1]
    assert "parts" not in shown(tmp_path, row, name="list_of_3.jsonl")[1]


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
