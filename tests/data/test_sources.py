import csv
import json
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from ste_jax.data.sources import read_instructions, read_items, read_pairs

PAIR = {"instruction": "Add 2 and 3.", "response_a": "5", "response_b": "6", "label": "A"}


def _jsonl(path: Path, *records) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return str(path)


def _table(path: Path, records: list[dict]) -> str:
    parquet.write_table(pyarrow.Table.from_pylist(records), path)
    return str(path)


def test_starter_is_packaged():
    instructions = read_instructions("starter")
    assert len(instructions) >= 340
    assert instructions[0].id == "starter-0001"
    assert {(instruction.source, instruction.category) for instruction in instructions} == {("starter", None)}


def test_jsonl_keeps_ids_and_sources_and_makes_missing_ones(tmp_path):
    path = _jsonl(
        tmp_path / "mine.jsonl",
        {"id": "x", "source": "forum", "prompt": "  Why?\n", "text": "not this"},
        {"id": 7, "question": "How\u2028so? e\u0301"},
        {"instruction": None, "text": "When?"},
    )
    first, second, third = read_instructions(path)
    assert (first.id, first.source, first.text) == ("x", "forum", "Why?")
    assert (second.id, second.source, second.text) == ("7", "mine", "How\u2028so? e\u0301")
    assert (third.id, third.source, third.text) == ("mine-3", "mine", "When?")


def test_blank_lines_and_a_byte_order_mark_are_skipped(tmp_path):
    path = tmp_path / "mine.json-lines"
    path.write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n\n  \n{"text": "two"}')
    assert [(one.id, one.text) for one in read_instructions(str(path))] == [
        ("mine-1", "one"),
        ("mine-4", "two"),
    ]


def test_txt_is_one_instruction_a_line(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text('First, "quoted"\n\n  Second \n', "utf-8")
    read = read_instructions(str(path))
    assert [(one.id, one.text) for one in read] == [("list-1", 'First, "quoted"'), ("list-3", "Second")]


def test_csv_with_line_breaks_inside_a_field(tmp_path):
    path = tmp_path / "sheet.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "question"], ["a", "Sum up:\nlong, text"], ["", "Next?"]])
    read = read_instructions(str(path))
    assert [(one.id, one.text) for one in read] == [("a", "Sum up:\nlong, text"), ("sheet-4", "Next?")]


def test_parquet(tmp_path):
    path = _table(tmp_path / "t.parquet", [{"prompt": "One?", "n": 1}, {"prompt": "Two?", "n": 2}])
    assert [(one.id, one.text) for one in read_instructions(path)] == [("t-1", "One?"), ("t-2", "Two?")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "a.jsonl: holds no instructions"),
        ("a.jsonl", b"\n \n", "a.jsonl: holds no instructions"),
        ("a.jsonl", b'{"text": "x"}\n{"text": ', "a.jsonl, line 2: broken JSON"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl, line 1: broken JSON"),
        ("a.jsonl", b'["x"]', "a.jsonl, line 1: holds a list; write one JSON object a line"),
        ("a.jsonl", b'{"words": "x"}', "a.jsonl, line 1: no text; add one of the fields instruction, prompt"),
        ("a.jsonl", b'{"prompt": ["x"]}', "a.jsonl, line 1: the field prompt is a list; write a string"),
        ("a.jsonl", b'{"prompt": " "}', "a.jsonl, line 1: the field prompt is blank; fill it or remove"),
        ("a.jsonl", b'{"text": "\\ud800"}', "a.jsonl, line 1: the field text holds half of a surrogate pair"),
        ("a.jsonl", b'{"text": "x", "id": {}}', "a.jsonl, line 1: the id is a dict; write a string"),
        (
            "a.jsonl",
            b'{"text": "x", "id": 1}\n\n{"text": "y", "id": "1"}',
            r"line 3: the id '1' is that of .*a.jsonl, line 1 too; make it unique",
        ),
        ("a.txt", b"fine\nna\xefve\n", "a.txt, line 2: not UTF-8 text; save the file as UTF-8"),
        ("a.csv", b"id,title\n1,x\n", "a.csv, line 1: no column is named instruction, .* only id, title"),
        ("a.csv", b"", "a.csv, line 1: no column is named .* only none"),
        ("a.csv", b'text\n"open', "a.csv, line 2: broken CSV"),
        ("a.csv", b"id,text\n1\n", "a.csv, line 2: no text"),
        (
            "a.csv",
            b"id,text\n1,Hi\n2,Hello, you\n",
            r"a.csv, line 3: more cells than columns \(2\); put cells that hold commas in quotes",
        ),
        ("a.jsonl", b'{"text": "x", "id": "\\udc00"}', "line 1: the field id holds half of a surrogate pair"),
        ("a.jsonl", b'{"text": "x", "source": "\\ud800"}', "the field source holds half of a surrogate pair"),
        ("a.parquet", b"PAR1 no", "a.parquet: not a readable Parquet file"),
        ("a.json", b"[]", r"a.json: unknown kind of source; give `starter`, .* ends in \.jsonl"),
    ],
)
def test_broken_files_are_refused_with_file_line_and_mend(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_instructions(str(path))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none.jsonl: there is no such file; check the path"):
        read_instructions(str(tmp_path / "none.jsonl"))


def test_pairs_leave_out_ties_and_keep_responses_as_they_are(tmp_path):
    code = "    return x\n"
    path = _jsonl(
        tmp_path / "p.jsonl",
        PAIR | {"id": "p1", "category": "maths", "subset": "s"},
        PAIR | {"label": "tie"},
        PAIR | {"response_b": code, "label": "B"},
        PAIR | {"instruction": "Other", "prompt_id": "q", "response_a": ""},
    )
    pairs, ties = read_pairs(path)
    assert ties == 1
    assert [(pair.id, pair.prompt_id) for pair in pairs] == [("p1", "p1"), ("p-3", "p1"), ("p-4", "q")]
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("5", "6"), (code, "5"), ("", "6")]
    assert [(pair.category, pair.subset) for pair in pairs] == [("maths", "s")] + [(None, "")] * 2


def test_numbers_name_groups_too(tmp_path):
    path = _jsonl(
        tmp_path / "p.jsonl",
        PAIR | {"subset": 3, "category": 2.5, "prompt_id": 0},
        PAIR | {"subset": float("nan"), "category": None},
    )
    first, second = read_items(path)
    assert (first.subset, first.category, first.prompt_id) == ("3", "2.5", "0")
    assert (second.subset, second.category, second.prompt_id) == ("", None, "p-2")


def test_pairs_of_csv_and_parquet(tmp_path):
    sheet = tmp_path / "p.csv"
    with sheet.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(PAIR))
        writer.writeheader()
        writer.writerow(PAIR)
    for path in (str(sheet), _table(tmp_path / "p.parquet", [PAIR])):
        (pair,), ties = read_pairs(path)
        assert (pair.instruction, pair.chosen, ties) == ("Add 2 and 3.", "5", 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "a"}, "p.jsonl, line 1: the label is 'a'; write A, B or tie"),
        ({"label": None}, "p.jsonl, line 1: the field label is missing"),
        ({"response_b": 3}, "p.jsonl, line 1: the field response_b is a int; write a string"),
        ({"instruction": ""}, "p.jsonl, line 1: the field instruction is blank"),
        ({"id": "\ud800"}, "p.jsonl, line 1: the field id holds half of a surrogate pair; remove it"),
        ({"subset": "a\ud800"}, "p.jsonl, line 1: the field subset holds half of a surrogate pair"),
        ({"category": "\udfff"}, "p.jsonl, line 1: the field category holds half of a surrogate pair"),
        ({"prompt_id": "\ud800"}, "line 1: the field prompt_id holds half of a surrogate pair"),
        ({"label": "tie"}, r"p.jsonl: holds no pair labelled A or B \(1 ties\)"),
    ],
)
def test_broken_pairs_are_refused(tmp_path, change, message):
    path = _jsonl(tmp_path / "p.jsonl", PAIR | change)
    with pytest.raises(ValueError, match=message):
        read_pairs(path)


@pytest.fixture(scope="module")
def tiny_prompts(tmp_path_factory) -> str:
    """The name of a TFDS data set that is prepared on disk, in the way of TFDS, without TensorFlow."""
    import tensorflow_datasets as tfds

    class TinyPrompts(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict(
                {"prompt": tfds.features.Text(), "id": tfds.features.Text()}
            )
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(3), "test": self._generate_examples(1)}

        def _generate_examples(self, count):
            for number in range(count):
                yield number, {"prompt": f"Añade {number} y 1.", "id": f"t{number}"}

    folder = tmp_path_factory.mktemp("tfds")
    TinyPrompts(data_dir=folder, file_format="array_record").download_and_prepare()
    tfds.core.add_data_dir(folder)
    return "tiny_prompts"


def test_tfds_reads_a_prepared_data_set_without_tensorflow(tiny_prompts):
    read = read_instructions(f"tfds:{tiny_prompts}")
    assert {(one.id, one.text) for one in read} == {
        (f"t{number}", f"Añade {number} y 1.") for number in range(3)
    }
    assert {one.source for one in read} == {"tiny_prompts"}
    assert [one.id for one in read_instructions(f"tfds:{tiny_prompts}:1.0.0:test")] == ["t0"]
    assert len(read_instructions(f"tfds:{tiny_prompts}:1.0.0")) == 3
    assert "tensorflow" not in sys.modules


def test_tfds_names_and_splits_that_do_not_exist_are_refused(tiny_prompts):
    with pytest.raises(ValueError, match=r"tfds:tiny_prompts:dev: .*; check the name and the split"):
        read_instructions(f"tfds:{tiny_prompts}:dev")
    with pytest.raises(ValueError, match=r"tfds:no_such_set: .*; check the name and the split"):
        read_instructions("tfds:no_such_set")


def test_tfds_without_the_extra_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'ste-jax\[tfds\]'"):
        read_instructions("tfds:anything")
