import collections

import pytest

from ste_jax.pairs.audit import audit
from ste_jax.pairs.candidate import Answered
from ste_jax.pairs.cut_off import cut_off
from ste_jax.pairs.padded import padded
from ste_jax.pairs.wording import beginning, is_complete, sentences
from tests.pairs.answered import TEXTS, answered, by_key, check_kind


def many(count: int) -> list[Answered]:
    texts = list(TEXTS.values())
    return [
        Answered(id=f"{i}", instruction=texts[i % len(texts)][0], answer=texts[i % len(texts)][1])
        for i in range(count)
    ]


def test_one_to_one_the_length_says_nothing() -> None:
    unusable = Answered(id="u", instruction="Why?", answer="Because.")
    for seed in range(10):
        longer, shorter = (kind([*answered(), unusable], seed=seed) for kind in (padded, cut_off))
        assert set(by_key(longer)) == set(by_key(shorter)) == set(TEXTS)
        assert audit(longer).better_longer == 0
        assert audit(shorter).better_longer == 1
        assert audit([*longer, *shorter]).better_longer == 0.5


def test_padded_keeps_the_answer_and_adds_nothing_of_use() -> None:
    for candidate in check_kind(padded):
        question, answer = TEXTS[candidate.sources[0]]
        assert (candidate.instruction, candidate.better) == (question, answer)
        assert candidate.worse.startswith(f"{answer}\n\n")
        tail = candidate.worse.removeprefix(f"{answer}\n\n")
        if candidate.details["variant"] == "question":
            assert tail == question
        elif candidate.details["variant"] == "repeated":
            assert all(tail[start:end] in answer for start, end in sentences(tail))
        else:
            assert TEXTS[candidate.sources[1]][1].startswith(tail)


def test_shares_of_the_variants() -> None:
    ends = collections.Counter(c.details["variant"] for c in padded(many(1500), seed=0))
    assert all(400 < ends[variant] < 600 for variant in ("off_topic", "question", "repeated"))
    cuts = collections.Counter(c.details["variant"] for c in cut_off(many(2000), seed=0))
    assert cuts["cut"] > 1740
    assert all(60 < cuts[variant] < 140 for variant in ("bare", "opener"))


def test_an_answer_without_others_and_with_a_long_question_is_repeated() -> None:
    alone = Answered(id="a", instruction="Why is that so? " * 40 + "tides", answer=TEXTS["tides"][1])
    for seed in range(10):
        (candidate,) = padded([alone], seed=seed)
        assert candidate.details["variant"] == "repeated"


def test_cut_off_is_a_beginning_within_a_sentence() -> None:
    for candidate in check_kind(cut_off):
        answer = TEXTS[candidate.key][1]
        assert candidate.better == answer
        share = len(candidate.worse.split()) / len(answer.split())
        if candidate.details["variant"] == "opener":
            continue
        assert answer.startswith(candidate.worse)
        if len(candidate.worse.split()) > 1:
            assert not is_complete(candidate.worse)
            assert share <= (0.6 if candidate.details["variant"] == "cut" else 0.05)


def test_an_answer_that_is_an_opener_never_meets_itself() -> None:
    opener = "Let me think about this step by step."
    for i in range(300):
        (candidate,) = cut_off([Answered(id=f"{i}", instruction="Why tides?", answer=opener)], seed=0)
        assert candidate.worse != opener


@pytest.mark.parametrize(
    ("share", "start"),
    [
        (0.0, "One"),
        (0.3, "One two three"),
        (0.4, "One two three"),
        (0.5, "One two three"),
        (0.6, "One two three. Five"),
    ],
)
def test_beginning(share, start) -> None:
    text = "One two three four. Five six seven eight nine ten"
    expected = {0.4: "One two three", 0.5: "One two three four. Five", 0.6: "One two three four. Five six"}
    assert beginning(text, share) == expected.get(share, start)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("One. Two! Three", ["One.", "Two!", "Three"]),
        ("1. Open it.\n2. Close it.", ["1. Open it.", "2. Close it."]),
        ("Use e.g. soda. Dr. Who came at 3.5 o'clock.", ["Use e.g. soda.", "Dr. Who came at 3.5 o'clock."]),
        ('He said "Go." Then he went.', ['He said "Go."', "Then he went."]),
        ("Title\n\n  **Bold.** Text", ["Title", "**Bold.**", "Text"]),
    ],
)
def test_sentences(text, pieces) -> None:
    assert [text[start:end] for start, end in sentences(text)] == pieces
