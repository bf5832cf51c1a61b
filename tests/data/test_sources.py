import csv
import json
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from ste_jax.data.sources import read_instructions
from tests.errors import raises


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
    assert (third.id, third.source, third.text) == ("instruction-mine-3", "mine", "When?")


def test_blank_lines_and_a_byte_order_mark_are_skipped(tmp_path):
    path = tmp_path / "mine.json-lines"
    path.write_bytes(b'\xef\xbb\xbf{"text": "one"}\r\n\n  \n{"text": "two"}')
    assert [(one.id, one.text) for one in read_instructions(str(path))] == [
        ("instruction-mine-1", "one"),
        ("instruction-mine-4", "two"),
    ]


def test_txt_is_one_instruction_a_line(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text('First, "quoted"\n\n  Second \n', "utf-8")
    read = read_instructions(str(path))
    assert [(one.id, one.text) for one in read] == [
        ("instruction-list-1", 'First, "quoted"'),
        ("instruction-list-3", "Second"),
    ]


def test_csv_with_line_breaks_inside_a_field(tmp_path):
    path = tmp_path / "sheet.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "question"], ["a", "Sum up:\nlong, text"], ["", "Next?"]])
    read = read_instructions(str(path))
    assert [(one.id, one.text) for one in read] == [
        ("a", "Sum up:\nlong, text"),
        ("instruction-sheet-4", "Next?"),
    ]


def test_parquet(tmp_path):
    path = _table(tmp_path / "t.parquet", [{"prompt": "One?", "n": 1}, {"prompt": "Two?", "n": 2}])
    assert [(one.id, one.text) for one in read_instructions(path)] == [
        ("instruction-t-1", "One?"),
        ("instruction-t-2", "Two?"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "places"),
    [
        ("a.jsonl", b"", ["a.jsonl"]),
        ("a.jsonl", b"\n \n", ["a.jsonl"]),
        ("a.jsonl", b'{"text": "x"}\n{"text": ', ["a.jsonl, line 2"]),
        ("a.jsonl", b"[" * 100_000, ["a.jsonl, line 1"]),
        ("a.jsonl", b'["x"]', ["a.jsonl, line 1", "list"]),
        ("a.jsonl", b'{"words": "x"}', ["a.jsonl, line 1", "instruction, prompt"]),
        ("a.jsonl", b'{"prompt": 3}', ["a.jsonl, line 1", "prompt", "int"]),
        ("a.jsonl", b'{"prompt": ["x"]}', ["a.jsonl, line 1", "prompt", "message 1"]),
        ("a.jsonl", b'{"prompt": NaN}', ["a.jsonl, line 1", "prompt", "NaN"]),
        ("a.jsonl", b'{"prompt": " "}', ["a.jsonl, line 1", "prompt"]),
        ("a.jsonl", b'{"text": "\\ud800"}', ["a.jsonl, line 1", "text"]),
        ("a.jsonl", b'{"text": "x", "id": {}}', ["a.jsonl, line 1", "id", "dict"]),
        ("a.jsonl", b'{"text": "x", "id": 1}\n\n{"text": "y", "id": "1"}', ["line 3", "'1'", "line 1"]),
        ("a.txt", b"fine\nna\xefve\n", ["a.txt, line 2", "UTF-8"]),
        ("a.csv", b"id,title\n1,x\n", ["a.csv, line 1", "instruction, prompt"]),
        ("a.csv", b"", ["a.csv"]),
        ("a.csv", b'text\n"open', ["a.csv, line 2"]),
        ("a.csv", b"id,text\n1\n", ["a.csv, line 2", "1 cells", "2 columns"]),
        ("a.csv", b"id,text\n1,Hi\n2,Hello, you\n", ["a.csv, line 3", "3 cells", "2 columns"]),
        ("a.csv", b"text,text\n1,Hi\n", ["a.csv, line 1", "'text'"]),
        ("a.jsonl", b'{"text": "x", "id": "\\udc00"}', ["line 1", "id"]),
        ("a.jsonl", b'{"text": "x", "source": "\\ud800"}', ["line 1", "source"]),
        ("a.parquet", b"PAR1 no", ["a.parquet"]),
        ("a.json", b"[]", ["a.json"]),
        ("a.xlsx", b"PK", ["a.xlsx", ".jsonl"]),
    ],
)
def test_malformed_files_are_refused_with_file_and_line(tmp_path, name, content, places):
    path = tmp_path / name
    path.write_bytes(content)
    with raises("data_invalid", *places):
        read_instructions(str(path))


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["default/raw/0000", "default/filtered/0000"], ["splits", "filtered, raw"]),
        (["raw", "filtered"], ["splits", "filtered, raw"]),
        (["default/partial-train/0", "default/partial-test/0"], ["splits", "partial_test, partial_train"]),
        (["config1/train/0000", "config2/train/0000"], ["folders", "config1/train, config2/train"]),
        (["one/0000", "two/0000"], ["folders", "one, two"]),
        (["0000", "more/0000"], ["folders", "., more"]),
        (["train_prefs-00000-of-00001", "train_sft-00000-of-00001"], ["splits", "train_prefs, train_sft"]),
        (["helpful-00000-of-00002", "harmless-00001-of-00002"], ["splits", "harmless, helpful"]),
        (["train-00000-of-00001-a1d5", "test-00000-of-00001-6df3"], ["splits", "test, train"]),
        (["trainset", "x/validation"], ["splits", "train, validation"]),
        (["training-1", "testing-1"], ["splits", "test, train"]),
        (["train", "development"], ["splits", "dev, train"]),
        (["validation", "eval"], ["splits", "eval, validation"]),
        (["train", "trainval"], ["splits", "train, train_validation"]),
        (["val", "testval2"], ["splits", "test_validation, validation"]),
        (["training/x", "held-out/x"], ["splits", "heldout, train"]),
        (["train", "HoldOut"], ["splits", "heldout, train"]),
        (["train_1", "golden"], ["splits", "golden", "train"]),
    ],
)
def test_a_folder_of_several_data_sets_is_refused(tmp_path, names, places):
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        _table(tmp_path / f"{name}.parquet", [{"prompt": f"{number}?"}])
    with raises("data_invalid", str(tmp_path), *places):
        read_instructions(str(tmp_path))


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00002", "train-00001-of-00002"],
        # As the hub names the shards that it made.
        ["train-00000-of-00002-a1d59398b8d1a8a5", "train-00001-of-00002-6df3936e1f63c191"],
        ["train_1", "train2"],
        ["x_1_of_2", "x_2_of_2"],
        ["default/train/0000", "default/train/0001"],
        ["map_of_cities", "list_of_names"],
        ["household_outputs", "threshold_outing"],
        ["values", "devices"],
        ["data.ipynb_checkpoints/b", "a", "c"],
    ],
)
def test_a_folder_of_the_parts_of_one_data_set_is_read(tmp_path, names):
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        _table(tmp_path / f"{name}.parquet", [{"prompt": f"{number}?"}])
    assert len(read_instructions(str(tmp_path))) == 2


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["train-00000-of-00002"], "train-00001-of-00002"),
        (["train-00001-of-00003-a1d5", "train-00002-of-00003-6df3"], "train-00000-of-00003"),
        (["data/x_1_of_3", "data/x_3_of_3"], "x_2_of_3"),
        (["a-0-of-1", "a-0-of-2"], "a-1-of-2"),
        (["part.0.of.99999999999"], "part.00000000001.of.99999999999"),
    ],
)
def test_a_folder_without_a_part_is_refused(tmp_path, names, missing):
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        _table(tmp_path / f"{name}.parquet", [{"prompt": f"{number}?"}])
    with raises("data_invalid", str(tmp_path), missing):
        read_instructions(str(tmp_path))
    # A file that is named is what is meant.
    assert len(read_instructions(str(tmp_path / f"{names[0]}.parquet"))) == 1


def test_a_missing_file_is_refused(tmp_path):
    with raises("file_not_found", "none.jsonl"):
        read_instructions(str(tmp_path / "none.jsonl"))


def test_messages_are_flattened(tmp_path):
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    path = _jsonl(tmp_path / "m.jsonl", {"prompt": turns[:1]}, {"prompt": turns})
    assert [one.text for one in read_instructions(path)] == ["Why?", "User:\nWhy?\n\nAssistant:\nSo."]


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
    with raises("data_invalid", "tfds:tiny_prompts:dev"):
        read_instructions(f"tfds:{tiny_prompts}:dev")
    with raises("data_invalid", "tfds:no_such_set"):
        read_instructions("tfds:no_such_set")


def test_tfds_without_the_extra_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with raises("extra_missing", "ste-jax[tfds]"):
        read_instructions("tfds:anything")
