"""Texts by which held-out prompts are found: as they are shown, and without what stands around them."""

from typing import Any

import pytest

from ste_jax.data.comparisons import read_comparisons
from ste_jax.data.prompts import read_prompts
from ste_jax.data.sources import read_instructions
from ste_jax.instructions.held_out import contains
from tests.data.pair_files import HH, PAIR, lines
from tests.errors import raises

ASK = "Which alpine pass did the merchants of Lucca cross?"
SAME = {"response_a": "a", "response_b": "b", "label": "A"}


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


@pytest.mark.parametrize(
    "row",
    [
        {"system": "Answer like a historian.", "prompt": ASK, **SAME},
        {"system_prompt": "You are terse.", "question": ASK, "chosen": "a", "rejected": "b"},
        {"instruction": ASK, "input": "Give one name.", **SAME},
        {"history": talk("Hello there", "Hi."), "prompt": ASK, **SAME},
        {"history": talk(ASK, "Which ones?"), "prompt": "The silk merchants.", **SAME},
        {
            "context": talk("Good day", "Yes?", ASK),
            "response1": "a",
            "response2": "b",
            "overall_preference": 1,
        },
        {
            "conversation_a": talk(ASK, "a", "And their mules?", "c"),
            "conversation_b": talk(ASK, "b", "And their mules?", "d"),
            "winner": "model_a",
        },
        {
            "conversation_a": talk("Hi", "Hi.", ASK, "a"),
            "conversation_b": talk("Hi", "Hi.", ASK, "b"),
            "winner": "tie",
        },
        {"chosen": f"\n\nHuman: {ASK}\n\nAssistant: a", "rejected": f"\n\nHuman: {ASK}\n\nAssistant: b"},
        {
            "prompt": [ASK, "And back?"],
            "response_a": ["a", "c"],
            "response_b": ["b", "d"],
            "winner": "model_b",
        },
        {"prompt": f"Hi\n<extra_id_1>Assistant\nHi.\n<extra_id_1>User\n{ASK}", **SAME},
    ],
)
def test_a_prompt_is_found_without_what_its_file_puts_around_it(tmp_path, row):
    held_out = read_prompts(lines(tmp_path / "p.jsonl", row))
    texts = [ASK, f"Please tell me. {ASK} Thanks!", "Which alpine flowers did the monks of Lucca grow?"]
    assert contains(texts, held_out, 0.8) == [True, True, False]
    read_comparisons(str(tmp_path / "p.jsonl"), labels="required")


def test_later_turns_of_two_conversations_are_prompts(tmp_path):
    more = "And which of them had a hospice at the top?"
    sides = {f"conversation_{side}": talk(ASK, side, more, side) for side in "ab"}
    held_out = read_prompts(lines(tmp_path / "p.jsonl", {**sides, "winner": "model_a", "turn": 2}))
    assert {ASK, more} <= {*held_out}


def test_a_prompt_with_several_contexts_is_found_with_them_only(tmp_path):
    head = "Summarize the following text in one sentence."
    rows = [{"instruction": head, "input": f"Chapter {n} is about ships.", **SAME} for n in ("one", "two")]
    held_out = read_prompts(lines(tmp_path / "p.jsonl", *rows))
    other = {"instruction": head, "input": "The museum opens again in June, says the mayor."}
    (text,) = read_instructions(lines(tmp_path / "i.jsonl", other))
    assert contains([text.text, f"{head}\n\nChapter two is about ships."], held_out, 0.8) == [False, True]


def test_an_instruction_inside_a_held_out_prompt_is_found():
    lock = "Explain how a lock gate holds back the water of a canal."
    prompt = f"System:\nBe kind.\n\nUser:\nName it.\n\nUser:\n{lock}"
    texts = ["how a lock gate holds back the water", "Name it", "gate holds", "kind", "Be kind to me"]
    assert contains(texts, [prompt], 0.8) == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"prompt": ASK, "chosen": ["a"], "rejected": ["b", "c", "d"], "subset": "Math"}, {ASK}),
        ({"prompt": ASK, "chosen": ["a", "b", "c"], "rejected": ["d", "e", "f"], "domain": "chat"}, {ASK}),
        ({"question_id": 81, "category": "writing", "turns": [ASK, "And back?"]}, {ASK, "And back?"}),
        ({"question_id": "x", "turns": [{"content": ASK}]}, {ASK}),
        ({"input": ASK}, {ASK}),
        ({"input": ASK, "output_1": "a", "output_2": "b", "label": 2}, {ASK}),
        (
            {"prompt": f"Hi\n<extra_id_1>Assistant\nYes?\n<extra_id_1>User\n{ASK}\n", "response": "a"},
            {"Hi", ASK},
        ),
        ({"pair_id": 1, "question": ASK, "response_A": "a", "response_B": "b", "label": "A>B"}, {ASK}),
        ({"conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": "a"}]}, {ASK}),
        ({"prompt": f'["{ASK}", null]', "response_a": '["a", "b"]', "response_b": '["c", "d"]'}, {ASK}),
        ({"prompt": "[1, 2] is a list", "chosen": "a", "rejected": "b"}, {"[1, 2] is a list"}),
    ],
)
def test_the_files_of_benchmarks_are_read_for_their_prompts(tmp_path, row, found):
    texts = read_prompts(lines(tmp_path / "b.jsonl", row))
    assert found <= {text.strip() for text in texts}
    assert not any("extra_id" in text for text in texts)


@pytest.mark.parametrize(
    "row", [{"prompt": ""}, {"prompt": None, "turns": []}, {"question": 3}, {"score": 1}]
)
def test_a_row_without_a_prompt_is_refused(tmp_path, row):
    with raises("data_invalid", "b.jsonl, line 1", "prompt"):
        read_prompts(lines(tmp_path / "b.jsonl", row))


def test_packaged_and_plain_sources_are_read(tmp_path):
    (tmp_path / "l.txt").write_text("One question?\nAnother one?\n")
    assert read_prompts(str(tmp_path / "l.txt")) == ["One question?", "Another one?"]
    assert len(read_prompts("starter")) >= len({one.text for one in read_instructions("starter")})


def helpsteer2(last: str) -> str:
    return f"Hello\n<extra_id_1>Assistant\nHi!\n<extra_id_1>User\n{last}"


def test_prompts_of_helpsteer2_are_conversations_for_all_readers(tmp_path):
    rows: list[dict[str, Any]] = [
        {"prompt": "Plain?", "response_1": "a", "response_2": "b", "preference_strength": -1},
        {"prompt": helpsteer2("Q?"), "response_1": "a", "response_2": "b", "preference_strength": 2},
    ]
    path = lines(tmp_path / "p.jsonl", *rows)
    expected = ["Plain?", "User:\nHello\n\nAssistant:\nHi!\n\nUser:\nQ?"]
    assert [pair.instruction for pair in read_comparisons(path, labels="required")] == expected
    path = lines(tmp_path / "i.jsonl", *({"prompt": row["prompt"]} for row in rows))
    assert [one.text for one in read_instructions(path)] == expected


def test_responses_that_are_lists_of_texts_are_refused_by_name(tmp_path):
    row = {"prompt": "Q?", "chosen": ["a"], "rejected": ["b", "c"]}
    with raises("data_invalid", "p.jsonl, line 1", "chosen", "--benchmark"):
        read_comparisons(lines(tmp_path / "p.jsonl", row), labels="required")


# ---- two prompts --------------------------------------------------------------


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Answer the question.", "question": "Why is it blue?", **SAME},
        {"prompt": "Write.", "instruction": "Sing.", "chosen": "a", "rejected": "b"},
        {"prompt": talk("Write."), "question": "Sing.", "chosen": "a", "rejected": "b"},
        {"instruction": "Write.", "prompt": "Sing.", "response": "a"},
        {"question": "Write.", "prompt": "Sing.", "responses": ["a"]},
        {"question": "Write.", "prompt": "Sing."},
    ],
)
def test_two_different_prompts_are_refused(tmp_path, row):
    from ste_jax.data.overview import overview

    plain = {name: "Write." if name in ("instruction", "prompt", "question") else row[name] for name in row}
    path = lines(tmp_path / "p.jsonl", plain, row)
    with raises("data_invalid", "p.jsonl, line 2", "different prompts"):
        overview(path)
    assert overview(lines(tmp_path / "q.jsonl", plain, plain)).counts["rows"] == 2


@pytest.mark.parametrize("blank", ["", None, " \n", float("nan"), []])
def test_a_blank_prompt_gives_way_to_the_filled_one(tmp_path, blank):
    rows = [{"prompt": blank, "question": "Why?", **SAME}, {"prompt": "How?", "question": blank, **SAME}]
    pairs = read_comparisons(lines(tmp_path / "p.jsonl", *rows), labels="required")
    assert [pair.instruction for pair in pairs] == ["Why?", "How?"]
    assert "question" not in pairs[0].metadata
    path = lines(
        tmp_path / "i.jsonl", {"instruction": blank, "text": "Why?"}, {"text": blank, "prompt": "How?"}
    )
    assert [one.text for one in read_instructions(path)] == ["Why?", "How?"]
    with raises("data_invalid", "b.jsonl, line 1"):
        read_comparisons(lines(tmp_path / "b.jsonl", PAIR | {"instruction": blank}), labels="required")


def test_a_transcript_and_its_last_turn_are_different_prompts(tmp_path):
    row = {"prompt": HH, "question": "Q?", "chosen": f"{HH} yes", "rejected": f"{HH} no"}
    with raises("data_invalid", "line 1", "prompt", "question"):
        read_comparisons(lines(tmp_path / "p.jsonl", row), labels="required")
