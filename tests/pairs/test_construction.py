import time

import pytest

from ste_jax.pairs.construction import (
    PairChecks,
    check_modified,
    check_pair,
    degraded_answer_prompt,
    is_refusal,
    modify_and_answer_prompt,
    modify_prompt,
    parse_modified,
    parse_modified_and_answer,
    similarity,
)
from tests.errors import raises

NEW = "Name three rivers in Asia."


def test_modify_prompt_shows_examples_and_ends_with_the_instruction():
    messages = modify_prompt("Name {three} rivers.\n</instruction> Stop. [[A]]")
    assert [m.role for m in messages] == ["system", *["user", "assistant"] * 5, "user"]
    assert (
        "<instruction>\nName {three} rivers.\n(instruction) Stop. [[ A ]]\n</instruction>"
        in messages[-1].content
    )
    for user, reply in zip(messages[1:-1:2], messages[2::2], strict=True):
        shown = user.content.split("\n")[1]
        assert check_modified(shown, parse_modified(reply.content), PairChecks()) is None


def test_one_call_prompt_shows_a_readable_example():
    messages = modify_and_answer_prompt("Name rivers.", "The Rhine </response> and more.")
    assert [m.role for m in messages] == ["system", "user", "assistant", "user"]
    assert "<response>\nThe Rhine (response) and more.\n</response>" in messages[-1].content
    modified, answer = parse_modified_and_answer(messages[2].content)
    assert modified == "How should I introduce a new cat to my old dog?"
    assert answer.startswith("Keep them")
    assert answer.endswith("gone well.")


def test_direct_prompt():
    (message,) = degraded_answer_prompt("Name rivers.", "The Rhine.")
    assert message.role == "user"
    assert message.content.index("Name rivers.") < message.content.index("The Rhine.")


@pytest.mark.parametrize(
    "completion",
    [
        NEW,
        f"  {NEW}\n",
        f'"{NEW}"',
        f"“{NEW}”",
        f"**{NEW}**",
        f"New instruction: {NEW}",
        f"**Modified question:** {NEW}",
        f"The new instruction is: {NEW}",
        f"Here is a modified instruction:\n\n{NEW}",
        f'Sure! Here\'s a new task for you: "{NEW}"',
        f'Sure, here’s a related question:\n"{NEW}"\n\nIt asks for something else.',
        f"<new_instruction>\n{NEW}\n</new_instruction>",
        f"Here you are: <new_instruction>{NEW}</new_instruction> I hope it helps.",
        f"<new_instruction>\n{NEW}",
    ],
)
def test_parse_modified(completion):
    assert parse_modified(completion) == NEW


@pytest.mark.parametrize(
    "completion",
    [
        "",
        '""',
        "New instruction:",
        "Here are some modified instructions:\n\nName a lake.",
        "1. Name a lake.\n2. Name a river.",
        "New instruction: Name a lake.\nNew instruction: Name a river.",
        "<new_instruction>a</new_instruction><new_instruction>b</new_instruction>",
        "Name a lake. <instruction>Name a river.</instruction>",
        "I'm sorry, but I can't help with that.",
    ],
)
def test_unclear_modified(completion):
    assert parse_modified(completion) is None


@pytest.mark.parametrize(
    "kept",
    [
        'Explain the words "sense" and "sensibility"',
        'Here is a text: "It rains." Summarise it in one word.',
        "Write two lines:\n1. a noun\n2. a verb",
        '"Hamlet" is a play. Who wrote the one called "Faust"?',
        "Explain what **this** means: a **b**",
        "I cannot sleep. What should I drink?",
    ],
)
def test_instructions_that_look_like_packaging_stay_whole(kept):
    assert parse_modified(kept) == kept


@pytest.mark.parametrize(
    "completion",
    [
        f"<new_instruction>\n{NEW}\n</new_instruction>\n<answer>\nThe Ob.\n\nThe Lena.\n</answer>",
        f"<new_instruction>{NEW}</new_instruction>\nAnswer:\n<answer>The Ob.\n\nThe Lena.</answer> Done.",
        f"Sure.\n<new_instruction>\nNew instruction: {NEW}\n<answer>\nThe Ob.\n\nThe Lena.",
        f"**New instruction:** {NEW}\n\n**Answer:** The Ob.\n\nThe Lena.",
        f'New instruction:\n"{NEW}"\nAnswer to the new instruction:\nThe Ob.\n\nThe Lena.',
    ],
)
def test_parse_modified_and_answer(completion):
    assert parse_modified_and_answer(completion) == (NEW, "The Ob.\n\nThe Lena.")


@pytest.mark.parametrize(
    "completion",
    [
        "",
        f"{NEW}\n\nThe Ob.",
        f"<new_instruction>{NEW}</new_instruction>",
        f"<new_instruction>{NEW}</new_instruction><answer></answer>",
        "<new_instruction></new_instruction><answer>The Ob.</answer>",
        f"<answer>The Ob.</answer><new_instruction>{NEW}</new_instruction>",
        f"<new_instruction>{NEW}</new_instruction><answer>a</answer><answer>b</answer>",
        f"Answer: The Ob.\nNew instruction: {NEW}",
        f"New instruction: {NEW}\nAnswer: a\nAnswer: b",
        "The new instruction:\n\n<new_instruction>\nThe new instruction:\n<answer>\n\nI'm glad you asked.",
    ],
)
def test_unclear_modified_and_answer(completion):
    assert parse_modified_and_answer(completion) is None


def test_parsers_are_fast_on_hostile_completions():
    start = time.monotonic()
    for piece in (
        "\n",
        " ",
        "*",
        "<answer>",
        "<new_instruction>",
        '"',
        "new instruction: ",
        "sure ",
        "1. a\n",
    ):
        parse_modified(piece * 5000)
        parse_modified_and_answer("<new_instruction>" + piece * 5000)
        parse_modified_and_answer(piece * 5000)
    assert time.monotonic() - start < 3


GOOD = ("Name rivers in Europe.", NEW, "The Rhine, the Danube, the Po.", "The Ob, the Lena and the Mekong.")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({1: None}, None),
        ({1: " name RIVERS in  Europe"}, "modified_equal"),
        ({3: " \n"}, "empty_response"),
        ({2: ""}, "empty_response"),
        ({2: "I’m sorry, but I can’t help with that."}, "refusal"),
        ({3: "As an AI language model, I am unable to provide opinions."}, "refusal"),
        ({3: "the Rhine, the Danube, the Po"}, "responses_equal"),
        ({2: "The Po, " * 20, 3: "Ob"}, "length_ratio"),
        ({2: "Ob", 3: "The Po, " * 20}, "length_ratio"),
    ],
)
def test_check_pair(changes, reason):
    instruction, modified, chosen, rejected = (changes.get(i, GOOD[i]) for i in range(4))
    assert check_pair(instruction, modified, chosen, rejected, PairChecks()) == reason


def test_nearness_thresholds():
    long = "Summarise the following report for the board in five short points and name the main risk: " * 2
    assert check_modified(long + "profit", long + "loss", PairChecks()) == "modified_near"
    assert check_modified("Write a poem on cats", "Write a poem on dogs", PairChecks()) is None
    strict = PairChecks(max_modified_similarity=0.5)
    assert check_modified("Write a poem on cats", "Write a poem on dogs", strict) == "modified_near"
    words = [f"w{i}" for i in range(60)]
    near = " ".join([*words[:30], "other", *words[31:]])
    assert check_pair("x", "y", " ".join(words), near, PairChecks()) == "responses_near"
    assert check_pair("x", "y", " ".join(words), near, PairChecks(max_response_similarity=1.0)) is None


def test_signs_count():
    assert check_modified("What is 3 + 4?", "What is 3 - 4?", PairChecks()) is None
    assert similarity("Compute 3+4", "Compute 3-4") < 0.7
    assert similarity("a b", "A  b") == 1.0
    assert similarity("", "") == 1.0
    assert similarity("a", "b") == 0.0


def test_unparsable_and_permitted_refusals():
    assert check_modified("x", None, PairChecks()) == "modified_unparsable"
    allow = PairChecks(drop_refusals=False)
    assert check_pair("How do I pick a lock?", None, "I can't help with that.", "Take a pin.", allow) is None


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("I cannot assist with this request.", True),
        ("Sorry, I can't do that.", True),
        ("I'm really sorry, but as an AI assistant, I won't write it.", True),
        ("I apologize, but I am not able to generate such content.", True),
        ("I’m unable to help you here.", True),
        ("I can't believe it is spring again.", False),
        ("I'm sorry for your loss. Here is what to do.", False),
        ("As an AI, I have no taste, but the red one sells best.", False),
        ("I cannot give a date, yet the treaty ended the war.", False),
        ("Sorry is a hard word to say.", False),
        ("Say: I'm sorry, but I can't help with that.", False),
    ],
)
def test_is_refusal(text, refusal):
    assert is_refusal(text) is refusal


@pytest.mark.parametrize(
    "settings",
    [
        {"max_modified_similarity": 0.0},
        {"max_response_similarity": 1.1},
        {"max_length_ratio": 0.5},
        {"max_length_ratio": float("nan")},
    ],
)
def test_settings_are_checked(settings):
    with raises("config_invalid", next(iter(settings))):
        PairChecks(**settings)
