"""Texts of repeated marks, which must not take time that grows with the square of their length."""

import pytest

from ste_jax.pairs import reading, wording
from ste_jax.pairs.word_predicates import _AFTER_MARK
from tests.cpu_limit import cpu_limit

LONG = 60_000


@pytest.mark.parametrize("atom", [".", "!?", ". ", ".*", "\n", "\n\n ", "a.", '."', "1", "1 ", "a", "( "])
def test_no_text_takes_time_that_grows_with_its_square(atom):
    text = "So " + atom * (LONG // len(atom)) + "\x01"
    with cpu_limit(5):
        reading.complete_sentences(text)
        reading.sentence_count(text)
        wording.sentences(text)
        _AFTER_MARK.findall(text)


def test_sentences_end_after_a_run_of_marks():
    text = 'Wait... What?! He said "no." And (this is it.) Then more.'
    parts = ["Wait...", "What?!", 'He said "no."', "And (this is it.)", "Then more."]
    assert [text[start:end] for start, end in wording.sentences(text)] == parts


def test_words_after_marks_and_breaks_may_begin_sentences():
    text = "One, two\n \n\t three; four 5 six.\n\nseven"
    assert _AFTER_MARK.findall(text) == ["One", "three", "four", "six", "seven"]
