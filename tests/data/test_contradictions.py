"""Columns that repeat each other: what agrees is read once, what does not is refused."""

import pytest

from tests.data.pair_files import BAD, GOOD, HH, PAIR, USER, read, without
from tests.errors import raises

LAST = "\n\nHuman: Q?\n\nAssistant:"


@pytest.mark.parametrize("prompt", [HH, HH.strip(), "Q?", f"{HH} ", "", None])
@pytest.mark.parametrize("names", [("chosen", "rejected"), ("response_a", "response_b")])
@pytest.mark.parametrize("lead", ["\n\n", ""])
def test_transcripts_with_a_prompt_are_parted_too(tmp_path, prompt, names, lead):
    sides = (f"{lead}{HH.strip()} yes", f"{lead}{HH.strip()} no")
    row = {"prompt": prompt, **dict(zip(names, sides, strict=True))}
    (pair,) = read(tmp_path, row if names[0] == "chosen" else row | {"label": "A"})
    assert pair.instruction == "User:\nHi\n\nAssistant:\nHello.\n\nUser:\nQ?"
    assert (pair.chosen, pair.rejected) == ("yes", "no")


def test_a_transcript_as_prompt_of_plain_responses_is_read_as_turns(tmp_path):
    for prompt, instruction in ((HH, "User:\nHi\n\nAssistant:\nHello.\n\nUser:\nQ?"), (LAST, "Q?")):
        (pair,) = read(tmp_path, {"prompt": prompt, "chosen": "\n\nAssistant: yes", "rejected": "Human: no"})
        assert (pair.instruction, pair.chosen, pair.rejected) == (instruction, "yes", "Human: no")


OTHER = [{"role": "user", "content": "Another?"}]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Another?", "chosen": f"{HH} yes", "rejected": f"{HH} no"},
        {"prompt": "\n\nHuman: Another?\n\nAssistant:", "chosen": f"{HH} yes", "rejected": f"{HH} no"},
        {"prompt": "Q?", "chosen": f"{HH} yes", "rejected": "no"},
        {
            "instruction": "Another?",
            "conversation_a": [USER, GOOD],
            "conversation_b": [USER, BAD],
            "winner": "A",
        },
        {"prompt": OTHER, "conversation_a": [USER, GOOD], "conversation_b": [USER, BAD], "winner": "A"},
        {"question": "Another?", "response_1": [USER, GOOD], "response_2": [USER, BAD], "label": 1},
        {"prompt": "Another?", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    ],
)
def test_a_prompt_that_is_not_what_the_conversations_begin_with_is_refused(tmp_path, row):
    with raises("data_invalid", "p.jsonl, line 1"):
        read(tmp_path, row)


def test_the_prompt_may_repeat_what_the_conversations_begin_with(tmp_path):
    row = {"instruction": "Q?", "conversation_a": [USER, GOOD], "conversation_b": [USER, BAD], "winner": "A"}
    (pair,) = read(tmp_path, row)
    assert (pair.instruction, pair.response_a, pair.metadata) == ("Q?", "yes", {"winner": "A"})


@pytest.mark.parametrize(
    ("near", "known"),
    [("Label", "label"), ("LABEL ", "label"), ("Response_A", "response_a"), ("Input", "input")],
)
def test_a_column_and_one_that_is_almost_its_name_are_refused(tmp_path, near, known):
    with raises("data_invalid", "p.jsonl, line 1", repr(near), repr(known)):
        read(tmp_path, PAIR | {"input": "x", near: "y"})


def test_a_header_that_hides_a_column_is_shown(tmp_path):
    with raises("data_invalid", "p.jsonl, line 1", "'pro\\x1b[31mmpt'"):
        read(tmp_path, {"pro\x1b[31mmpt": "Q?", "chosen": "yes", "rejected": "no"})


# ---- several labels -----------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "places"),
    [
        ({"label": "A", "winner": "B"}, ["label", "winner"]),
        ({"label": "tie", "winner": "model_a"}, ["label", "winner"]),
        ({"winner": "A", "overall_preference": 2}, ["winner", "overall_preference"]),
        ({"overall_preference": -1, "preference_strength": 1}, ["overall_preference", "preference_strength"]),
        ({"label": "A", "winner_model_a": 0, "winner_model_b": 1}, ["label", "winner_model_a"]),
        ({"label": "A", "annotator1": 2, "annotator2": 2, "annotator3": 1}, ["label", "annotator1"]),
        ({"label": "B", "annotator_1": "0", "annotator_2": 0}, ["label", "annotator_1"]),
        ({"winner": "model_b", "annotator1": 1}, ["winner", "annotator1"]),
        ({"label": "A", "winner_model_a": 1, "winner_model_b": 1}, ["winner_model_a"]),
        ({"label": "A", "winner_model_a": 0, "winner_tie": 0}, ["winner_model_a"]),
        ({"label": "A", "overall_preference": "strong"}, ["overall_preference"]),
        ({"label": "A", "winner": 0}, ["winner", "'0'"]),
        ({"label": "A", "winner": True}, ["winner", "bool"]),
        ({"label": "A", "winner": "Response B"}, ["winner", "'Response B'"]),
        ({"label": "A", "winner": "the second"}, ["winner", "'the second'"]),
        ({"label": "A", "winner": "m2", "model_a": "m1", "model_b": "m2"}, ["label", "winner"]),
        ({"label": "A", "chosen": "no", "rejected": "yes"}, ["label", "chosen"]),
        ({"overall_preference": 2, "rejected": "no"}, ["overall_preference", "rejected"]),
        ({"label": None, "winner": "A", "winner_model_b": 1, "winner_tie": 0}, ["winner", "winner_model_b"]),
    ],
)
def test_labels_that_contradict_each_other_are_refused(tmp_path, change, places):
    with raises("data_invalid", "p.jsonl, line 2", *places):
        read(tmp_path, PAIR | {"id": "x"}, without(PAIR, "label") | change)


@pytest.mark.parametrize(
    "column",
    [
        "label",
        "winner",
        "winner_model_a",
        "overall_preference",
        "preference_strength",
        "annotator1",
        "annotator_2",
    ],
)
def test_a_label_of_a_chosen_response_is_refused(tmp_path, column):
    with raises("data_invalid", "p.jsonl, line 1", column):
        read(tmp_path, {"prompt": "Q?", "chosen": "yes", "rejected": "no", column: 1})


def test_the_first_label_that_is_there_counts(tmp_path):
    rows = [
        {"label": None, "winner": "B"},
        {"label": "B", "winner": None},
        {"label": "", "winner": "", "overall_preference": 1},
        {"label": "B", "winner": "gpt-4"},
        {"winner": "model_b", "winner_model_a": 0, "winner_model_b": 1},
        {"winner": "gpt-4-turbo", "overall_preference": 1},
        {"winner": "llama-2-7b", "model_a": "yi-34b", "model_b": "llama-2-7b"},
        {"label": "B", "annotator1": 1, "annotator2": 2},
        {"label": "B", "annotator_1": "w17"},
        {"label": "B", "annotator1": 2, "annotator2": 2, "annotator3": None},
        {"label": "B", "chosen": "no", "rejected": "yes"},
        {"label": "B", "chosen": "another text"},
    ]
    bare = without(PAIR, "label")
    pairs = read(tmp_path, *(bare | {"instruction": f"{i}"} | row for i, row in enumerate(rows)))
    assert [pair.label for pair in pairs] == ["B"] * len(rows)


def test_the_name_of_a_model_alone_is_no_label(tmp_path):
    with raises("data_invalid", "p.jsonl, line 1", "winner", "'gpt-4'"):
        read(tmp_path, without(PAIR, "label") | {"winner": "gpt-4", "overall_preference": None})


@pytest.mark.parametrize("blank", [{"overall_preference": None}, {"annotator1": "w3"}, {"winner": ""}])
def test_columns_that_are_no_labels_do_not_contradict_a_choice(tmp_path, blank):
    assert read(tmp_path, {"prompt": "Q?", "chosen": "yes", "rejected": "no"} | blank)[0].chosen == "yes"


def test_columns_of_almost_one_name_are_refused(tmp_path):
    with raises("data_invalid", "p.jsonl, line 1", "'response_a'", "'response_A'"):
        read(tmp_path, PAIR | {"response_A": "other"})
    with raises("data_invalid", "p.jsonl, line 1", "'response_A' is not 'response_a'"):
        read(tmp_path, without(PAIR, "response_a") | {"response_A": "yes"})
