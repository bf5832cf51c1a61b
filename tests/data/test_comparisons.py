import csv
import datetime
import json
import math
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from ste_jax.data.comparisons import (
    comparison_from_row,
    comparisons_from_rows,
    load_pairs,
    read_comparisons,
    read_labelled_pairs,
    read_rankings,
    read_scorings,
)
from ste_jax.data.named_columns import NamedColumns
from ste_jax.data.sources import read_instructions
from ste_jax.records import Comparison, ComparisonResult
from tests.errors import raises

PAIR = {"instruction": "Add 2 and 3.", "response_a": "5", "response_b": "6", "label": "A"}
UNLABELLED = {name: value for name, value in PAIR.items() if name != "label"}


def _jsonl(path: Path, *records) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return str(path)


def _csv(path: Path, *records: dict) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    return str(path)


def _parquet(path: Path, *records: dict) -> str:
    parquet.write_table(pyarrow.Table.from_pylist(list(records)), path)
    return str(path)


WRITERS = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}


@pytest.mark.parametrize("suffix", WRITERS)
def test_all_file_types_give_the_same_comparisons(tmp_path, suffix):
    rows = [
        UNLABELLED | {"id": f"r{i}", "label": label, "model": "m,1", "response_b": "a\n\n b"}
        for i, label in enumerate(("A", "", "tie"))
    ]
    read = read_comparisons(WRITERS[suffix](tmp_path / f"p{suffix}", *rows), labels="optional")
    assert [(pair.id, pair.label, pair.response_b) for pair in read] == [
        ("r0", "A", "a\n\n b"),
        ("r1", None, "a\n\n b"),
        ("r2", "tie", "a\n\n b"),
    ]
    assert [pair.metadata for pair in read] == [{"model": "m,1"}] * 3


def test_order_ids_and_prompts(tmp_path):
    path = _jsonl(
        tmp_path / "p.jsonl",
        PAIR | {"id": "z", "category": "maths", "subset": "s"},
        PAIR | {"id": 7, "instruction": "  Add 2 and 3.\n"},
        PAIR | {"instruction": "Other", "prompt_id": "q", "response_a": ""},
        PAIR | {"instruction": "Third", "subset": 3, "category": 2.5, "prompt_id": 0},
        PAIR | {"instruction": "Fourth", "subset": math.nan, "category": None},
    )
    read = read_comparisons(path, labels="required")
    assert [pair.id for pair in read] == ["z", "7", "pair-p-3", "pair-p-4", "pair-p-5"]
    assert [pair.prompt_id for pair in read] == ["z", "z", "q", "0", "pair-p-5"]
    assert [(pair.subset, pair.category) for pair in read] == [
        ("s", "maths"),
        ("", None),
        ("", None),
        ("3", "2.5"),
        ("", None),
    ]
    assert read[2].response_a == ""


def test_default_ids_of_a_pair_and_of_an_instruction_differ(tmp_path):
    path = _jsonl(tmp_path / "data.jsonl", PAIR)
    (pair,), (instruction,) = read_comparisons(path, labels="required"), read_instructions(path)
    assert pair.id != instruction.id


def test_ties_are_counted(tmp_path):
    same = PAIR | {"instruction": "Third", "response_a": "6", "response_b": "6 "}
    rows = (
        PAIR,
        PAIR | {"instruction": "x", "label": "tie"},
        PAIR | {"instruction": "y", "label": "B"},
        same,
    )
    pairs, ties, identical = read_labelled_pairs(_jsonl(tmp_path / "p.jsonl", *rows))
    assert ([pair.chosen for pair in pairs], len(ties), identical) == (["5", "6"], 1, 1)
    with raises("data_invalid", "t.jsonl"):
        read_labelled_pairs(_jsonl(tmp_path / "t.jsonl", PAIR | {"label": "tie"}, same))


@pytest.mark.parametrize(
    ("change", "places"),
    [
        ({"label": "C"}, ["label", "'C'"]),
        ({"label": 1}, ["label", "'1'", "A for the first"]),
        ({"label": 0.0}, ["label", "'0.0'", "A for the first"]),
        ({"label": True}, ["label", "bool"]),
        ({"response_b": 3}, ["response_b", "int"]),
        ({"response_b": math.nan}, ["response_b", "NaN"]),
        ({"response_b": None}, ["response_b"]),
        ({"instruction": ""}, ["instruction"]),
        ({"instruction": " \n"}, ["instruction"]),
        ({"instruction": 3}, ["instruction", "int"]),
        ({"instruction": math.nan}, ["instruction", "NaN"]),
        ({"instruction": []}, ["instruction"]),
        ({"instruction": [{"role": "user"}]}, ["instruction", "message 1"]),
        ({"instruction": [{"role": "user", "content": ""}]}, ["instruction"]),
        ({"instruction": [{"role": "user", "content": "\ud800"}]}, ["instruction"]),
        ({"reference": 4}, ["reference", "int"]),
        ({"id": "\ud800"}, ["id"]),
        ({"id": ["x"]}, ["id", "list"]),
        ({"subset": "a\ud800"}, ["subset"]),
        ({"category": "\udfff"}, ["category"]),
        ({"prompt_id": "\ud800"}, ["prompt_id"]),
    ],
)
def test_invalid_cells_are_refused_with_file_and_line(tmp_path, change, places):
    path = _jsonl(tmp_path / "p.jsonl", PAIR, PAIR | change)
    with raises("data_invalid", "p.jsonl, line 2", *places):
        read_comparisons(path, labels="optional")
    with raises("data_invalid", "pairs[1]", *places):
        list(comparisons_from_rows([PAIR, PAIR | change]))


@pytest.mark.parametrize("column", ["instruction", "response_a", "response_b"])
@pytest.mark.parametrize("suffix", WRITERS)
def test_a_missing_column_is_refused(tmp_path, suffix, column):
    row = {name: value for name, value in PAIR.items() if name != column}
    path = WRITERS[suffix](tmp_path / f"p{suffix}", row)
    with raises("data_invalid", f"p{suffix}, ", column):
        read_comparisons(path, labels="optional")


@pytest.mark.parametrize("absent", [{}, {"label": None}, {"label": ""}, {"label": math.nan}])
def test_labels_are_required_or_optional(tmp_path, absent):
    path = _jsonl(tmp_path / "p.jsonl", UNLABELLED | absent)
    assert read_comparisons(path, labels="optional")[0].label is None
    with raises("data_invalid", "p.jsonl, line 1", "label"):
        read_comparisons(path, labels="required")


def test_duplicate_ids_are_refused_with_both_positions(tmp_path):
    path = _jsonl(tmp_path / "p.jsonl", PAIR | {"id": "x"}, PAIR, PAIR | {"id": "x"})
    with raises("data_invalid", "p.jsonl, line 3", "p.jsonl, line 1", "'x'"):
        read_comparisons(path, labels="optional")
    rows = comparisons_from_rows([PAIR | {"id": "x"}, PAIR | {"id": "x"}])
    assert next(rows).id == "x"
    with raises("data_invalid", "pairs[1]", "pairs[0]"):
        next(rows)


@pytest.mark.parametrize("row", [None, "text", ["a", "b"], 3])
def test_a_row_that_is_no_dict_is_refused(row):
    with raises("data_invalid", "pairs[1]"):
        list(comparisons_from_rows([PAIR, row]))


def test_messages_are_flattened():
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello\n"}, {"type": "text", "text": "you"}]},
        {"role": "assistant", "content": " Hi\n"},
    ]
    single = comparison_from_row(PAIR | {"instruction": [{"role": "user", "content": "Why?"}]}, "row")
    several = comparison_from_row(PAIR | {"instruction": turns}, "row")
    assert single.instruction == "Why?"
    assert several.instruction == "System:\nBe brief.\n\nUser:\nHello\nyou\n\nAssistant:\n Hi"


def test_messages_in_parquet(tmp_path):
    path = _parquet(tmp_path / "p.parquet", PAIR | {"instruction": [{"role": "user", "content": "Why?"}]})
    assert read_comparisons(path, labels="optional")[0].instruction == "Why?"


def test_reference_column(tmp_path):
    row = PAIR | {"reference": "five", "gold": "5"}
    path = _jsonl(tmp_path / "p.jsonl", row, row | {"reference": " ", "gold": None})
    default = read_comparisons(path, labels="optional")
    named = read_comparisons(path, labels="optional", named=NamedColumns(reference="gold"))
    assert [(pair.reference, pair.metadata) for pair in default] == [
        ("five", {"gold": "5"}),
        (None, {"gold": None}),
    ]
    assert [(pair.reference, pair.metadata) for pair in named] == [
        ("5", {"reference": "five"}),
        (None, {"reference": " "}),
    ]
    with raises("data_invalid", "line 1", "answer"):
        read_comparisons(path, labels="optional", named=NamedColumns(reference="answer"))


def test_extra_columns_of_parquet_become_json(tmp_path):
    extra = {"when": datetime.date(2024, 5, 1), "raw": b"\x00\xff", "score": math.nan, "tags": ["a"], "n": 3}
    (pair,) = read_comparisons(_parquet(tmp_path / "p.parquet", PAIR | extra), labels="required")
    assert pair.metadata == {"when": "2024-05-01", "raw": "AP8=", "score": None, "tags": ["a"], "n": 3}
    json.dumps(pair.to_json(), allow_nan=False)


def test_load_pairs_gives_dicts_that_describe_the_same_comparisons(tmp_path):
    path = _jsonl(
        tmp_path / "p.jsonl",
        PAIR | {"model": "x", "subset": "s", "metadata": {"k": 1}},
        UNLABELLED | {"reference": "5", "category": "maths"},
    )
    rows = load_pairs(path)
    assert rows[0]["model"] == "x"
    assert "label" not in rows[1]
    assert list(comparisons_from_rows(rows)) == read_comparisons(path, labels="optional")


@pytest.mark.parametrize("suffix", WRITERS)
def test_rankings(tmp_path, suffix):
    responses = ["one", "", "two, three"]
    row = {"instruction": "Count.", "responses": responses, "topic": "numbers"}
    if suffix == ".csv":
        row["responses"] = json.dumps(responses)
    (ranking,) = read_rankings(WRITERS[suffix](tmp_path / f"r{suffix}", row))
    assert (ranking.id, ranking.responses, ranking.extra) == (
        f"rank-r-{2 if suffix == '.csv' else 1}",
        ("one", "", "two, three"),
        {"topic": "numbers"},
    )


@pytest.mark.parametrize("responses", [[], None, "not JSON", '"text"', ["a", 3], ["a", None], [["a"]], {}])
def test_invalid_responses_are_refused(tmp_path, responses):
    row = {"instruction": "Count.", "responses": ["x"]}
    path = _jsonl(tmp_path / "r.jsonl", row, row | {"responses": responses})
    with raises("data_invalid", "r.jsonl, line 2", "responses"):
        read_rankings(path)


def test_scorings(tmp_path):
    row = {"instruction": "Count.", "response": ""}
    path = _jsonl(tmp_path / "s.jsonl", row, row | {"id": "x", "baseline": "", "reference": "1", "k": 2})
    first, second = read_scorings(path)
    assert (first.id, first.response, first.baseline, first.reference) == ("score-s-1", "", None, None)
    assert (second.id, second.baseline, second.reference, second.extra) == ("x", "", "1", {"k": 2})
    with raises("data_invalid", "t.jsonl, line 1", "response"):
        read_scorings(_jsonl(tmp_path / "t.jsonl", {"instruction": "Count."}))
    with raises("data_invalid", "u.jsonl, line 1", "baseline"):
        read_scorings(_jsonl(tmp_path / "u.jsonl", row | {"baseline": ["x"]}))
    with raises("data_invalid", "v.jsonl, line 2", "'x'"):
        read_scorings(_jsonl(tmp_path / "v.jsonl", row | {"id": "x"}, row | {"id": "x"}))


@pytest.mark.parametrize("name", ["p.jsonl", "p.csv", "p.parquet"])
def test_missing_empty_and_unreadable_files_are_refused(tmp_path, name):
    with raises("file_not_found", name):
        read_comparisons(str(tmp_path / name), labels="optional")
    (tmp_path / name).write_bytes(b"")
    with raises("data_invalid", name):
        read_comparisons(str(tmp_path / name), labels="optional")
    (tmp_path / name).write_bytes(b"\xff\xfe\x00{" * 10)
    with raises("data_invalid", name):
        read_comparisons(str(tmp_path / name), labels="optional")


def test_a_read_error_of_the_file_system_is_named(tmp_path):
    path = tmp_path / "p.jsonl"
    path.symlink_to("/proc/self/mem")  # a regular file that cannot be read from its start
    with raises("file_unreadable", "p.jsonl"):
        read_comparisons(str(path), labels="optional")


def test_blank_lines_count_as_lines(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(f"\n{json.dumps(PAIR)}\n\n\n{{}}\n")
    with raises("data_invalid", "p.jsonl, line 5"):
        read_comparisons(str(path), labels="optional")


def test_a_csv_error_names_the_first_line_of_its_row(tmp_path):
    path = _csv(tmp_path / "p.csv", PAIR, PAIR | {"instruction": "", "response_a": "1\n2\n3"})
    with raises("data_invalid", "p.csv, line 3", "instruction"):
        read_comparisons(path, labels="optional")


def test_results_repeat_the_columns_that_the_input_sets(tmp_path):
    given = {
        "label": "A",
        "subset": "s",
        "category": "c",
        "prompt_id": "q",
        "reference": "five",
        "model": "m",
    }
    with_all, plain = comparisons_from_rows([PAIR | given, UNLABELLED])
    assert ComparisonResult(comparison=with_all).to_dict().items() >= given.items()
    assert not given.keys() & ComparisonResult(comparison=plain).to_dict().keys()
    assert plain.prompt_id == plain.id
    path = _jsonl(tmp_path / "p.jsonl", PAIR | {"solution": "five", "reference": "a page"})
    (named,) = read_comparisons(path, labels="optional", named=NamedColumns(reference="solution"))
    value = ComparisonResult(comparison=named).to_dict()
    assert (value["solution"], value["reference"]) == ("five", "a page")
    assert "columns" not in with_all.to_json()
    stored = Comparison.from_json(with_all.to_json())
    assert (stored, stored.columns) == (with_all, None)
    assert ComparisonResult(comparison=stored).to_dict() == ComparisonResult(comparison=with_all).to_dict()


HEADER = "prompt,chosen,rejected"


@pytest.mark.parametrize("blank", ["\n", "\r\n\r\n", ",,\n"])
def test_blank_lines_before_the_header_of_a_table_are_skipped(tmp_path, blank):
    (tmp_path / "b.csv").write_text(f"{blank}{HEADER}\nHi you,a,b\n", newline="")
    assert read_comparisons(str(tmp_path / "b.csv"), labels="required")[0].chosen == "a"


@pytest.mark.parametrize(
    ("content", "places"),
    [
        (f"# exported\n{HEADER}\nHi you,a,b\n", ("line 2", "# exported")),
        (f'{HEADER}\nHi you, "a","b"\n', ("line 2", "remove the blanks")),
        (f'{HEADER}\nHi you, "a, c","b"\n', ("line 2", "remove the blanks")),
    ],
)
def test_errors_of_tables_name_what_is_wrong(tmp_path, content, places):
    (tmp_path / "t.csv").write_text(content)
    with raises("data_invalid", "t.csv", *places):
        read_comparisons(str(tmp_path / "t.csv"), labels="required")


def test_a_cell_may_begin_with_a_blank_and_hold_quotes(tmp_path):
    (tmp_path / "t.csv").write_text(f'{HEADER}\nHi you," ""a"" and ""b""", said "so"\n')
    (pair,) = read_comparisons(str(tmp_path / "t.csv"), labels="required")
    assert (pair.chosen, pair.rejected) == (' "a" and "b"', ' said "so"')
