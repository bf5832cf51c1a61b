"""Result files survive crashes, refuse strangers, and say what they are."""

import json

import pytest
from evaluation_cases import item, judgment, open_file, result, right, run_of

from ste_jax.evaluation.result import PartFile, read_result
from ste_jax.records import ORDERS

ITEMS = [item(i, "AB"[i % 2]) for i in range(4)]


def test_what_was_written_is_read(tmp_path):
    made = result(tmp_path / "r.jsonl", ITEMS, lambda one, order, i: right(one, order))
    assert (len(made.comparisons), len(made.judgments), made.missing) == (4, 8, 0)
    assert made.comparisons[1].label == "B"
    assert made.judgments[0].text == right(ITEMS[0], "as_given")
    assert made.header["data_source"] == "planted.jsonl"
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "r.jsonl").read_text().split("\n")[:-1]]
    assert kinds == ["header"] + ["item"] * 4 + ["judgment"] * 8 + ["session"]


@pytest.mark.parametrize("keep", [0.3, 0.55, 0.8, 0.97])
def test_a_cut_file_goes_on_where_it_was(tmp_path, keep):
    whole = result(tmp_path / "whole.jsonl", ITEMS, lambda one, order, i: right(one, order), samples=2)
    path = tmp_path / "cut.jsonl"
    content = whole.path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    file = open_file(path, ITEMS, run_of(2))
    # A request is there with both samples or not at all.
    assert len(file.found) % 2 == 0
    for one in ITEMS:
        for order in ORDERS:
            if f"{one.id}/{order}/0" not in file.found:
                file.add(f"{one.id}/{order}", [judgment(one, order, i, right(one, order)) for i in range(2)])
    file.close({})
    again = read_result(path)
    assert again.missing == 0
    assert sorted(j.id for j in again.judgments) == sorted(j.id for j in whole.judgments)
    assert again.comparisons == whole.comparisons


def test_a_file_of_another_run_is_refused(tmp_path):
    path = result(tmp_path / "r.jsonl", ITEMS, lambda one, order, i: right(one, order)).path
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"holds another evaluation:\n  seed: 0 -> 1\nChoose another --out"):
        open_file(path, ITEMS, run_of(seed=1))
    assert path.read_bytes() == before


def test_a_file_that_is_none_of_ours_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my notes\nhalf a li")
    with pytest.raises(
        ValueError, match=r"notes.txt: there already, and no result file; choose another --out"
    ):
        open_file(path, ITEMS, run_of())
    assert path.read_text() == "my notes\nhalf a li"
    with pytest.raises(ValueError, match=r"notes.txt, line 1: not of a result file"):
        read_result(path)
    with pytest.raises(ValueError, match="there is no such result file"):
        read_result(tmp_path / "absent")


def test_two_processes_cannot_write_one_file(tmp_path):
    file = open_file(tmp_path / "r.jsonl", ITEMS, run_of())
    with pytest.raises(ValueError, match="another process writes it"):
        open_file(tmp_path / "r.jsonl", ITEMS, run_of())
    file.close({})


def test_another_parser_is_refused(tmp_path):
    with pytest.raises(ValueError, match="written for the parser other"):
        open_file(tmp_path / "r.jsonl", ITEMS, run_of(parser="other"))


def test_the_judgments_of_another_process_are_taken_in_once(tmp_path):
    path = tmp_path / "r.jsonl"
    open_file(path, ITEMS, run_of()).close({})
    part = PartFile(path, 1, run_of(), {})
    part.add("i0000/as_given", [judgment(ITEMS[0], "as_given", 0, right(ITEMS[0], "as_given"))])
    part.close({})
    file = open_file(path, ITEMS, run_of())
    file.take_in()
    assert list(file.found) == ["i0000/as_given/0"]
    file.close({})
    assert [p.name for p in tmp_path.iterdir()] == ["r.jsonl"]


def test_a_part_of_another_run_is_refused(tmp_path):
    path = tmp_path / "r.jsonl"
    part = PartFile(path, 1, run_of(), {})
    part.add("i0000/as_given", [judgment(ITEMS[0], "as_given", 0, right(ITEMS[0], "as_given"))])
    part.close({})
    # The result beside it was deleted, and begins anew with another run.
    file = open_file(path, ITEMS, run_of(seed=1))
    with pytest.raises(ValueError, match=r"\.r\.jsonl\.of-host-1: a part of another evaluation; delete it"):
        file.take_in()
    file.close({})
