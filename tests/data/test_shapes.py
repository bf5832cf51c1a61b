"""Published forms of pairs and instructions, and what is refused by name."""

import gzip
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import ipc, parquet

from ste_jax.data.comparisons import (
    comparisons_from_rows,
    load_pairs,
    read_comparisons,
    read_rankings,
    read_scorings,
)
from ste_jax.data.prompts import read_prompts
from ste_jax.data.sources import read_instructions
from ste_jax.errors import SteError
from tests.data.pair_files import BAD, GOOD, HH, PAIR, USER, lines, read, without
from tests.errors import raises

SYSTEM = {"role": "system", "content": "Be kind."}


@pytest.mark.parametrize(
    ("row", "instruction"),
    [
        ({"prompt": "Q?", "chosen": "yes", "rejected": "no"}, "Q?"),
        ({"question": "Q?", "chosen": "yes", "rejected": "no"}, "Q?"),
        ({"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}, "Q?"),
        ({"prompt": "Q?", "chosen": [USER, GOOD], "rejected": [USER, BAD], "score_chosen": 8.0}, "Q?"),
        ({"chosen": [SYSTEM, USER, GOOD], "rejected": [SYSTEM, USER, BAD]}, "System:\nBe kind.\n\nUser:\nQ?"),
        ({"chosen": f"{HH} yes", "rejected": f"{HH} no"}, "User:\nHi\n\nAssistant:\nHello.\n\nUser:\nQ?"),
        (
            {"instruction": "Q?", "input": "text", "output_1": "yes", "output_2": "no", "label": 1},
            "Q?\n\ntext",
        ),
        ({"context": [USER], "response1": "yes", "response2": "no", "overall_preference": -2}, "Q?"),
        ({"prompt": "Q?", "response_1": "no", "response_2": "yes", "preference_strength": 1}, "Q?"),
        ({"conversation_a": [USER, GOOD], "conversation_b": [USER, BAD], "winner": "model_a"}, "Q?"),
        ({"conversation_a": [USER, BAD], "conversation_b": [USER, GOOD], "winner": "model_b"}, "Q?"),
        ({"question": "Q?", "response_A": "yes", "response_B": "no", "label": "A>B"}, "Q?"),
        (
            {
                "prompt": "Q?",
                "response_a": "no",
                "response_b": "yes",
                "winner_model_a": 0,
                "winner_model_b": 1,
            },
            "Q?",
        ),
        (
            {"instruction": "Q?", "input": "", "response1": "no", "response2": "yes", "annotator1": 2}
            | {"annotator2": 2, "annotator3": 1},
            "Q?",
        ),
    ],
)
def test_published_pairs_give_the_prompt_and_the_better_response(tmp_path, row, instruction):
    for path in (
        lines(tmp_path / "p.jsonl", row),
        str(tmp_path / "p.parquet"),
    ):
        if path.endswith(".parquet"):
            parquet.write_table(pyarrow.Table.from_pylist([row]), path)
        (pair,) = read_comparisons(path, labels="required")
        assert (pair.instruction, pair.chosen, pair.rejected) == (instruction, "yes", "no")
        assert next(comparisons_from_rows(load_pairs(path))).chosen == "yes"


def test_the_place_of_the_chosen_response_follows_from_the_record(tmp_path):
    rows = [{"prompt": f"Q{i}", "chosen": "yes", "rejected": "no"} for i in range(40)]
    labels = {pair.instruction: pair.label for pair in read(tmp_path, *rows)}
    assert labels == {pair.instruction: pair.label for pair in read(tmp_path, *rows[::-1])}
    assert 10 < list(labels.values()).count("A") < 30


def test_a_pair_whose_other_response_is_chosen_is_the_same_pair_with_another_label(tmp_path):
    rows = [{"prompt": f"Q{i}", "chosen": f"yes {i}", "rejected": f"no {i}"} for i in range(20)]
    anew = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    before, after = read(tmp_path, *rows), read(tmp_path, *anew)
    assert [pair.judged_texts for pair in before] == [pair.judged_texts for pair in after]
    assert all({one.label, other.label} == {"A", "B"} for one, other in zip(before, after, strict=True))
    assert all(pair.chosen.startswith("no") for pair in after)


def test_conversations_that_part_early_go_on_as_turns(tmp_path):
    more = {"role": "user", "content": "And?"}
    row = {
        "conversation_a": [USER, GOOD, more, GOOD],
        "conversation_b": [USER, BAD, more, BAD],
        "winner": "tie",
    }
    (pair,) = read(tmp_path, row)
    assert pair.instruction == "Q?"
    assert pair.response_b == "Assistant:\nno\n\nUser:\nAnd?\n\nAssistant:\nno"
    cells = {"prompt": '["Q?", "And?"]', "response_a": '["yes", "yes"]', "response_b": '["no", null]'}
    (arena,) = read(tmp_path, cells | {"winner_model_a": 1, "winner_model_b": 0, "winner_tie": 0})
    assert arena.response_a == "Assistant:\nyes\n\nUser:\nAnd?\n\nAssistant:\nyes"


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        *(
            (text, "A")
            for text in (
                "A",
                " a ",
                "model_a",
                "Model_A",
                "[[A]]",
                "A>B",
                "A >> B",
                "b<a",
                "A≫B",
                "b≪a",
                "Ａ＞Ｂ",
            )
        ),
        *((text, "B") for text in ("b", "model_b", "[[b]]", "B>A", "A<<B", "B ≫ A", "A≺B")),
        *((text, "tie") for text in ("tie", "Tie", "tie (bothbad)", "tie (inconsistent)", "[[C]]", "A=B")),
    ],
)
def test_labels_in_their_published_forms(tmp_path, label, expected):
    assert read(tmp_path, PAIR | {"label": label})[0].label == expected
    winner = without(PAIR, "label") | {"winner": label}
    assert (read(tmp_path, winner)[0].label, read(tmp_path, winner)[0].metadata) == (
        expected,
        {"winner": label},
    )


@pytest.mark.parametrize(
    "label", ["Response A", 0, 1, 2, True, False, "0", "1", 1.0, -1, "true", "better", "C", "AB"]
)
def test_labels_that_name_no_response_are_refused(tmp_path, label):
    with raises("data_invalid", "p.jsonl, line 2", "label", str(label)):
        read(tmp_path, PAIR, PAIR | {"instruction": "x", "label": label})


@pytest.mark.parametrize(
    ("change", "places"),
    [
        ({"winner_model_a": 1, "winner_model_b": 1}, ["winner_model_a"]),
        ({"winner_model_a": 0, "winner_model_b": 0}, ["winner_model_a"]),
        ({"winner_model_a": "x", "winner_model_b": 0}, ["winner_model_a"]),
        ({"overall_preference": [1]}, ["overall_preference"]),
        ({"overall_preference": None}, ["label"]),
        ({"annotator1": 3}, ["annotator1"]),
        ({"annotator1": True, "annotator2": 2}, ["annotator1", "True"]),
        ({"annotator_1": 0.5}, ["annotator_1", "0.5"]),
        ({"annotator1": "nan"}, ["annotator1"]),
        *(
            ({name: value}, [name, str(value)])
            for name in ("overall_preference", "preference_strength")
            for value in (7, 4, -100, 0.2, "1.5", True, False, float("inf"), "nan")
        ),
        ({"preference_strength": 10**400}, ["preference_strength"]),
        ({"chosen": "a"}, ["label"]),
    ],
)
def test_other_labels_that_say_nothing_are_refused(tmp_path, change, places):
    with raises("data_invalid", "p.jsonl, line 1", *places):
        read(tmp_path, without(PAIR, "label") | change)


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": "yes", "rejected": "no"},
        {"prompt": "Q?", "chosen": [USER, GOOD], "rejected": "no"},
        {"prompt": "Other", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"chosen": [USER, GOOD], "rejected": [SYSTEM, BAD]},
        {"chosen": [USER], "rejected": [USER]},
        {"prompt": "Q?", "chosen": [], "rejected": [BAD]},
        {"prompt": "Q?", "chosen": None, "rejected": "no"},
        {"prompt": "Q?", "chosen": "yes", "rejected": "no", "label": "A"},
        {"prompt": '["a"]', "response_a": '["b"]', "response_b": '["c", "d"]', "winner_model_a": 1},
        {"prompt": "Q?", "responses": ["yes", "no"], "label": "A"},
    ],
)
def test_rows_that_are_not_of_their_form_are_refused(tmp_path, row):
    with raises("data_invalid", "p.jsonl, line 1"):
        read(tmp_path, row)


@pytest.mark.parametrize(
    ("value", "label"), [(-0.0, "tie"), ("-0", "tie"), (-3, "A"), ("2.0", "B"), (" 2 ", "B")]
)
def test_whole_numbers_are_labels_however_they_are_written(tmp_path, value, label):
    rows = [{"overall_preference": value}, {"preference_strength": value}]
    if label != "A":
        rows.append({"annotator1": value, "annotator2": value})
    for row in rows:
        assert read(tmp_path, without(PAIR, "label") | row)[0].label == label


def test_a_scale_that_begins_at_one_is_refused(tmp_path):
    rows = [without(PAIR, "label") | {"instruction": str(n), "preference_strength": n} for n in (1, 2, 3)]
    with raises("data_invalid", "p.jsonl, line 1", "preference_strength", "begins at 1"):
        read(tmp_path, *rows)
    signed = [*rows, rows[0] | {"instruction": "x", "preference_strength": -1}]
    assert [pair.label for pair in read(tmp_path, *signed)] == ["B", "B", "B", "A"]
    assert [pair.label for pair in read(tmp_path, rows[1])] == ["B"]


def test_a_label_of_other_white_space_contradicts_too(tmp_path):
    again = {"instruction": "Name  it ", "response_a": "a  b", "response_b": "x ", "label": "B"}
    with raises("data_invalid", "p.jsonl, line 2", "p.jsonl, line 1"):
        read(
            tmp_path, {"instruction": "name it", "response_a": "A b ", "response_b": "x", "label": "A"}, again
        )
    blanks = {"instruction": "Q?", "response_a": "x", "response_b": "x ", "label": "A"}
    assert len(read(tmp_path, blanks, blanks | {"label": "B"})) == 2


@pytest.mark.parametrize("column", ["judge", "annotator", "user_id"])
def test_one_voter_does_not_contradict_himself(tmp_path, column):
    votes = [PAIR | {column: "ann"}, PAIR | {column: "bob", "label": "B"}]
    assert len(read(tmp_path, *votes, votes[0])) == 3
    with raises("data_invalid", "p.jsonl, line 3", "p.jsonl, line 2"):
        read(tmp_path, *votes, votes[1] | {"label": "tie"})
    with raises("data_invalid", "p.jsonl, line 2"):
        read(tmp_path, PAIR | {column: None}, PAIR | {column: None, "label": "B"})


@pytest.mark.parametrize("turn", [1, 1.0, "1"])
def test_votes_on_the_first_of_two_turns_are_refused(tmp_path, turn):
    more = {"role": "user", "content": "And?"}
    vote = {
        "conversation_a": [USER, GOOD, more, GOOD],
        "conversation_b": [USER, BAD, more, BAD],
        "winner": "model_a",
        "judge": "expert_1",
    }
    assert len(read(tmp_path, vote | {"turn": 2})) == 1
    with raises("data_invalid", "p.jsonl, line 2", "--benchmark=mt_bench"):
        read(tmp_path, vote | {"turn": 2}, vote | {"turn": turn})


def test_one_pair_with_two_labels_is_refused_unless_these_are_votes(tmp_path):
    swapped = {"instruction": "Q?", "response_a": "no", "response_b": "yes"}
    with raises("data_invalid", "p.jsonl, line 3", "p.jsonl, line 1"):
        read(tmp_path, PAIR, PAIR | {"instruction": "Another"}, swapped | {"label": "A"})
    assert len(read(tmp_path, PAIR, swapped | {"label": "B"})) == 2
    votes = [PAIR | {"judge": "j1"}, swapped | {"label": "A", "judge": "j2"}]
    assert [pair.chosen for pair in read(tmp_path, *votes)] == ["yes", "no"]


# ---- what belongs to an instruction -------------------------------------------


@pytest.mark.parametrize("column", ["input", "context"])
def test_the_text_of_an_instruction_is_joined_by_all_readers(tmp_path, column):
    rest = {"response_a": "a", "response_b": "b", "label": "A", "response": "r", "responses": ["r"]}
    rows = [{"instruction": f"Do {i}.", column: text, **rest} for i, text in enumerate(("this\n", "", None))]
    path = lines(tmp_path / "x.jsonl", *rows)
    expected = ["Do 0.\n\nthis", "Do 1.", "Do 2."]
    assert [one.text for one in read_instructions(path)] == expected
    for records in (
        read_comparisons(path, labels="required"),
        read_rankings(path),
        read_scorings(path),
        list(comparisons_from_rows(rows)),
        list(comparisons_from_rows(load_pairs(path))),
    ):
        assert [record.instruction for record in records] == expected
    assert set(read_prompts(path)) == {*expected, "Do 0."}
    with raises("data_invalid", "line 1", column):
        read_instructions(lines(tmp_path / "y.jsonl", rows[0] | {column: 3}))


@pytest.mark.parametrize("column", ["system", "system_prompt", "system_message", "system_instruction"])
def test_a_system_column_becomes_a_turn(tmp_path, column):
    row = {column: "Be kind.", "question": "Q?", "input": "text"}
    (one,) = read_instructions(lines(tmp_path / "s.jsonl", row))
    assert one.text == "System:\nBe kind.\n\nUser:\nQ?\n\ntext"
    (pair,) = read(tmp_path, PAIR | {column: "Be kind.", "instruction": [SYSTEM, USER]})
    assert pair.instruction == "System:\nBe kind.\n\nUser:\nQ?"
    assert pair.metadata == {}


def test_conversations_of_instructions_end_before_the_answer(tmp_path):
    human = {"from": "human", "value": "Q?"}
    path = lines(
        tmp_path / "c.jsonl",
        {"messages": [USER, GOOD]},
        {"conversations": [human, {"from": "gpt", "value": "x"}]},
        {"conversation": [SYSTEM, USER, GOOD, {"role": "user", "content": "And?"}, GOOD, GOOD]},
        {"prompt": [USER]},
    )
    assert [one.text for one in read_instructions(path)] == [
        "Q?",
        "Q?",
        "System:\nBe kind.\n\nUser:\nQ?\n\nAssistant:\nyes\n\nUser:\nAnd?",
        "Q?",
    ]
    for bad in ([], [GOOD], [3], [{"from": "human"}]):
        with raises("data_invalid", "b.jsonl, line 1", "messages"):
            read_instructions(lines(tmp_path / "b.jsonl", {"messages": bad}))


def test_lists_of_groups_are_joined(tmp_path):
    (pair,) = read(tmp_path, PAIR | {"subset": ["x", "y"], "category": ["z"]})
    assert (pair.subset, pair.category) == ("x, y", "z")
    with raises("data_invalid", "line 1", "subset"):
        read(tmp_path, PAIR | {"subset": [{}]})


def test_columns_that_are_not_read_are_logged_once(tmp_path, caplog):
    path = lines(tmp_path / "n.jsonl", *({"prompt": f"{i}", "text": "t", "output": "o"} for i in range(3)))
    with caplog.at_level("INFO", "ste_jax"):
        read_instructions(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: columns that are not read: text, output"
    ]


# ---- columns ------------------------------------------------------------------


@pytest.mark.parametrize("column", ["label", "response_b", "instruction", "input", "id"])
@pytest.mark.parametrize("more", [".1", ".12", "_duplicated_0", "...3"])
def test_a_second_column_of_one_name_is_refused(tmp_path, column, more):
    with raises("data_invalid", "p.jsonl, line 1", repr(f"{column}{more}"), repr(column)):
        read(tmp_path, PAIR | {column: "A", f"{column}{more}": "B"})
    with raises("data_invalid", "s.jsonl", "'response.1'"):
        read_scorings(lines(tmp_path / "s.jsonl", {"prompt": "Q?", "response": "a", "response.1": "b"}))
    assert read(tmp_path, PAIR | {"score": 1, "score.1": 2})[0].metadata == {"score": 1, "score.1": 2}


def test_errors_about_columns_name_the_place_of_the_column(tmp_path):
    with raises("data_invalid", "p.jsonl, line 2", "'Label'"):
        read(tmp_path, PAIR, without(PAIR, "label") | {"Label": "A"})
    path = tmp_path / "p.csv"
    path.write_text("instruction,response_a,response_b,Label\nQ?,a,b,A\n")
    with raises("data_invalid", "p.csv, line 1", "'Label'"):
        read_comparisons(str(path), labels="required")
    (tmp_path / "cut.json").write_text('[{"prompt": "Q?"}, {"pro')
    with pytest.raises(SteError, match="invalid JSON") as caught:
        read_instructions(str(tmp_path / "cut.json"))
    assert "rename" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["p.csv", "p.tsv", "p.jsonl", "p.json", "p.parquet", "p.csv.gz", "p.jsonl.gz"]
)
@pytest.mark.parametrize(
    ("columns", "places"),
    [
        (["instruction", "response_a", "response_b", "Label"], ["'Label'", "'label'"]),
        (["instruction", "response_a ", "response_b", "label"], ["'response_a '", "'response_a'"]),
        (["Instruction", "response-a", "Response B", "label"], ["'response-a'", "'Response B'"]),
        (["instruction", "response_a", "response_c", "label"], ["response_b", "response_c"]),
        (["instruction", "first", "second", "label"], ["response_a, response_b", "first, second"]),
        (["instruction", "response_a", "response_b", "verdict"], ["label", "verdict"]),
    ],
)
def test_one_check_of_the_columns_serves_all_types(tmp_path, name, columns, places):
    path, cells = tmp_path / name, ["Q?", "yes", "no", "A"]
    row = dict(zip(columns, cells, strict=True))
    if name == "p.parquet":
        parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    else:
        mark = "\t" if ".tsv" in name else ","
        text = json.dumps(row) if "json" in name else f"{mark.join(columns)}\n{mark.join(cells)}\n"
        text = f"[{text}]" if name == "p.json" else text
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    with raises("data_invalid", name, *places):
        read_comparisons(str(path), labels="required")


@pytest.mark.parametrize(
    ("name", "content", "places"),
    [
        ("a.csv", b"instruction;id\nx;1\n", ["line 1", "semicolons"]),
        ("a.csv", b"instruction;id\nx, y;1\n", ["line 2", "';'"]),
        ("a.csv", b"instruction\tid\nx\t1\n", ["line 1", "tabs"]),
        ("a.tsv", b"instruction\tinstruction\nx\ty\n", ["line 1", "'instruction'"]),
        ("a.jsonl", b'{"text": "x", "text": "y"}\n', ["line 1", "'text'"]),
        ("a.jsonl", b'{"text": "x", "n": {"a": 1, "a": 2}}\n', ["line 1", "'a'"]),
        ("a.json", b'[{"text": "x"}, {"text": "y", "text": "z"}]', ["a.json", "'text'"]),
        ("a.json", b'[{"text": "x"}, 3]', ["a.json, record 2", "int"]),
        ("a.json", b'{"data": [{"text": "x"}]}', ["a.json, record 1", "data"]),
        ("a.json", b'[{"text": "x"}', ["a.json"]),
        ("a.csv", b"PK\3\4\x14\0\0\0", ["a.csv", "zip"]),
        ("a.jsonl", b"PK\3\4 no zeros", ["a.jsonl", "zip"]),
        ("a.csv", b"\n<!DOCTYPE html><title>Sign in</title>", ["a.csv", "HTML"]),
        ("a.json", b"\xef\xbb\xbf<HTML>\n<body>", ["a.json", "HTML"]),
        ("a.tsv", b"PAR1\x15\x04", ["a.tsv", "Parquet"]),
        ("a.csv", gzip.compress(b"text\nx\n", mtime=0), ["a.csv", ".gz"]),
        ("a.csv", "instruction\nx\n".encode("utf-32"), ["line 1", "UTF-32"]),
        ("a.csv", "instruction\nx\n".encode("utf-32-be"), ["line 1", "UTF-32"]),
        ("a.jsonl", '{"text": "x"}'.encode("utf-32-le"), ["line 1", "UTF-32"]),
        ("a.jsonl", b'[\n{"text": "x"}\n]', ["a.jsonl, line 1", ".json"]),
        ("a.csv", "instruction\nx\n".encode("utf-16"), ["line 1", "UTF-16"]),
        ("a.csv", "instruction\nx\n".encode("utf-16-le"), ["line 1", "UTF-16"]),
        ("a.tsv", "instruction\nMünch\n".encode("latin-1"), ["line 2", "UTF-8"]),
        ("a.jsonl.gz", b"not gzip", ["a.jsonl.gz", "gzip"]),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}', mtime=0)[:-9], ["a.jsonl.gz", "gzip"]),
        ("a.csv.gz", gzip.compress(b"", mtime=0), ["a.csv.gz"]),
        ("a.parquet.gz", b"", ["a.parquet.gz", ".parquet"]),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", ["a.jsonl", "LFS"]),
        ("a.arrow", b"ARROW1\0\0 no", ["a.arrow", "Arrow"]),
        ("a.json", b"[" * 100_000, ["a.json"]),
        ("a.jsonl", b'{"text": "x", "n": ' + b"9" * 5000 + b"}", ["a.jsonl, line 1"]),
    ],
)
def test_files_of_another_kind_are_named(tmp_path, name, content, places):
    (tmp_path / name).write_bytes(content)
    with raises("data_invalid", *places):
        read_instructions(str(tmp_path / name))


def test_a_table_with_two_columns_of_one_name_is_refused(tmp_path):
    table = pyarrow.table([["x"], ["y"]], names=["prompt", "prompt"])
    parquet.write_table(table, tmp_path / "t.parquet")
    with ipc.new_file(str(tmp_path / "t.arrow"), table.schema) as writer:
        writer.write_table(table)
    for name in ("t.parquet", "t.arrow"):
        with raises("data_invalid", name, "'prompt'"):
            read_instructions(str(tmp_path / name))


@pytest.mark.parametrize(
    "name", ["q.json", "q.tsv", "q.jsonl.gz", "q.csv.gz", "q.json.gz", "q.arrow", "lines.json"]
)
def test_other_types_are_read(tmp_path, name):
    rows = [{"instruction": "One, two"}, {"instruction": "Zwölf\u2028"}]
    path = tmp_path / name
    if name == "q.arrow":
        table = pyarrow.Table.from_pylist(rows)
        with ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    else:
        quoted = [f'"{row["instruction"]}"' for row in rows]
        text = "\n".join(json.dumps(row) for row in rows)
        if name.startswith(("q.tsv", "q.csv")):
            text = "\r\n".join(["instruction", *quoted, ""])
        elif name.startswith("q.json") and "jsonl" not in name:
            text = json.dumps(rows, indent=1)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    read = read_instructions(str(path))
    assert [one.text for one in read] == ["One, two", "Zwölf"]
    assert {one.source for one in read} == {path.name.partition(".")[0]}


def parts(folder: Path, *names: str) -> str:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pyarrow.table({"prompt": [f"{number} a", f"{number} b"]}), folder / name)
    return str(folder)


def test_a_folder_of_parts_is_one_source(tmp_path):
    folder = parts(tmp_path / "d.parquet", "data/part-0.parquet", "data/part-1.parquet", ".cache/x.parquet")
    read = read_instructions(folder)
    assert [one.text for one in read] == ["0 a", "0 b", "1 a", "1 b"]
    assert [one.id for one in read] == [f"instruction-d-{number}" for number in (1, 2, 3, 4)]
    with raises("data_invalid", "splits", "test, train"):
        read_instructions(parts(tmp_path / "s", "train/0.parquet", "data/test-0.parquet"))
    lines(tmp_path / "d.parquet" / "x.jsonl", {"prompt": "?"})
    with raises("data_invalid", "d.parquet", ".jsonl, .parquet"):
        read_instructions(folder)
    (tmp_path / "e").mkdir()
    with raises("data_invalid", "/e"):
        read_instructions(str(tmp_path / "e"))
    parts(tmp_path / "c", "part.parquet")
    (tmp_path / "c" / "part (1).parquet").write_bytes((tmp_path / "c" / "part.parquet").read_bytes())
    with raises("data_invalid", "part.parquet", "part (1).parquet"):
        read_instructions(str(tmp_path / "c"))


def test_a_saved_data_set_is_read_by_its_state(tmp_path):
    table = pyarrow.table({"prompt": ["One?", "Two?"]})
    for name in ("data-00000-of-00001.arrow", "cache-1.arrow"):
        with ipc.new_stream(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_indices_data_files": None}
    (tmp_path / "state.json").write_text(json.dumps(state))
    (tmp_path / "dataset_info.json").write_text("{}")
    assert [one.text for one in read_instructions(str(tmp_path))] == ["One?", "Two?"]
    for wrong in ({}, [], {"_data_files": [3]}, state | {"_indices_data_files": [{"filename": "x"}]}):
        (tmp_path / "state.json").write_text(json.dumps(wrong))
        with raises("data_invalid", str(tmp_path)):
            read_instructions(str(tmp_path))
    (tmp_path / "x.bin").write_bytes(b"x")
    for name in ("x.bin", "../data-00000-of-00001.arrow", str(tmp_path / "cache-1.arrow"), 3, None):
        (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
        with raises("data_invalid", str(tmp_path)):
            read_instructions(str(tmp_path))
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "absent.arrow"}]}))
    with raises("file_not_found", "absent.arrow"):
        read_instructions(str(tmp_path))
    (tmp_path / "train").mkdir()
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with raises("data_invalid", "train"):
        read_instructions(str(tmp_path))
