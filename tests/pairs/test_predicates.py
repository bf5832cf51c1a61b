import re
from pathlib import Path

import numpy as np
import pytest

from ste_jax.pairs import topics
from ste_jax.pairs.predicate import Predicate, PredicateType
from ste_jax.pairs.predicates import HELD_OUT, TRAINED
from ste_jax.pairs.reading import normal
from tests.pairs.predicate_cases import CASES

ALL = TRAINED + HELD_OUT
BY_NAME = {type_.name: type_ for type_ in ALL}
DOCS = Path(__file__).parents[2] / "docs" / "PAIRS.md"


@pytest.mark.parametrize("type_", ALL, ids=lambda type_: type_.name)
def test_every_type_judges_examples(type_: PredicateType):
    values, met, failed, unclear = CASES[type_.name]
    assert len(met) >= 2
    assert len(failed) >= 2
    assert unclear
    expected = dict.fromkeys(met, True) | dict.fromkeys(failed, False) | dict.fromkeys(unclear)
    found = {text: Predicate(type_, values).holds(text) for text in expected}
    assert found == expected


@pytest.mark.parametrize("type_", ALL, ids=lambda type_: type_.name)
def test_nothing_is_clear_without_a_word(type_: PredicateType):
    for text in ("", " \r\n\t", "...", "!?", "\u200b\ufeff", "- \n- ", "```\n```", "🙂"):
        assert Predicate(type_, CASES[type_.name][0]).holds(text) is None


@pytest.mark.parametrize("type_", ALL, ids=lambda type_: type_.name)
def test_line_breaks_and_invisible_characters_change_nothing(type_: PredicateType):
    values, met, failed, _ = CASES[type_.name]
    for text in met + failed:
        same = "\ufeff  " + text.replace("\r\n", "\n").replace("\n", "\r\n") + "\u200b\r\n"
        assert Predicate(type_, values).holds(same) is Predicate(type_, values).holds(text), repr(text)


@pytest.mark.parametrize("type_", ALL, ids=lambda type_: type_.name)
def test_values_are_read_off_the_texts(type_: PredicateType):
    _, met, failed, _ = CASES[type_.name]
    found = [
        type_.separating("Do it", one, other, np.random.default_rng(0)) for one in met for other in failed
    ]
    assert any(found)
    assert all(one is None or one.type is type_ for one in found)
    for text in met:
        assert type_.separating("Do it", text, text, np.random.default_rng(0)) is None
        assert type_.separating("Do it", text, "", np.random.default_rng(0)) is None


def test_there_are_enough_types_and_a_quarter_is_held_out():
    assert len(TRAINED) >= 30
    assert 2.5 <= len(TRAINED) / len(HELD_OUT) <= 3.5
    assert len(BY_NAME) == len(ALL) == len(CASES)


def test_no_held_out_type_is_the_opposite_of_a_trained_one():
    def subject(type_: PredicateType) -> str:
        return re.sub(r"^(?:no|has|says|contains|lacks|at_least|at_most)_", "", type_.name)

    assert not {subject(type_) for type_ in TRAINED} & {subject(type_) for type_ in HELD_OUT}


@pytest.mark.parametrize("type_", ALL, ids=lambda type_: type_.name)
def test_wordings_are_short_sentences_that_name_all_values(type_: PredicateType):
    values = CASES[type_.name][0]
    assert len(type_.wordings) >= 3
    assert len(set(type_.wordings)) == len(type_.wordings)
    for wording, sentence in zip(type_.wordings, Predicate(type_, values).wordings(), strict=True):
        assert sorted(set(re.findall(r"\{(\d)\}", wording))) == [str(i) for i in range(len(values))]
        assert all(str(value) in sentence for value in values)
        assert len(sentence.split()) <= 16
        assert sentence[0].isupper()
        assert sentence[-1] in ".:"


def test_no_two_types_share_a_wording():
    wordings = [(re.sub(r"\W", "", w.casefold()), type_.name) for type_ in ALL for w in type_.wordings]
    assert len(dict(wordings)) == len(wordings)


@pytest.mark.parametrize(
    ("name", "instruction"),
    [
        ("at_most_words", "Write an essay of 300 words on tea"),
        ("at_least_sentences", "Be brief: what is tea?"),
        ("no_list", "Give me a list of teas."),
        ("bulleted_list", "Answer in JSON: which teas are there"),
        ("no_code_block", "Write a Python script"),
        ("no_question_mark", "Write three quiz questions"),
        ("no_digits", "What is 3 plus 4"),
        ("language", "Translate this into French"),
        ("lower_case", "Write the title in capitals"),
        ("first_word", "Start your answer with the word Tea"),
        ("no_i", "Write a letter to my aunt"),
        ("no_quotation", "Quote a famous line"),
        ("no_contraction", "Write it in slang"),
    ],
)
def test_instructions_that_speak_of_the_form_get_no_requirement_on_it(name: str, instruction: str):
    assert BY_NAME[name].clashes(instruction)
    assert not BY_NAME[name].clashes("Tell me about the sea")


def test_a_word_of_the_instruction_is_not_forbidden():
    assert topics.mentioned("Explain what breads are", "bread")
    assert not topics.mentioned("Explain what tea is", "bread")
    rng = np.random.default_rng(0)
    lacks_word = BY_NAME["lacks_word"]
    assert lacks_word.separating("Who bakes bread?", "A man.", "Bread.", rng) is None
    assert lacks_word.separating("Who bakes?", "A man.", "Bread.", rng) == Predicate(lacks_word, ("Bread",))


def test_stop_words_are_no_content():
    rng = np.random.default_rng(0)
    assert BY_NAME["contains_word"].separating("Go", "There were those with them.", "No.", rng) is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("\ufeff a\u00a0b\u200b\t\u3000", "a b"),
        ("cafe\u0301", "café"),
        ("\ud800x", "x"),
        ("", ""),
    ],
)
def test_normal_texts(text: str, expected: str):
    assert normal(text) == expected
    assert normal(expected) == expected


def test_the_documentation_lists_all_types():
    rows = re.findall(r"^\| `(\w+)` \| (trained|held out) \| (.+) \|$", DOCS.read_text("utf-8"), re.M)
    types = [(type_, "trained") for type_ in TRAINED] + [(type_, "held out") for type_ in HELD_OUT]
    assert rows == [(type_.name, use, type_.wordings[0]) for type_, use in types]


@pytest.mark.parametrize(
    "piece", ["(ab ", '"ab ', "-", ". ", "a", "Mr. Li ", "1. ", "**a", "A\n\n", "''", "! ", " "]
)
def test_long_monotonous_texts_take_no_long_time(piece: str):
    # A check whose time grows with the square of the length would take minutes.
    text = "Start" + piece * 20_000 + "end"
    for type_ in ALL:
        assert Predicate(type_, CASES[type_.name][0]).holds(text) in (True, False, None)
        type_.separating("Go", text, "Other words.", np.random.default_rng(0))
