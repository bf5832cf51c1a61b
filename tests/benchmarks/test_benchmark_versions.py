"""Folders with less or more than one whole benchmark."""

import json
from pathlib import Path
from typing import Any

import pytest

from ste_jax.benchmarks import judgebench, rewardbench2, rm_bench
from ste_jax.benchmarks.catalogue import load
from ste_jax.metrics.policy import POLICIES
from tests.errors import raises
from tests.result_cases import judged


def lines(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def record(name: str, number: int, **fields: Any) -> dict[str, Any]:
    """Returns a record of a benchmark."""
    prompt, words = f"Task {number}?", ["a", "b", "c"]
    return {
        "rewardbench": {"prompt": prompt, "chosen": "a", "rejected": "b", "subset": "hep-go", "id": number},
        "rewardbench2": {
            **{"prompt": prompt, "chosen": ["a"], "rejected": words, "subset": "Math", "id": f"{number}"}
        },
        "mt_bench": {
            **{"question_id": 80 + number, "turn": 1, "judge": "expert_1", "winner": "model_a"},
            **{f"model_{side}": f"m{side}" for side in "ab"},
            **{
                f"conversation_{side}": [
                    {"role": "user", "content": prompt},
                    {"role": "assistant", "content": side},
                ]
                for side in "ab"
            },
        },
        "helpsteer2": {"prompt": "Same?", "response": f"r{number}", "helpfulness": number % 5},
        "judgebench": {
            **{"pair_id": str(number), "question": prompt, "source": "livebench-math", "label": "A>B"},
            **{"response_A": "a", "response_B": "b", "response_model": "gpt-4o-2024-05-13"},
        },
        "rm_bench": {"prompt": prompt, "chosen": words, "rejected": ["d", "e", "f"], "domain": "chat"},
    }[name] | fields


FILES = [
    ("rewardbench", "filtered.jsonl", "filtered_old.jsonl"),
    ("rewardbench", "data/filtered-00000-of-00001.jsonl", "backup/filtered-00000-of-00001.jsonl"),
    ("rewardbench2", "test.jsonl", "test_old.jsonl"),
    ("rewardbench2", "test_v1.jsonl", "test_v2.jsonl"),
    ("mt_bench", "human.jsonl", "human-fixed.jsonl"),
    ("helpsteer2", "validation.jsonl", "validation_2025_redo.jsonl"),
    ("judgebench", "gpt.jsonl", "gpt_v0.jsonl"),
    ("rm_bench", "data/total_dataset.json", "old/total_dataset.json"),
    ("rm_bench", "chat_filtered.json", "chat_filtered_old.json"),
]


@pytest.mark.parametrize(("name", "first", "second"), FILES)
def test_two_versions_of_a_benchmark_are_refused(tmp_path, name, first, second):
    lines(tmp_path / first, record(name, 1), record(name, 2))
    load(name, str(tmp_path))
    lines(tmp_path / second, record(name, 3), record(name, 4))
    with raises("data_invalid", Path(first).name, Path(second).name):
        load(name, str(tmp_path))


@pytest.mark.parametrize("name", ["rewardbench", "rewardbench2", "mt_bench", "judgebench"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("data/x-00000-of-00002.jsonl", "data/x-00001-of-00002.jsonl"),
        ("data/x-00001-of-00002-0a1b2c.jsonl", "data/x-00002-of-00002-9f8e7d.jsonl"),
        ("default/human/0000.jsonl", "default/human/0001.jsonl"),
        ("part-8.jsonl", "part-10.jsonl"),
    ],
)
def test_the_parts_of_one_data_set_are_read_together(tmp_path, name, first, second):
    lines(tmp_path / first, record(name, 1))
    lines(tmp_path / second, record(name, 2))
    prompts = {item.instruction for item in load(name, str(tmp_path)).items}
    assert prompts == {"Task 1?", "Task 2?"}


def test_files_of_different_subsets_are_read_together(tmp_path):
    lines(tmp_path / "r" / "go.jsonl", record("rewardbench", 1))
    lines(tmp_path / "r" / "chat.jsonl", record("rewardbench", 2, subset="mt-bench-med"))
    lines(tmp_path / "j" / "gpt.jsonl", record("judgebench", 1))
    lines(
        tmp_path / "j" / "claude.jsonl", record("judgebench", 2, response_model="claude-3-5-sonnet-20240620")
    )
    assert [len(load(n, str(tmp_path / n[0])).items) for n in ("rewardbench", "judgebench")] == [2, 2]


@pytest.mark.parametrize("name", ["rewardbench", "rewardbench2", "mt_bench", "helpsteer2", "judgebench"])
def test_a_part_that_is_missing_is_refused_or_noted(tmp_path, name):
    file = tmp_path / "data" / "part-00000-of-00003.jsonl"
    lines(file, record(name, 1), record(name, 2))
    with raises("data_invalid", str(tmp_path), "part-00001-of-00003"):
        load(name, str(tmp_path))
    assert load(name, str(file)).notes["other_parts_not_read"] == 2


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("rewardbench", {"subset": "mt-bench-hardest"}),
        ("rewardbench2", {"subset": "Chat"}),
        ("judgebench", {"source": "gpqa"}),
        ("rm_bench", {"domain": "poetry"}),
        ("mt_bench", {"turn": 3}),
    ],
)
def test_unknown_subsets_are_refused(tmp_path, name, fields):
    lines(tmp_path / "x.jsonl", record(name, 1), record(name, 2, **fields))
    with raises("data_invalid", "x.jsonl, record 2", next(iter(fields)), str(*fields.values())):
        load(name, str(tmp_path))


LLMBAR = {"input": "Task?", "output_1": "a", "output_2": "b", "label": 1}


@pytest.mark.parametrize("folder", ["Natural"])
@pytest.mark.parametrize(
    "other", [{"label": 2}, {"output_1": "b", "output_2": "a"}, {"input": "task? ", "label": 2}]
)
def test_a_pair_with_two_labels_is_refused(tmp_path, folder, other):
    lines(tmp_path / folder / "dataset.json", LLMBAR, LLMBAR | other)
    with raises("data_invalid", "dataset.json, record 2", "record 1"):
        load("llmbar", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("judgebench", {"pair_id": "x", "label": "B>A"}),
        ("judgebench", {"pair_id": "x", "response_A": "b", "response_B": "a"}),
        ("judgebench", {"pair_id": "x", "response_A": "b ", "response_B": "A"}),
        ("rewardbench", {"id": "x", "chosen": "b", "rejected": "a"}),
    ],
)
def test_contradicting_records_are_refused(tmp_path, name, other):
    lines(tmp_path / "x.jsonl", record(name, 1), record(name, 1, **other))
    with raises("data_invalid", "x.jsonl, record 2", "x.jsonl, record 1"):
        load(name, str(tmp_path))


def test_votes_on_other_conversations_are_refused(tmp_path):
    said = record("mt_bench", 1)["conversation_a"]
    other = record("mt_bench", 1, conversation_a=[said[0], said[1] | {"content": "c"}])
    lines(tmp_path / "human.jsonl", record("mt_bench", 1), other)
    with raises("data_invalid", "human.jsonl, record 2", "question 81"):
        load("mt_bench", str(tmp_path))


@pytest.mark.parametrize("change", [{"turn": 2}, {"turn": 1.5}, {"question_id": 81.5}])
def test_turns_and_questions_that_are_not_there_are_refused(tmp_path, change):
    lines(tmp_path / "human.jsonl", record("mt_bench", 1, **change))
    with raises("data_invalid", "human.jsonl, record 1", "turn" if "turn" in change else "question_id"):
        load("mt_bench", str(tmp_path))


def test_a_domain_in_the_file_of_another_is_refused(tmp_path):
    lines(tmp_path / "code_filtered.json", record("rm_bench", 1))
    with raises("data_invalid", "code_filtered.json, record 1", "chat"):
        load("rm_bench", str(tmp_path))


@pytest.mark.parametrize("name", ["nope", "source", "splits", "", None])
def test_unknown_benchmarks_are_refused(name):
    with raises("argument_invalid", "rewardbench"):
        load(name)


def test_the_numbers_of_pairs_are_compared_where_they_are_certain():
    def wins(number: int, **fields: Any) -> list[Any]:
        return [judged(str(i), "A", ("A", "B"), prompt_id=str(i), **fields) for i in range(number)]

    model, wrong = "gpt-4o-2024-05-13", POLICIES["wrong"]
    own = judgebench.aggregate(wins(351, subset="math", category=model), wrong, 0)
    assert (own["surplus_subsets"], own["short_subsets"]) == ({model: "351 of 350"}, {})
    prompts = [
        judged(f"Math/{i}/0-0-of-1x1", "A", ("A", "A"), prompt_id=str(i), subset="Math") for i in range(184)
    ]
    own = rewardbench2.aggregate(prompts, wrong, 0)
    assert (own["surplus_subsets"], own["short_subsets"]) == ({"Math": "184 of 183"}, {})
    own = rm_bench.aggregate(wins(9, subset="chat", category="easy"), wrong, 0)
    assert (own["surplus_subsets"], own["short_subsets"]) == ({}, {"chat": "9 of 1161"})


@pytest.mark.parametrize(("name", "published"), [("mt_bench", 3355), ("helpsteer2", 1038)])
def test_the_number_of_records_is_compared_where_that_of_pairs_is_not_known(tmp_path, name, published):
    lines(tmp_path / "data.jsonl", record(name, 1), record(name, 2))
    found = load(name, str(tmp_path / "data.jsonl"))
    assert found.notes["records_of_the_published_files"] == f"2 of {published}"


def test_a_pair_that_is_repeated_in_the_other_order_counts_once(tmp_path):
    swapped = record("judgebench", 1, pair_id="x", response_A="b", response_B="a", label="B>A")
    lines(tmp_path / "x.jsonl", record("judgebench", 1), swapped)
    found = load("judgebench", str(tmp_path))
    assert [item.id for item in found.items] == ["1"]
    assert found.notes == {"repeated_records_left_out": 1}
