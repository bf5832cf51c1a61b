"""What the selection leaves out, and what it refuses before the model makes a token."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ste_jax import pipeline
from ste_jax.stages import select
from ste_jax.stages.context import Context
from ste_jax.storage.success import require_success
from tests.errors import raises

MakeContext = Callable[..., Context]
TOPICS = ("bread", "bridges", "clouds", "clocks", "rivers", "glass")
FILTERS = {"languages": (), "personal_data": "keep", "near_duplicate_threshold": 0.8, "max_chars": 600}
SELECT = {"pool": 0, "size": 4, "categories": (), "quotas": {}, "filters": FILTERS}
PAIRS = {"test": 1, "validation": 0, "mode": "truncated"}
TRAIN = {"evaluate_every": 0}


def lines(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def instructions(tmp_path: Path) -> str:
    rows = ({"id": f"i{topic}", "instruction": f"Explain how {topic} is made.", "n": 1} for topic in TOPICS)
    return lines(tmp_path / "instructions.jsonl", *rows)


@pytest.fixture
def make(make_context: MakeContext, instructions: str) -> MakeContext:
    def context(**changes: Any) -> Context:
        changes["select"] = SELECT | changes.get("select", {})
        changes = {"instructions": instructions, "pairs": PAIRS, "train": TRAIN, **changes}
        return make_context(**changes)

    return context


def labelled(path: Path, *prompts: str) -> str:
    return lines(
        path,
        *({"instruction": text, "response_a": "a", "response_b": "b", "label": "A"} for text in prompts),
    )


def test_instructions_with_the_text_of_a_labelled_prompt_are_left_out(make, tmp_path):
    path = labelled(
        tmp_path / "l.jsonl", "explain  how BREAD is made.", "Explain how clouds is made!", "Other?"
    )
    context = make(labelled_pairs=path)
    chosen = select.run(context)
    assert {one.id for one in chosen} == {"ibridges", "iclocks", "irivers", "iglass"}
    summary = require_success(context.workdir / "select").summary
    assert summary["funnel"][:2] == [
        {"name": "read", "removed": 0, "left": 6},
        {"name": "in the labelled pairs", "removed": 2, "left": 4},
    ]
    assert summary["columns_left_out"] == ["n"]
    assert select.run(context) == chosen
    other = dataclasses.replace(
        context.config, labelled_pairs=labelled(tmp_path / "m.jsonl", "Something else?")
    )
    with raises("stage_stale", "labelled_prompts"):
        select.run(Context(other, context.workdir))


def test_instructions_that_overlap_with_benchmarks_are_left_out(make, tmp_path):
    words = "one two three four five six seven eight nine ten eleven twelve thirteen"
    rows = [
        {"instruction": f"Please count: {words}, and so on, until you reach a hundred or are tired of it."},
        {"instruction": f"Please count: {words.replace('seven', '7')} or so, unless you are tired of it."},
        *({"instruction": f"Explain how {topic} is made."} for topic in TOPICS),
    ]
    benchmarks = (
        lines(tmp_path / "rb.jsonl", {"prompt": words.upper(), "chosen": "a", "rejected": "b"}),
        lines(tmp_path / "mt.json", {"question": "Explain how glass is made"}),
    )
    context = make(
        instructions=lines(tmp_path / "i.jsonl", *rows), select={"decontaminate": benchmarks, "size": 6}
    )
    assert len(select.run(context)) == 6
    funnel = require_success(context.workdir / "select").summary["funnel"]
    assert funnel[1] == {"name": "in a file of benchmark prompts", "removed": 2, "left": 6}


@pytest.mark.parametrize(
    ("changes", "places"),
    [
        (
            {"filters": FILTERS | {"languages": ("ja",)}},
            ["6 other language than ja", "select.filters.languages"],
        ),
        ({"filters": FILTERS | {"max_chars": 5}}, ["6 too long", "select.filters.max_chars"]),
        ({"max_tokens": 2}, ["6 too many tokens", "select.max_tokens"]),
    ],
)
def test_the_filter_that_leaves_nothing_is_named_before_a_token_is_made(make, changes, places):
    context = make(select=changes)
    with raises("data_invalid", "instructions.jsonl", *places):
        pipeline.run_stages(context)
    assert not (context.workdir / "select" / "labels").exists()


def test_too_few_instructions_for_the_held_out_pairs_are_refused_before_a_token_is_made(make, tmp_path):
    rows = (
        {"instruction": text} for text in ("Nenne drei Flüsse in Spanien.", "Name three rivers in Spain.")
    )
    filters = FILTERS | {"languages": ("en",)}
    context = make(instructions=lines(tmp_path / "g.jsonl", *rows), select={"filters": filters})
    with raises("no_training_pairs", "g.jsonl", "1 other language than en", "select.filters.languages"):
        pipeline.run_stages(context)
    path = labelled(tmp_path / "l.jsonl", *(f"Explain how {topic} is made." for topic in TOPICS))
    with raises("data_invalid", "6 in the labelled pairs", "labelled_pairs"):
        pipeline.run_stages(make(labelled_pairs=path))


def test_labelled_pairs_with_the_id_of_an_instruction_are_refused_before_a_token_is_made(make, tmp_path):
    row = {"instruction": "Other?", "response_a": "a", "response_b": "b", "label": "A"}
    context = make(labelled_pairs=lines(tmp_path / "l.jsonl", row | {"id": "iglass"}, row | {"label": "B"}))
    with raises("data_invalid", "l.jsonl", "line 2", "line 1"):  # two labels of one pair
        pipeline.run_stages(context)
    context = make(labelled_pairs=lines(tmp_path / "l.jsonl", row | {"id": "iglass"}))
    with raises("data_invalid", "l.jsonl", "'iglass'"):
        pipeline.run_stages(context)
    assert not (context.workdir / "select" / "labels").exists()


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"quotas": {"unlabelled": 0.0}}, "select.quotas"),
        ({"min_complexity": 3}, "select.min_complexity"),
        ({"decontaminate": "one.jsonl"}, "decontaminate"),
    ],
)
def test_settings_that_select_nothing_are_refused_by_the_configuration(make, settings, field):
    with raises("config_invalid", field):
        make(select=settings)


def test_a_file_of_benchmark_prompts_is_read_when_the_run_starts(make):
    context = make(select={"decontaminate": ("absent.jsonl",)})
    with raises("file_not_found", "absent.jsonl"):
        pipeline.run_stages(context)
    assert not list(Path(context.workdir).iterdir())
