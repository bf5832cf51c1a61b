"""Columns that the user names: of the prompt, of better responses, and of texts that a judge prompt shows."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from ste_jax.benchmarks.benchmark import read_pairs_file
from ste_jax.data.comparisons import (
    comparison_from_row,
    comparisons_from_rows,
    load_pairs,
    read_comparisons,
    read_rankings,
    read_scorings,
    row_from_comparison,
)
from ste_jax.data.named_columns import NamedColumns
from ste_jax.data.overview import overview
from ste_jax.data.sources import InstructionColumns, read_instructions, read_source
from tests.errors import raises

HELP_DESK = {"ticket_id": "7", "subject": "Parcel", "body": "Where is my parcel?", "created_at": "2025-01-02"}


def lines(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def sheet(path: Path, *rows: dict[str, str]) -> str:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def test_the_instructions_of_a_foreign_table_are_in_the_column_that_is_named(tmp_path):
    path = sheet(tmp_path / "t.csv", HELP_DESK, HELP_DESK | {"body": "How do I pay?"})
    with raises("data_invalid", "t.csv", "body"):
        read_instructions(path)
    read = read_source(path, InstructionColumns(prompt="body"))
    assert [one.text for one in read.instructions] == ["Where is my parcel?", "How do I pay?"]
    assert read.columns_left_out == ["ticket_id", "subject", "created_at"]
    with raises("data_invalid", "t.csv", "bodi", "created_at"):
        read_instructions(path, InstructionColumns(prompt="bodi"))
    with raises("data_invalid", "t.csv", "line 3", "body"):
        empty = sheet(tmp_path / "t.csv", HELP_DESK, HELP_DESK | {"body": " "})
        read_instructions(empty, InstructionColumns(prompt="body"))


def test_a_named_column_counts_more_than_the_known_ones(tmp_path):
    row = {
        "text": "automatic reply",
        "question": "old",
        "body": "Why?",
        "context": "It rains.",
        "system": "Hi.",
    }
    (one,) = read_instructions(lines(tmp_path / "i.jsonl", row), InstructionColumns(prompt="body"))
    assert one.text == "System:\nHi.\n\nUser:\nWhy?\n\nIt rains."
    talk = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    (one,) = read_instructions(lines(tmp_path / "t.jsonl", {"log": talk}), InstructionColumns(prompt="log"))
    assert one.text == "Why?"


def test_pairs_rankings_and_scorings_take_the_column_too(tmp_path):
    named = NamedColumns(prompt="body")
    row = {
        "id": "p",
        "prompt": "template 4",
        "body": "Why?",
        "response_a": "x",
        "response_b": "y",
        "label": "A",
    }
    path = lines(tmp_path / "p.jsonl", row)
    (pair,) = read_comparisons(path, labels="required", named=named)
    assert (pair.instruction, pair.metadata) == ("Why?", {"prompt": "template 4"})
    (pair,) = read_comparisons(
        lines(tmp_path / "c.jsonl", {"body": "Why?", "chosen": "x", "rejected": "y"}),
        labels="required",
        named=named,
    )
    assert (pair.instruction, pair.chosen) == ("Why?", "x")
    assert read_pairs_file(path, named).items[0].instruction == "Why?"
    assert load_pairs(path, column="body")[0]["instruction"] == "Why?"
    ranked = lines(tmp_path / "r.jsonl", {"body": "Why?", "responses": ["x", "y"]})
    scored = lines(tmp_path / "s.jsonl", {"body": "Why?", "response": "x"})
    assert read_rankings(ranked, named=named)[0].instruction == "Why?"
    assert read_scorings(scored, named=named)[0].instruction == "Why?"
    kinds = [overview(file, "body").kind.split(" ")[0] for file in (path, ranked, scored)]
    assert kinds == ["pairs", "rankings", "responses"]
    for file in (path, ranked, scored):
        with raises("data_invalid", Path(file).name, "topic"):
            overview(file, "topic")


def test_ste_data_shows_the_instructions_of_a_named_column(tmp_path):
    found = overview(sheet(tmp_path / "t.csv", HELP_DESK), "body")
    assert (found.kind, found.used) == ("instructions", ["body"])
    assert found.first[0]["instruction"] == "Where is my parcel?"


SHOWN = NamedColumns(shown=("context", "policy"))
PAIR = {"instruction": "Why?", "response_a": "x", "response_b": "y", "label": "A"}


def test_columns_that_the_prompt_shows_are_not_joined_with_the_instruction(tmp_path):
    row = PAIR | {
        "context": "It rains.",
        "policy": ["Be kind.", "Be brief."],
        "input": "Joined.",
        "city": "Ulm",
    }
    path = lines(tmp_path / "p.jsonl", row, PAIR | {"label": "B", "context": "It snows.", "policy": 3})
    first, second = read_comparisons(path, labels="required", named=SHOWN)
    assert first.instruction == "Why?\n\nJoined."
    assert first.texts == {"context": "It rains.", "policy": "Be kind.\n\nBe brief."}
    assert first.metadata == {"city": "Ulm"}
    assert first.passed_through == {"label": "A", **first.texts, "city": "Ulm"}
    assert second.texts == {"context": "It snows.", "policy": "3"}
    plain = read_comparisons(path, labels="optional")[0]
    assert (plain.texts, plain.instruction) == ({}, "Why?\n\nJoined.\n\nIt rains.")
    again = comparison_from_row(row_from_comparison(first), "row", named=SHOWN)
    assert (again.texts, again.instruction) == (first.texts, first.instruction)
    assert next(comparisons_from_rows(load_pairs(path, shown=SHOWN.shown), named=SHOWN)) == first


def test_the_same_pair_with_another_shown_text_is_another_pair(tmp_path):
    rows = [PAIR | {"policy": "Be kind."}, PAIR | {"policy": "Be curt.", "label": "B"}]
    path, named = lines(tmp_path / "p.jsonl", *rows), NamedColumns(shown=("policy",))
    assert [pair.label for pair in read_comparisons(path, labels="required", named=named)] == ["A", "B"]
    with raises("data_invalid", "line 2", "line 1"):
        read_comparisons(path, labels="required")


def test_a_missing_column_is_named_and_an_empty_cell_is_an_empty_text(tmp_path):
    named = NamedColumns(shown=("policy",))
    rankings = lines(tmp_path / "r.jsonl", {"instruction": "Why?", "responses": ["x"]})
    with raises("data_invalid", "r.jsonl", "policy", "instruction, responses"):
        read_rankings(rankings, named=named)
    with raises("data_invalid", "pairs[1]", "policy"):
        list(comparisons_from_rows([PAIR | {"policy": "p"}, PAIR], named=named))
    path = lines(tmp_path / "p.jsonl", PAIR | {"policy": "p"}, PAIR | {"policy": None}, PAIR)
    assert [pair.texts["policy"] for pair in read_comparisons(path, labels="optional", named=named)] == [
        *("p", "", "")
    ]
    for wrong in ({"a": 1}, [{"role": "user", "content": "x"}], ["a", None]):
        with raises("data_invalid", "line 1", "policy"):
            path = lines(tmp_path / "w.jsonl", PAIR | {"policy": wrong})
            read_comparisons(path, labels="optional", named=named)
    with raises("data_invalid", "policy"):
        comparison_from_row(PAIR | {"policy": "\ud800"}, "row", named=named)


def test_records_without_texts_are_stored_as_before():
    pair, instruction = comparison_from_row(PAIR, "row"), read_instructions("starter")[0]
    assert "texts" not in pair.to_json()
    assert {"response", "reference", "texts"}.isdisjoint(instruction.to_json())
    shown = comparison_from_row(PAIR | {"context": "c", "policy": "p"}, "row", named=SHOWN)
    assert type(shown).from_json(shown.to_json()) == shown


def test_better_responses_and_references_are_read_from_their_columns(tmp_path):
    rows = [
        {"id": "a", "question": "Why?", "reply": " So. ", "reference": "gold"},
        {"id": "b", "question": "How?"},
    ]
    path = lines(tmp_path / "i.jsonl", *rows)
    columns = InstructionColumns(better_from="reply", with_reference=True)
    first, second = read_instructions(path, columns)
    assert (first.response, first.reference) == ("So.", "gold")
    assert (second.response, second.reference) == ("", "")
    said = {"reply": [{"role": "assistant", "content": "So it is."}], "question": "Why?"}
    (spoken,) = read_instructions(lines(tmp_path / "m.jsonl", said), InstructionColumns(better_from="reply"))
    assert spoken.response == "So it is."
    assert read_source(path, columns).columns_left_out == []
    plain = read_source(path)
    assert (plain.instructions[0].response, plain.columns_left_out) == (None, ["reply", "reference"])
    with raises("data_invalid", "i.jsonl", "answer", "pairs.better_from"):
        read_instructions(path, InstructionColumns(better_from="answer"))
    with raises("data_invalid", "line 1", "reply"):
        read_instructions(lines(tmp_path / "n.jsonl", rows[0] | {"reply": 3}), columns)


@pytest.mark.parametrize("column", ["context", "documents"])
def test_an_instruction_is_whole_with_the_texts_that_the_prompt_shows(tmp_path, column):
    path = lines(tmp_path / "i.jsonl", {"question": "Why?", column: "It rains."})
    (one,) = read_instructions(path, InstructionColumns(shown=(column,)))
    assert (one.text, one.texts, one.whole) == ("Why?", {column: "It rains."}, "Why?\n\nIt rains.")
