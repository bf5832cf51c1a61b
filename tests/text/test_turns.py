import pytest
from errors import raises

from ste_jax.text.turns import flatten_turns


def _turn(role, content):
    return {"role": role, "content": content}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is ", "as it is "),
        ("", ""),
        ([_turn("user", "Hello")], "Hello"),
        ([_turn("assistant", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])], "ab"),
        (
            [_turn("user", "Hi"), _turn("assistant", "Ho"), _turn("user", "Hm")],
            "User:\nHi\n\nAssistant:\nHo\n\nUser:\nHm",
        ),
    ],
)
def test_one_rule_for_texts_and_conversations(value, text):
    assert flatten_turns(value, "instruction") == text


@pytest.mark.parametrize(
    "value",
    [None, 3, [], [3], [{"content": "x"}], [_turn("user", None)], [_turn("user", [{"type": "image"}])]],
)
def test_anything_but_text_is_refused(value):
    with raises("data_invalid", "row 7"):
        flatten_turns(value, "row 7")
