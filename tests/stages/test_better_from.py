"""Runs whose better responses are given, and runs whose judge prompt shows columns of the instructions."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ste_jax import pipeline
from ste_jax.records import Comparison, Generation
from ste_jax.stages import pairs, select
from ste_jax.stages.context import Context
from ste_jax.storage.record_set import RecordSet
from ste_jax.storage.success import require_success
from tests.errors import raises
from tests.pairs.answered import TEXTS

MakeContext = Callable[..., Context]
FILTERS = {"languages": (), "personal_data": "keep", "near_duplicate_threshold": 1.0, "max_chars": 2000}
SELECT = {"pool": 0, "size": 100, "categories": (), "quotas": {}, "filters": FILTERS}
CERTAIN = ("random_crossed", "padded", "cut_off", "garbled", "truncated")
PAIRS = {"mode": CERTAIN, "test": 2, "validation": 0, "better_from": "reply"}
TRAIN = {"evaluate_every": 0}
USER = """\
== Question ==
{instruction}
== Context ==
{context}
== First ==
{response_a}
== Second ==
{response_b}
== End ==
[[A]] or [[B]]?"""


def lines(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def tickets(path: Path, *more: dict[str, Any]) -> str:
    rows = [
        {"id": id_, "question": question, "reply": reply, "context": f"Article of {id_}."}
        for id_, (question, reply) in TEXTS.items()
    ]
    return lines(path, *rows, *more)


def prompt_file(path: Path, user: str = USER) -> str:
    path.write_text(json.dumps({"user": user}))
    return str(path)


@pytest.fixture
def make(make_context: MakeContext, tmp_path: Path) -> MakeContext:
    def context(**changes: Any) -> Context:
        changes["select"] = SELECT | changes.get("select", {})
        changes["pairs"] = PAIRS | changes.get("pairs", {})
        changes = {"instructions": tickets(tmp_path / "tickets.jsonl"), "train": TRAIN, **changes}
        return make_context(**changes)

    return context


def made_by(context: Context) -> list[Comparison]:
    return pairs.run(context, select.run(context))


def test_given_responses_are_the_better_ones_and_no_token_is_generated(make: MakeContext) -> None:
    context = make()
    made = made_by(context)
    assert {pair.subset for pair in made} == set(CERTAIN)
    replies = {id_: reply for id_, (_, reply) in TEXTS.items()}
    assert all(pair.chosen == replies[pair.prompt_id] for pair in made)
    assert all(not pair.texts and pair.reference is None for pair in made)
    assert require_success(context.workdir / "pairs").work["generated_tokens"] == 0
    # No call of a model is stored.
    assert [path.name for path in (context.workdir / "pairs").iterdir() if path.is_dir()] == []
    tokens = context.seed_model.tokenizer.encode_plain
    truncated = next(pair for pair in made if pair.subset == "truncated")
    length = truncated.metadata["num_tokens_a" if truncated.label == "A" else "num_tokens_b"]
    assert length == len(tokens(truncated.chosen))


def test_kinds_that_sample_the_worse_response_keep_the_given_one(make: MakeContext) -> None:
    context = make(pairs={"mode": "high_temperature"})
    instructions = select.run(context)
    worse = {i.id: f"Something else about {i.id} that nobody wanted to know." for i in instructions}
    records = RecordSet(context.workdir / "pairs" / "high_temperature", Generation, pairs.made_from(context))
    for id_, text in worse.items():
        records.add(id_, [Generation(id=id_, text=text, tokens=[7], finish="stop")])
    records.finish(list(worse), {"too_long": []})
    made = pairs.run(context, instructions)
    assert {pair.prompt_id: (pair.chosen, pair.rejected) for pair in made} == {
        id_: (TEXTS[id_][1], text) for id_, text in worse.items()
    }


def test_rows_without_a_response_are_counted_and_a_missing_column_is_refused(make, tmp_path):
    path = tickets(tmp_path / "t.jsonl", {"question": "Is it open?", "reply": " "}, {"question": "Who?"})
    context = make(instructions=path)
    assert len(select.run(context)) == len(TEXTS)
    funnel = require_success(context.workdir / "select").summary["funnel"]
    assert funnel[1] == {"name": "without a better response", "removed": 2, "left": len(TEXTS)}
    empty = lines(tmp_path / "e.jsonl", *({"question": f"Why {n}?", "reply": ""} for n in range(9)))
    with raises("data_invalid", "e.jsonl", "9 without a better response", "pairs.better_from"):
        pipeline.run_stages(make(instructions=empty))
    context = make(pairs={"better_from": "answer"})
    with raises("data_invalid", "tickets.jsonl", "answer", "pairs.better_from"):
        pipeline.run_stages(context)
    assert not (context.workdir / "select" / "labels").exists()


def test_another_column_or_another_reply_makes_the_stages_stale(make, tmp_path):
    context = make()
    made_by(context)
    other = dataclasses.replace(
        context.config, pairs=dataclasses.replace(context.config.pairs, better_from="context")
    )
    with raises("stage_stale", "select"):
        select.run(Context(other, context.workdir))
    path = lines(tmp_path / "tickets.jsonl", {"question": "Why?", "reply": "So.", "context": "c"})
    with raises("stage_stale", "select"):
        select.run(Context(dataclasses.replace(context.config, instructions=path), context.workdir))


def test_the_text_of_a_named_column_is_the_instruction(make, tmp_path):
    path = lines(tmp_path / "t.jsonl", *({"body": f"Why {topic}?", "text": "x"} for topic in TEXTS))
    context = make(instructions=path, instructions_column="body", pairs={"better_from": ""})
    assert {one.text for one in select.run(context)} == {f"Why {topic}?" for topic in TEXTS}
    assert require_success(context.workdir / "select").summary["columns_left_out"] == ["text"]


def test_columns_of_the_prompt_reach_the_pairs_and_their_prompts(make, tmp_path):
    context = make(
        judge_prompt=prompt_file(tmp_path / "p.json"), rubric="", pairs={"mode": (*CERTAIN, "composite")}
    )
    made = made_by(context)
    questions = {id_: question for id_, (question, _) in TEXTS.items()}
    for pair in made:
        if pair.subset == "composite":
            articles = [f"Article of {id_}." for id_ in pair.metadata["sources"]]
            assert pair.texts == {"context": "\n\n".join(articles)}
        else:
            assert pair.instruction == questions[pair.prompt_id]
            assert pair.texts == {"context": f"Article of {pair.prompt_id}."}
    assert any(pair.subset == "composite" for pair in made)


def test_placeholders_without_a_column_are_refused_before_a_token_is_made(make, tmp_path):
    wrong = prompt_file(tmp_path / "w.json", USER.replace("{context}", "{contexts}"))
    context = make(judge_prompt=wrong, rubric="")
    with raises("data_invalid", "tickets.jsonl", "{contexts}"):
        pipeline.run_stages(context)
    label = {"question": "Who?", "response_a": "a", "response_b": "b", "label": "A"}
    labelled = lines(tmp_path / "l.jsonl", label)
    with raises("data_invalid", "l.jsonl", "{context}"):
        pipeline.run_stages(
            make(judge_prompt=prompt_file(tmp_path / "p.json"), rubric="", labelled_pairs=labelled)
        )
    assert not (context.workdir / "select" / "labels").exists()


def test_references_are_read_for_a_prompt_that_shows_them(make, tmp_path):
    user = USER.replace("{context}", "{reference}")
    rows = [
        {"id": id_, "question": question, "reply": reply, "reference": f"gold {id_}"}
        for id_, (question, reply) in TEXTS.items()
    ]
    path = lines(tmp_path / "r.jsonl", *rows, {"id": "none", "question": "Who?", "reply": "Me, I think."})
    context = make(judge_prompt=prompt_file(tmp_path / "p.json", user), rubric="", instructions=path)
    made = made_by(context)
    assert {pair.reference for pair in made} == {f"gold {id_}" for id_ in TEXTS}
    funnel = require_success(context.workdir / "select").summary["funnel"]
    assert funnel[1] == {"name": "without a reference", "removed": 1, "left": len(TEXTS)}
    pair = {"question": "Who?", "response_a": "a", "response_b": "b", "label": "A", "id": "mine"}
    labelled = lines(tmp_path / "l.jsonl", pair)
    with raises("reference_missing", "l.jsonl", "mine"):
        pipeline.run_stages(dataclass_context(context, labelled_pairs=labelled))
    arithmetic = dataclasses.replace(context.config.pairs, mode=("arithmetic",))
    with raises("config_invalid", "arithmetic", "{reference}"):
        pipeline.run_stages(dataclass_context(context, pairs=arithmetic))


def dataclass_context(context: Context, **changes: Any) -> Context:
    return Context(dataclasses.replace(context.config, **changes), context.workdir)


def test_masks_replace_personal_data_in_all_texts_of_a_run(make, tmp_path):
    path = tickets(
        tmp_path / "t.jsonl",
        {
            "id": "mail",
            "question": "Write to jo@shop.org, please: where is my order?",
            "reply": "We have written to jo@shop.org and called you on +44 20 7946 0958 this morning.",
            "context": "Card 4242 4242 4242 4242.",
        },
    )
    changes = {"judge_prompt": prompt_file(tmp_path / "p.json"), "rubric": "", "instructions": path}
    context = make(select={"filters": FILTERS | {"personal_data": "mask"}}, **changes)
    (one,) = (one for one in select.run(context) if one.id == "mail")
    assert one.text == "Write to <EMAIL>, please: where is my order?"
    assert one.response == "We have written to <EMAIL> and called you on <PHONE> this morning."
    assert one.texts == {"context": "Card <CARD>."}
    summary = require_success(context.workdir / "select").summary
    assert {"name": "personal data, masked in 1", "removed": 0, "left": len(TEXTS) + 1} in summary["funnel"]
    context = make(select={"filters": FILTERS | {"personal_data": "drop"}}, **changes)
    assert len(select.run(context)) == len(TEXTS)
