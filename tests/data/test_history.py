"""Columns of earlier turns, which belong to the prompt, and columns that do not."""

import pytest

from ste_jax.data.comparisons import read_comparisons, read_rankings, read_scorings
from ste_jax.data.sources import read_instructions
from tests.data.pair_files import HH, PAIR, lines, read
from tests.errors import raises


@pytest.mark.parametrize("column", ["history", "chat_history", "conversation_history", "dialogue_history"])
@pytest.mark.parametrize(
    "history",
    [
        [["Hi", "Hello."]],
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}],
        '[["Hi", "Hello."]]',
        "[('Hi', 'Hello.')]",
        "[{'from': 'human', 'value': 'Hi'}, {'from': 'gpt', 'value': 'Hello.'}]",
        "User: Hi\nAssistant: Hello.",
    ],
)
def test_earlier_turns_are_joined_by_all_readers(tmp_path, column, history):
    row = {column: history, "instruction": "Q?", "system": "Be kind.", "response": "r", "responses": ["r"]}
    path = lines(tmp_path / "h.jsonl", PAIR | row)
    expected = "System:\nBe kind.\n\nUser:\nHi\n\nAssistant:\nHello.\n\nUser:\nQ?"
    (one,) = read_instructions(path)
    assert one.text == expected
    for (record,) in (read_comparisons(path, labels="required"), read_rankings(path), read_scorings(path)):
        assert record.instruction == expected
    (pair,) = read(tmp_path, {column: history, "chosen": f"{HH} yes", "rejected": f"{HH} no"})
    assert pair.instruction == "User:\nHi\n\nAssistant:\nHello.\n\nUser:\nQ?"


@pytest.mark.parametrize("history", ["", "[]", [], None])
def test_no_earlier_turns(tmp_path, history):
    (pair,) = read(tmp_path, PAIR | {"history": history})
    assert (pair.instruction, pair.metadata) == ("Q?", {})


@pytest.mark.parametrize(
    "history", ["We said hello.", 3, True, ["Hi", "Hello."], {"user": "Hi"}, [["a"], ["b", 1]]]
)
def test_earlier_turns_that_are_none_are_refused(tmp_path, history):
    with raises("data_invalid", "p.jsonl, line 2", "history"):
        read(tmp_path, PAIR, PAIR | {"history": history})


def test_columns_of_pairs_that_are_passed_through_are_logged_once(tmp_path, caplog):
    with caplog.at_level("INFO", "ste_jax"):
        read(tmp_path, *({**PAIR, "instruction": f"{i}", "passage": "p", "system": "s"} for i in range(3)))
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.endswith("p.jsonl: columns that are passed through to results: passage")
