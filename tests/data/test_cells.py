"""Lists that stand in cells as text, as tables in CSV have them."""

import csv
import json
from pathlib import Path

import pytest

from ste_jax.data.comparisons import load_pairs, read_comparisons, read_rankings
from ste_jax.data.sources import read_instructions
from tests.errors import raises

GOOD = {"role": "assistant", "content": "yes"}
NUMPY = "[{'content': 'Q?', 'role': 'user'}\n {'content': 'yes', 'role': 'assistant'}]"


def sheet(path: Path, row: dict[str, str]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([row.keys(), row.values()])
    return str(path)


@pytest.mark.parametrize("written", [json.dumps, str, lambda value: json.dumps(value, indent=2), ascii])
def test_lists_in_cells_are_those_of_other_files(tmp_path, written):
    talk = [{"role": "user", "content": 'It\'s "Zürich"?\n'}, GOOD]
    other = [{"from": "human", "value": 'It\'s "Zürich"?\n'}, {"from": "gpt", "value": "no"}]
    path = sheet(tmp_path / "c.csv", {"chosen": written(talk), "rejected": written(other)})
    (pair,) = read_comparisons(path, labels="required")
    assert (pair.instruction, pair.chosen, pair.rejected) == ('It\'s "Zürich"?', "yes", "no")
    cells = {"context": written(talk[:1]), "response1": "yes", "response2": "no", "overall_preference": "-1"}
    (pair,) = read_comparisons(sheet(tmp_path / "h.csv", cells), labels="required")
    assert (pair.instruction, pair.label) == ('It\'s "Zürich"?', "A")
    (one,) = read_instructions(sheet(tmp_path / "i.csv", {"messages": written(talk)}))
    assert one.text == 'It\'s "Zürich"?'
    ranked = {"prompt": written(talk[:1]), "responses": written(["it's", 'a "b"', "c"])}
    (ranking,) = read_rankings(sheet(tmp_path / "r.csv", ranked))
    assert (ranking.instruction, ranking.responses) == ('It\'s "Zürich"?', ("it's", 'a "b"', "c"))


@pytest.mark.parametrize(
    "cell",
    [
        NUMPY,
        "array([{'content': 'Q?', 'role': 'user'}], dtype=object)",
        '[{"role": "user", "content": "Q?"}, {"role": "assis',
        "[{'from': 'human', 'value': 'Q' 'R'}]",
        "[{'role': 'user', 'content': open('x')}]",
        "[" + "{'role': 'user', 'content': 'Q?'}, " * 40_000 + "]",
    ],
)
def test_lists_of_messages_in_another_form_are_refused_by_name(tmp_path, cell):
    for row in (
        {"messages": cell},
        {"prompt": cell, "chosen": "yes", "rejected": "no"},
        {"prompt": "Q?", "chosen": "yes", "rejected": cell},
        {"context": cell, "response1": "yes", "response2": "no", "overall_preference": "-1"},
    ):
        column = next(name for name, value in row.items() if value is cell)
        with raises("data_invalid", "x.csv, line 2", column):
            read = read_instructions if column == "messages" else load_pairs
            read(sheet(tmp_path / "x.csv", row))


@pytest.mark.parametrize("cell", ["['a' 'b']", "['a',]", "array(['a'], dtype=object)", "['a', b'c']"])
def test_lists_of_responses_in_another_form_are_refused(tmp_path, cell):
    with raises("data_invalid", "r.csv, line 2", "responses"):
        read_rankings(sheet(tmp_path / "r.csv", {"prompt": "Q?", "responses": cell}))


@pytest.mark.parametrize("text", ['[{"x": 1}]', "[{x}, {y}] is code", "[INST] role: content", "['a' 'b']"])
def test_texts_that_only_look_like_lists_stay_texts(tmp_path, text):
    (pair,) = load_pairs(sheet(tmp_path / "t.csv", {"prompt": f"{text} ?", "chosen": text, "rejected": "no"}))
    assert pair["instruction"] == f"{text} ?"
    assert text in (pair["response_a"], pair["response_b"])


@pytest.mark.parametrize("column", ["prompt", "response_a", "response_b"])
@pytest.mark.parametrize("cell", ['["a",]', '["a"', "['a' 'b']", '["a", 3]', "[null, {}]"])
def test_one_broken_cell_of_an_arena_row_is_refused(tmp_path, column, cell):
    row = {"prompt": '["Q?"]', "response_a": "['yes']", "response_b": '["no"]', "winner_model_a": "1"}
    (pair,) = read_comparisons(sheet(tmp_path / "a.csv", row), labels="required")
    assert (pair.instruction, pair.chosen, pair.rejected) == ("Q?", "yes", "no")
    with raises("data_invalid", "a.csv, line 2", column):
        read_comparisons(sheet(tmp_path / "a.csv", row | {column: cell}), labels="required")
    plain = row | {"prompt": "List?", "response_a": cell, "response_b": "no"}
    (pair,) = read_comparisons(sheet(tmp_path / "b.csv", plain), labels="required")
    assert (pair.instruction, pair.chosen) == ("List?", cell)
