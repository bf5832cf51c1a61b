"""Result files hold everything that the numbers need, and older ones are still read."""

import json
from pathlib import Path

import pytest

from ste_jax.data.comparisons import comparison_from_row
from ste_jax.evaluation.result import SCHEMA, read_result, to_record
from ste_jax.metrics.traits import surface_of
from ste_jax.records import ORDERS, ComparisonResult
from ste_jax.storage.jsonl_output import JsonlOutput
from tests.errors import raises
from tests.evaluation.evaluation_cases import item, result, right, run_of

ITEMS = [item(i, "AB"[i % 2], response_a="- one\n- two") for i in range(4)]
# Written by the version before schema versions, from the same comparisons and planted judgments.
FORMAT_1 = Path(__file__).parent / "fixtures" / "result_format_1.jsonl"


def rights(path: Path, samples: int = 1):
    return result(path, ITEMS, lambda one, order, i: right(one, order), samples)


def test_what_was_written_is_read_without_the_texts(tmp_path):
    made = rights(tmp_path / "r.jsonl", samples=2)
    assert (len(made.comparisons), len(made.judgments), made.too_long) == (4, 16, [])
    assert [c.label for c in made.comparisons] == ["A", "B", "A", "B"]
    assert [surface_of(c) for c in made.comparisons] == [surface_of(c) for c in ITEMS]
    assert made.judgments[0].text == right(ITEMS[0], "as_given")
    assert made.run["data"]["source"] == "planted.jsonl"
    assert "question 0" not in made.path.read_text()


def test_comparisons_that_do_not_fit_are_listed(tmp_path):
    with JsonlOutput(tmp_path / "r.jsonl", run_of(), schema=SCHEMA) as output:
        output.add(ITEMS[0].id, [to_record(ITEMS[0], None)])
        output.finish([ITEMS[0].id])
    assert read_result(tmp_path / "r.jsonl").too_long == ["i0000"]


def test_an_unfinished_file_is_named_so(tmp_path):
    with JsonlOutput(tmp_path / "r.jsonl", run_of(), schema=SCHEMA) as output:
        output.add(ITEMS[0].id, [to_record(ITEMS[0], [])])
    with raises("result_unfinished", "r.jsonl"):
        read_result(tmp_path / "r.jsonl")


def test_other_files_are_refused_by_name(tmp_path):
    with raises("file_not_found", "absent"):
        read_result(tmp_path / "absent")
    with JsonlOutput(tmp_path / "verdicts.jsonl", {"parser": "x"}, schema="ste-verdicts") as output:
        output.finish([])
    with raises("result_invalid", "verdicts.jsonl", "ste-verdicts"):
        read_result(tmp_path / "verdicts.jsonl")
    with JsonlOutput(tmp_path / "odd.jsonl", run_of(), schema=SCHEMA) as output:
        output.add("x", [{"id": "x"}])
        output.finish(["x"])
    with raises("result_invalid", "odd.jsonl, line 2"):
        read_result(tmp_path / "odd.jsonl")


def test_another_parser_is_refused(tmp_path):
    with raises("parser_differs", "r.jsonl", "other"):
        result(tmp_path / "r.jsonl", ITEMS, lambda one, order, i: right(one, order), parser="other")


def test_a_file_of_format_1_is_read(tmp_path):
    found, expected = read_result(FORMAT_1), rights(tmp_path / "r.jsonl")
    assert found.comparisons == expected.comparisons
    assert [(j.id, j.text, j.pair_id, j.order) for j in found.judgments] == [
        (j.id, j.text, j.pair_id, j.order) for j in expected.judgments
    ]
    assert found.too_long == ["long"]
    assert found.run["samples"] == 1


@pytest.mark.parametrize("cut", [3, 1])
def test_an_unfinished_file_of_format_1_is_refused(tmp_path, cut):
    lines = FORMAT_1.read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["kind"] != "session"][:-cut]
    (tmp_path / "old.jsonl").write_text("".join(kept))
    with raises("result_unfinished", "old.jsonl"):
        read_result(tmp_path / "old.jsonl")


def test_orders_cover_both(tmp_path):
    orders = {judgment.order for judgment in rights(tmp_path / "r.jsonl").judgments}
    assert orders == set(ORDERS)


def test_a_column_named_surface_is_a_column_like_any_other(tmp_path):
    row = {"instruction": "q", "response_a": "long", "response_b": "b", "label": "A", "surface": "matt"}
    one = comparison_from_row(row, "row", default_id="x")
    assert ComparisonResult(comparison=one).to_dict()["surface"] == "matt"
    assert surface_of(one).length_a == 4
    made = result(tmp_path / "r.jsonl", [one], lambda one, order, i: right(one, order))
    assert surface_of(made.comparisons[0]) == surface_of(one)
    assert "surface" not in ComparisonResult(comparison=made.comparisons[0]).to_dict()
    with raises("data_invalid", "__surface__"):
        comparison_from_row(row | {"__surface__": 1}, "row")


def test_files_with_the_surface_under_its_old_key_are_read(tmp_path):
    new = rights(tmp_path / "r.jsonl")
    text = new.path.read_text()
    assert '"__surface__"' in text
    with JsonlOutput(tmp_path / "old.jsonl", run_of(), schema=SCHEMA) as output:
        for row in map(json.loads, text.splitlines()[1:]):
            row["surface"] = row.pop("__surface__")
            output.add(row["id"], [row])
        output.finish([one.id for one in ITEMS])
    assert read_result(tmp_path / "old.jsonl").comparisons == new.comparisons
