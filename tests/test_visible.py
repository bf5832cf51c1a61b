"""Text of files on a terminal: no control or format character of it reaches the screen."""

import pytest

from ste_jax.visible import visible, visible_cell, visible_message

HOSTILE = {
    "\x1b[2J": r"\x1b[2J",
    "\x9b31m": r"\x9b31m",
    "\x1b]52;c;ZXZpbA==\x07": r"\x1b]52;c;ZXZpbA==\x07",
    "a\u202eb\u2066c\u200f": r"a\u202eb\u2066c\u200f",
    "a\u200bb\ufeff\u2060": r"a\u200bb\ufeff\u2060",
    "\U000e0041": r"\U000e0041",
    "one\rtwo\x7f\x00": r"one\rtwo\x7f\x00",
    "\u2028\u2029\x85": r"\u2028\u2029\x85",
    "\udcff": r"\udcff",
}


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items())
def test_hidden_characters_are_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible_message(text) == shown
    assert visible_cell(text).isprintable()


@pytest.mark.parametrize("text", ["plain", "Grüße, 中文 עברית 🙂", "a\u00a0b\u3000c", "tab\tand\nline"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_no_line_of_a_message_looks_like_one_of_ours() -> None:
    shown = visible_message("x.csv: columns a\nste: written\n  indented")
    assert shown.splitlines() == ["x.csv: columns a", "  ste: written", "  indented"]


def test_a_message_has_a_limited_length() -> None:
    assert len(visible_message("x" * 10**6)) < 5000
