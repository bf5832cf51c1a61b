"""Which files of a folder are the benchmark, and which records are counted."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from ste_jax.benchmarks import rewardbench
from ste_jax.benchmarks.benchmark import read_pairs_file
from ste_jax.benchmarks.catalogue import load
from ste_jax.metrics.policy import POLICIES
from tests.errors import raises
from tests.result_cases import judged


def table(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def pair(number: int, subset: str = "xstest-should-refuse") -> dict[str, Any]:
    return {"prompt": f"Ask {number}", "chosen": "yes", "rejected": "no", "subset": subset, "id": number}


def rated(prompt: str) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "response": f"r{score}", "helpfulness": score} for score in (1, 4)]


def vote(judge: Any, winner: str = "model_a") -> dict[str, Any]:
    talk = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hi."}]
    return {
        **{"question_id": 90, "turn": 1, "model_a": "a", "model_b": "b", "winner": winner, "judge": judge},
        **{"conversation_a": talk, "conversation_b": talk},
    }


@pytest.mark.parametrize(
    ("wanted", "other"),
    [
        ("default/filtered/0000.parquet", "default/raw/0000.parquet"),
        ("data/filtered-00000-of-00001.parquet", "data/raw-00000-of-00001.parquet"),
        ("filtered/part.parquet", "raw/nested/part.parquet"),
        ("filtered.parquet", ".ipynb_checkpoints/filtered-checkpoint.parquet"),
        ("filtered.parquet", "__MACOSX/filtered.parquet"),
        ("filtered.parquet", "filtered.parquet.ipynb_checkpoints/x.parquet"),
        ("filtered.parquet", "data.ipynb_checkpoints/filtered-checkpoint.parquet"),
        ("data/filtered_split/x.parquet", "data/raw_split/x.parquet"),
        ("default/partial-filtered/0000.parquet", "default/partial-raw/0000.parquet"),
        ("my-raw-copy/filtered/0000.parquet", "my-raw-copy/raw/0000.parquet"),
        ("Filtered.parquet", "RawData.parquet"),
        ("filtered/0000.parquet", "PKU-Better/0000.parquet"),
        ("filtered/0000.parquet", "anthropic-harmless/part-0.parquet"),
        ("default/filtered/0000.parquet", "default/pku_better/0000.parquet"),
    ],
)
def test_other_splits_and_hidden_copies_are_left_out(tmp_path, wanted, other):
    table(tmp_path / wanted, [pair(1), pair(2)])
    table(tmp_path / other, [pair(1), pair(2), pair(3)])
    assert [item.instruction for item in load("rewardbench", str(tmp_path)).items] == ["Ask 1", "Ask 2"]


def test_a_hidden_file_that_cannot_be_read_does_no_harm(tmp_path):
    table(tmp_path / "filtered-0.parquet", [pair(1)])
    (tmp_path / "._filtered-0.parquet").write_bytes(b"\0\5\x16\7")
    assert len(load("rewardbench", str(tmp_path)).items) == 1


@pytest.mark.parametrize(
    ("wanted", "other"),
    [
        ("validation/data.jsonl", "train/data.jsonl"),
        ("default/validation/0000.jsonl", "default/train/0000.jsonl"),
        ("validation.jsonl", "train-00000-of-00001.jsonl"),
        ("validation.jsonl", "preference/preference.jsonl"),
        ("HelpSteer2_validation.jsonl", "HelpSteer2_train.jsonl"),
        ("my-training/validation.jsonl", "my-training/helpsteer2-train.jsonl"),
        ("default/validation/0000.jsonl", "default/partial-train/0000.jsonl"),
        ("validation_data/a.jsonl", "train_data/a.jsonl"),
        ("val/a.jsonl", "training/a.jsonl"),
        ("validation.jsonl", "trainset.jsonl"),
        ("validation.jsonl", "HelpSteer2TrainSet.jsonl"),
        ("valid/0.jsonl", "tests/0.jsonl"),
        ("a.jsonl", "train.split/b.jsonl"),
        ("test-run/validation/0.jsonl", "test-run/train_2/0.jsonl"),
    ],
)
def test_helpsteer2_is_its_validation_split(tmp_path, wanted, other):
    lines(tmp_path / wanted, rated("kept"))
    lines(tmp_path / other, rated("other"))
    assert [item.instruction for item in load("helpsteer2", str(tmp_path)).items] == ["kept"]


def test_the_prior_sets_are_named_by_folders_too(tmp_path):
    prior = {"prompt": [{"role": "user", "content": "Hi"}], "chosen": "a", "rejected": "b", "id": 1}
    table(tmp_path / "default" / "shp" / "0000.parquet", [prior])
    table(tmp_path / "default" / "summarize" / "0000.parquet", [prior])
    assert [item.subset for item in load("rewardbench", str(tmp_path)).items] == ["shp", "summarize"]


def test_mt_bench_counts_people_only(tmp_path):
    table(tmp_path / "default" / "human" / "0000.parquet", [vote("expert_3"), vote("expert_3")])
    table(tmp_path / "default" / "gpt4_pair" / "0000.parquet", [vote("gpt4_pair", "model_b")] * 3)
    benchmark = load("mt_bench", str(tmp_path))
    assert [item.votes for item in benchmark.items] == [{"A": 2}]
    lines(
        tmp_path / "all.jsonl",
        [vote(["gpt-4", "pair-v2"]), vote("gpt-4"), vote("author_1"), vote("expert_1")],
    )
    mixed = load("mt_bench", str(tmp_path / "all.jsonl"))
    assert [item.votes for item in mixed.items] == [{"A": 1}]
    assert mixed.notes.items() >= {"votes_of_authors_left_out": 1, "votes_of_models_left_out": 2}.items()


@pytest.mark.parametrize("copy", ["filtered (1).jsonl", "other/filtered.jsonl", "validation copy.jsonl"])
@pytest.mark.parametrize(
    ("name", "rows"),
    [("rewardbench", [pair(1)]), ("helpsteer2", rated("p")), ("mt_bench", [vote("expert_1")])],
)
def test_a_file_that_is_there_twice_is_refused(tmp_path, name, rows, copy):
    lines(tmp_path / "filtered.jsonl", rows)
    lines(tmp_path / copy, rows)
    with raises("data_invalid", "filtered.jsonl, record 1", copy):
        load(name, str(tmp_path))


@pytest.mark.parametrize(
    "more", [{"__index_level_0__": 3}, {"Unnamed: 0": 1}, {"notes": None, "n": {"a": [1]}}]
)
@pytest.mark.parametrize(
    ("name", "rows"),
    [("rewardbench", [pair(1)]), ("helpsteer2", rated("p")), ("mt_bench", [vote("expert_1")])],
)
def test_a_copy_with_more_columns_is_refused(tmp_path, name, rows, more):
    lines(tmp_path / "a.jsonl", rows)
    floats = [
        {key: float(value) if isinstance(value, int) else value for key, value in row.items()} for row in rows
    ]
    lines(tmp_path / "b.jsonl", [row | more for row in floats])
    with raises("data_invalid", "b.jsonl, record 1", "a.jsonl"):
        load(name, str(tmp_path))


def test_records_that_differ_in_what_is_read_are_no_copies(tmp_path):
    table(tmp_path / "filtered.parquet", [pair(1), pair(2), pair(1, "donotanswer")])
    assert len(load("rewardbench", str(tmp_path)).items) == 3
    lines(tmp_path / "v" / "human.jsonl", [vote("expert_1"), vote("expert_2"), vote("expert_1", "tie")])
    assert [item.votes for item in load("mt_bench", str(tmp_path / "v")).items] == [{"A": 2, "tie": 1}]


def instructions(path: Path, name: str) -> list[str]:
    return [item.instruction for item in load(name, str(path)).items]


def test_a_record_that_is_in_a_file_twice_counts_once(tmp_path):
    again = pair(1) | {"id": "77", "chosen_model": "m", "chosen": "yes\n"}
    lines(tmp_path / "filtered.jsonl", [pair(1), pair(2), pair(1), again])
    found = load("rewardbench", str(tmp_path))
    assert [item.id for item in found.items] == ["xstest-should-refuse/1", "xstest-should-refuse/2"]
    assert found.notes == {"repeated_records_left_out": 2}
    lines(
        tmp_path / "ratings.jsonl",
        [*rated("p"), *rated("q"), *(row | {"verbosity": 3} for row in rated("p"))],
    )
    found = load("helpsteer2", str(tmp_path / "ratings.jsonl"))
    assert [item.instruction for item in found.items] == ["p", "q"]
    assert found.notes["repeated_records_left_out"] == 2


def judgebench_row(**fields: Any) -> dict[str, Any]:
    row = {"pair_id": "one", "source": "mmlu-pro-law", "question": "Q?", "response_model": "m"}
    return row | {"response_A": "a", "response_B": "b", "label": "A>B"} | fields


FOUR = {"id": 3, "subset": "Math", "prompt": "Add 1.", "chosen": ["2"], "rejected": ["1", "3", "4"]}
LLMBAR = {"input": "Say hi.", "output_1": "hi", "output_2": "no", "label": 1}


@pytest.mark.parametrize(
    ("name", "row", "changes"),
    [
        ("rewardbench", pair(1), {"id": 9, "chosen_model": "x"}),
        ("rewardbench", pair(1), {"id": "1"}),
        ("rewardbench", pair(1) | {"chosen_model": "x", "rejected_model": "y"}, {"chosen_model": None}),
        ("rewardbench2", FOUR, {"id": "0x3", "models": ["m"]}),
        ("judgebench", judgebench_row(), {"pair_id": "two"}),
        ("judgebench", judgebench_row(), {"pair_id": "two", "response_model": "other", "label": "B>A"}),
        ("helpsteer2", rated("p")[0], {"helpfulness": 4, "coherence": 1}),
        ("mt_bench", vote("expert_1"), {"question_id": 190, "model_a": "gpt", "model_b": "llama"}),
        ("mt_bench", vote("expert_1"), {"turn": "1"}),
        ("mt_bench", vote("expert_1"), {"turn": 1.0, "question_id": "90"}),
    ],
)
def test_a_copy_with_other_ids_or_names_of_models_is_refused(tmp_path, name, row, changes):
    lines(tmp_path / "a.jsonl", [row])
    lines(tmp_path / "b.jsonl", [row | changes])
    with raises("data_invalid", "b.jsonl, record 1", "a.jsonl, record 1"):
        load(name, str(tmp_path))


def test_copies_of_subsets_are_refused_and_other_subsets_are_not(tmp_path):
    for folder in ("Natural", "Adversarial/Manual"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "dataset.json").write_text(json.dumps([LLMBAR]))
    assert instructions(tmp_path, "llmbar") == ["Say hi."] * 2
    (tmp_path / "old" / "Natural").mkdir(parents=True)
    (tmp_path / "old" / "Natural" / "dataset.json").write_text(json.dumps([LLMBAR | {"label": 2}]))
    with raises("data_invalid", "old/Natural/dataset.json, record 1"):
        load("llmbar", str(tmp_path))


@pytest.mark.parametrize(
    "other",
    [
        "eval/x.jsonl",
        "evaluation.jsonl",
        "development/x.jsonl",
        "dev-00000-of-00001.jsonl",
        "heldout/x.jsonl",
        "HeldOut.jsonl",
        "hold_out_set.jsonl",
        "golden/x.jsonl",
    ],
)
def test_files_of_another_split_than_the_benchmarks_are_refused(tmp_path, other):
    lines(tmp_path / "validation" / "x.jsonl", rated("p"))
    lines(tmp_path / other, rated("q"))
    with raises("data_invalid", "validation/x.jsonl", other):
        load("helpsteer2", str(tmp_path))
    assert instructions(tmp_path / other, "helpsteer2") == ["q"]


def test_a_split_that_has_training_data_is_left_out(tmp_path):
    lines(tmp_path / "validation" / "x.jsonl", rated("p"))
    for name in ("trainval", "train-dev", "trainvalid2"):
        lines(tmp_path / name / "x.jsonl", rated("q"))
    assert instructions(tmp_path, "helpsteer2") == ["p"]


def test_splits_are_told_apart_where_a_benchmark_has_one(tmp_path):
    lines(tmp_path / "test" / "gpt.jsonl", [judgebench_row()])
    lines(tmp_path / "dev" / "gpt.jsonl", [judgebench_row(pair_id="two", question="R?")])
    with raises("data_invalid", "dev/gpt.jsonl", "test/gpt.jsonl"):
        load("judgebench", str(tmp_path))
    lines(tmp_path / "r" / "filtered.jsonl", [pair(1)])
    turns = [{"role": "user", "content": "Hi"}]
    lines(tmp_path / "r" / "shp.jsonl", [{"prompt": turns, "chosen": "a", "rejected": "b"}])
    assert len(load("rewardbench", str(tmp_path / "r")).items) == 2
    lines(tmp_path / "r" / "heldout.jsonl", [pair(2)])
    with raises("data_invalid", "filtered.jsonl", "heldout.jsonl"):
        load("rewardbench", str(tmp_path / "r"))


def test_a_record_that_is_nested_deeply_is_refused(tmp_path):
    deep = "[" * 900 + "]" * 900
    (tmp_path / "f.jsonl").write_text('{"prompt": ' + deep + "}\n")
    with raises("data_invalid", "f.jsonl, record 1"):
        load("rewardbench", str(tmp_path / "f.jsonl"))


def test_more_pairs_than_a_subset_has_are_named():
    wins = [judged(str(i), "A", ("A", "B"), subset="mt-bench-easy", prompt_id=str(i)) for i in range(29)]
    own = rewardbench.aggregate(wins, POLICIES["wrong"], 0)
    assert own["surplus_subsets"] == {"mt-bench-easy": "29 of 28"}
    assert rewardbench.aggregate(wins[:28], POLICIES["wrong"], 0)["surplus_subsets"] == {}


def styles(prompt: str, **fields: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"], **fields}


def test_rm_bench_takes_the_whole_file_or_the_domains_by_name(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "chat_filtered.json").write_text(json.dumps([styles("one", subset="x")]))
    (data / "safety-refuse_filtered.json").write_text(json.dumps([styles("two"), styles("two", id=3)]))
    parts = load("rm_bench", str(tmp_path))
    assert {item.subset: item.instruction for item in parts.items} == {"chat": "one", "safety-refuse": "two"}
    assert parts.notes == {"repeated_records_left_out": 1}
    (data / "total_dataset.json").write_text(json.dumps([styles("three", domain="code")]))
    assert {item.instruction for item in load("rm_bench", str(tmp_path)).items} == {"three"}


def test_other_schemas_are_named(tmp_path):
    multilingual = {
        "prompt": "p",
        "chosen": "a",
        "rejected": "b",
        "language": "deu",
        "category": "chat",
        "id": 1,
    }
    lines(tmp_path / "m.jsonl", [multilingual])
    with raises("data_invalid", "m.jsonl, record 1", "M-RewardBench"):
        load("rewardbench", str(tmp_path / "m.jsonl"))
    preference = {"prompt": "p", "response_1": "a", "response_2": "b", "preference_strength": 2}
    lines(tmp_path / "h.jsonl", [preference])
    with raises("data_invalid", "h.jsonl, record 1", "--data"):
        load("helpsteer2", str(tmp_path / "h.jsonl"))
    assert read_pairs_file(str(tmp_path / "h.jsonl")).items[0].label == "B"
    with raises("data_invalid", "h.jsonl, record 1", "label", "preference_strength"):
        load("judgebench", str(tmp_path / "h.jsonl"))


def test_the_folder_of_one_llmbar_subset_is_refused_with_the_right_one(tmp_path):
    subset = tmp_path / "Dataset" / "LLMBar" / "Natural"
    subset.mkdir(parents=True)
    (subset / "dataset.json").write_text('[{"input": "i", "output_1": "a", "output_2": "b", "label": 1}]')
    for path in (subset, subset / "dataset.json"):
        with raises("data_invalid", "dataset.json", "Dataset/LLMBar"):
            load("llmbar", str(path))
    assert load("llmbar", str(tmp_path)).items[0].subset == "Natural"


@pytest.mark.parametrize("field", ["question_id", "turn"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, None, "7", [7]])
def test_numbers_that_are_none_are_refused(tmp_path, field, value):
    lines(tmp_path / "human.jsonl", [vote("expert_1") | {field: value}])
    with raises("data_invalid", "human.jsonl, record 1", field):
        load("mt_bench", str(tmp_path))


def test_identical_responses_are_counted_apart(tmp_path):
    row = {"instruction": "Q", "response_a": "x", "response_b": "y", "label": "A"}
    lines(tmp_path / "p.jsonl", [row, row | {"response_b": "x\n"}])
    benchmark = read_pairs_file(str(tmp_path / "p.jsonl"))
    assert (len(benchmark.items), benchmark.notes) == (1, {"identical_responses_left_out": 1})
    lines(tmp_path / "p.jsonl", [row | {"response_b": "x\n"}])
    with raises("data_invalid", "p.jsonl"):
        read_pairs_file(str(tmp_path / "p.jsonl"))


def test_what_a_file_of_pairs_loses_is_noted(tmp_path):
    row = {"instruction": "Name it.", "response_a": "Name it. Yes", "response_b": "Name it. No", "label": "A"}
    rows = [row, row | {"instruction": "Q?", "response_a": "", "response_b": "b", "topic": 1}]
    lines(tmp_path / "p-00001-of-00004.jsonl", [*rows, row | {"seen": 2, "topic": None}])
    assert read_pairs_file(str(tmp_path / "p-00001-of-00004.jsonl")).notes == {
        "pairs_with_the_prompt_taken_off_the_responses": 2,
        "empty_responses": 1,
        "other_parts_not_read": 3,
        "columns_passed_through": ["topic", "seen"],
    }
