import collections

from ste_jax.pairs.candidate import Answered
from ste_jax.pairs.neutral import neutral
from tests.pairs.answered import TEXTS, answered, check_kind


def test_neither_response_answers_the_instruction() -> None:
    for candidate in check_kind(neutral):
        judged, first, second = candidate.sources
        assert candidate.is_tie
        assert candidate.instruction == TEXTS[judged][0]
        assert (candidate.better, candidate.worse) == (TEXTS[first][1], TEXTS[second][1])


def test_each_response_is_as_often_first_as_second() -> None:
    for seed in range(10):
        candidates = neutral(answered(), seed=seed)
        firsts = collections.Counter(c.better for c in candidates)
        assert firsts == collections.Counter(c.worse for c in candidates)
        assert set(firsts.values()) == {1}


def test_instructions_that_overlap_are_never_in_a_tie() -> None:
    copies = [Answered(id=f"copy-{a.id}", instruction=a.instruction, answer=a.answer) for a in answered()]
    for seed in range(10):
        for candidate in neutral([*answered(), *copies], seed=seed):
            own = TEXTS[candidate.sources[0].removeprefix("copy-")][1]
            assert own not in (candidate.better, candidate.worse)


def test_one_more_instruction_changes_few_ties() -> None:
    texts = list(TEXTS.values())
    many = [
        Answered(id=f"n{i}", instruction=f"{texts[i % 10][0]} v{i}x", answer=f"{texts[i % 10][1]} v{i}y")
        for i in range(200)
    ]
    before = neutral(many, seed=0)
    assert len(before) > 100
    for i in range(5):
        new = Answered(
            id=f"new{i}", instruction="Who was Kant?", answer="Kant was a thinker of Prussia who walked."
        )
        after = neutral([*many, new], seed=0)
        assert sum(candidate not in after for candidate in before) < 60


def test_equal_answers_are_not_in_one_tie() -> None:
    same = "A bird in the hand is worth two in the bush, say people."
    twins = [
        Answered(id=f"t{i}", instruction=f"Explain the saying number {i}", answer=same) for i in range(10)
    ]
    for seed in range(10):
        for candidate in neutral([*answered(), *twins], seed=seed):
            assert candidate.better != candidate.worse
