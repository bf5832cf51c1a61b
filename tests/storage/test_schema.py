"""Record sets of schema version 1, written by commit 7ac690f, and of versions that do not exist yet."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from etils import epath

from ste_jax.records import Comparison, Generation, Judgment
from ste_jax.storage.readers import iter_records, read_records, read_some
from ste_jax.storage.record_set import RecordSet, check_fingerprint
from ste_jax.storage.success import read_success, require_success
from tests.errors import raises

OLD = epath.Path(Path(__file__).parent / "fixtures" / "version_1")
FINGERPRINT = {"stage": "annotate", "seed": 0, "config": {}, "inputs": {}}


def test_pairs_of_version_1_are_read_as_comparisons() -> None:
    first, second, third = read_records(OLD / "pairs", Comparison)
    assert first == Comparison(
        id="q0",
        prompt_id="q0",
        instruction="What is 0?",
        response_a="It is 0.",
        response_b="No idea.",
        label="A",
        category="maths",
        subset="modified",
        metadata={
            "generator": "tiny",
            "modified_instruction": "What is 1?",
            "num_tokens_a": 2,
            "num_tokens_b": 1,
        },
    )
    assert second.category is None
    assert third.id == "q2"
    assert read_some(OLD / "pairs", Comparison, [2]) == [third]
    success = require_success(OLD / "pairs")
    assert (success.schema_version, success.count, success.summary) == (1, 3, {"made": 3})


def test_judgments_of_version_1_are_read() -> None:
    ids = [judgment.id for judgment in iter_records(OLD / "judgments", Judgment)]
    assert ids == [f"q{i}/{order}/{s}" for i in range(2) for order in ("as_given", "swapped") for s in (0, 1)]
    assert check_fingerprint(OLD / "judgments", FINGERPRINT)


def test_damaged_sets_of_version_1_are_refused(tmp_path: Path) -> None:
    folder = epath.Path(shutil.copytree(OLD / "pairs", tmp_path / "pairs"))
    (folder / "part-00001-of-00002.jsonl").write_text("")
    with raises("data_damaged", str(folder)):
        read_records(folder, Comparison)


def test_an_unfinished_set_of_version_1_is_continued(tmp_path: Path) -> None:
    folder = epath.Path(shutil.copytree(OLD / "started", tmp_path / "annotate"))
    (folder / "PROGRESS.json").write_text('{"done":2,"total":4,"prompt_tokens":70,"generated_tokens":9}')
    RecordSet(folder, Judgment, FINGERPRINT, divided=True)
    records = RecordSet(folder, Judgment, FINGERPRINT, divided=True)
    requests = ["q0/as_given", "q0/swapped"]
    assert all(map(records.is_done, requests))
    assert [j.id for j in records.read("q0/swapped")] == ["q0/swapped/0", "q0/swapped/1"]
    assert (records.work.done, records.work.prompt_tokens, records.work.generated_tokens) == (2, 70, 9)
    records.finish(requests, {})
    assert read_records(folder, Judgment) == read_records(OLD / "judgments", Judgment)[:4]
    assert require_success(folder).schema_version == 2


@pytest.mark.parametrize("name", ["SUCCESS.json", "STARTED.json"])
def test_newer_versions_are_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = epath.Path(tmp_path)
    records = RecordSet(folder, Generation, FINGERPRINT)
    if name == "SUCCESS.json":
        records.finish([], {})
    value = json.loads((folder / name).read_text())
    assert value["schema_version"] == 2
    # A newer version may have any fields.
    (folder / name).write_text(json.dumps({"schema_version": 3, "anything": 1}))
    with raises("schema_newer", name, "version 3", "up to 2"):
        RecordSet(folder, Generation, FINGERPRINT)
    if name == "SUCCESS.json":
        with raises("schema_newer", name, "version 3"):
            read_success(folder)
        with raises("schema_newer", name, "version 3"):
            read_records(folder, Generation)


@pytest.mark.parametrize("version", [0, "2", None, True, 1.5])
def test_a_version_that_is_no_number_is_refused(tmp_path: Path, version: object) -> None:
    (tmp_path / "SUCCESS.json").write_text(json.dumps({"schema_version": version}))
    with raises("data_invalid", "SUCCESS.json"):
        read_success(epath.Path(tmp_path))


@pytest.mark.parametrize("change", [{"added": 1}, {"text": None}])
def test_unknown_and_missing_fields_name_the_line(tmp_path: Path, change: dict) -> None:
    """Earlier versions raised TypeError."""
    folder = epath.Path(tmp_path / "select")
    records = RecordSet(folder, Generation, FINGERPRINT)
    value = Generation(id="b", text="", tokens=[], finish="stop")
    for id_ in "ab":
        records.add(id_, [dataclasses.replace(value, id=id_)])
    records.finish("ab", {})
    part, success = folder / "part-00000-of-00001.jsonl", folder / "SUCCESS.json"
    line = {name: v for name, v in (vars(value) | change).items() if v is not None}
    first = part.read_text().split("\n")[0]
    part.write_text(f"{first}\n{json.dumps(line)}\n")
    # Written like this by another program: the hash is right.
    described = json.loads(success.read_text())
    described["parts"][0]["sha256"] = hashlib.sha256(part.read_bytes()).hexdigest()
    success.write_text(json.dumps(described))
    with raises("data_invalid", "part-00000-of-00001.jsonl, line 2", next(iter(change)), "--redo=select"):
        read_records(folder, Generation)
    assert [record.id for record in read_some(folder, Generation, [0])] == ["a"]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *(("parts", value) for value in (3, "p", [3], [{"name": "p"}], {"name": "p"})),
        *(("count", value) for value in (None, "2", 1.5, -(10**30))),
        *((field, value) for field in ("fingerprint", "summary", "work") for value in (None, [], "x")),
        ("content_hash", 3),
        ("kind", 3),
    ],
)
def test_a_description_of_other_types_is_refused(tmp_path: Path, field: str, wrong: object) -> None:
    folder = epath.Path(tmp_path / "select")
    RecordSet(folder, Generation, FINGERPRINT).finish([], {})
    value = json.loads((folder / "SUCCESS.json").read_text())
    (folder / "SUCCESS.json").write_text(json.dumps(value | {field: wrong}))
    with raises("data_invalid", "SUCCESS.json", "--redo=select"):
        read_success(folder)


@pytest.mark.parametrize("wrong", [None, "1", 0.5, [1]])
def test_a_part_has_a_number_of_records(tmp_path: Path, wrong: object) -> None:
    folder = epath.Path(tmp_path / "select")
    records = RecordSet(folder, Generation, FINGERPRINT)
    records.add("a", [Generation(id="a", text="", tokens=[], finish="stop")])
    records.finish("a", {})
    value = json.loads((folder / "SUCCESS.json").read_text())
    value["parts"][0]["records"] = wrong
    (folder / "SUCCESS.json").write_text(json.dumps(value))
    with raises("data_invalid", "SUCCESS.json", "records"):
        read_records(folder, Generation)


def test_records_of_another_kind_are_refused(tmp_path: Path) -> None:
    RecordSet(epath.Path(tmp_path), Generation, FINGERPRINT).finish([], {})
    with raises("data_invalid", str(tmp_path), "Generation", "Judgment"):
        read_records(epath.Path(tmp_path), Judgment)
