import io
import sys

import pytest

from ste_jax import progress
from ste_jax.progress import Progress


class Stream(io.StringIO):
    """Replaces stderr; a terminal or not."""

    def __init__(self, terminal: bool):
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def printed(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, disable: bool = False) -> str:
    """Returns the output of 50 steps of 10 tokens."""
    stream = Stream(terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress("annotate 1", 50, disable=disable) as bar:
        for _ in range(50):
            bar.advance(tokens=10)
            bar.advance(records=1)
    assert bar.tokens == 500
    return stream.getvalue()


def test_a_log_gets_few_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(monkeypatch, terminal=False)
    assert "\r" not in text
    lines = text.splitlines()
    assert 1 <= len(lines) <= 3
    assert "50/50" in lines[-1]
    assert "tok/s" in lines[-1]


def test_a_log_gets_a_line_every_so_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LOG_SECONDS", 0.0)
    assert len(printed(monkeypatch, terminal=False).splitlines()) >= 50


def test_a_terminal_gets_one_line_that_is_redrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(monkeypatch, terminal=True)
    assert text.count("\n") == 1
    assert "50/50" in text.split("\r")[-1]


def test_nothing_is_printed_if_it_is_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert printed(monkeypatch, terminal=False, disable=True) == ""
