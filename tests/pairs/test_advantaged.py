from ste_jax.pairs.advantaged import advantaged
from ste_jax.pairs.candidate import Answered
from ste_jax.pairs.handicapped import handicapped
from tests.pairs.answered import TEXTS, answered, check_kind

ANSWER = {id_: answer for id_, (_, answer) in TEXTS.items()}


def test_a_whole_answer_meets_the_beginning_of_a_misfit() -> None:
    for candidate in check_kind(advantaged):
        judged, other = candidate.sources
        assert candidate.instruction == TEXTS[judged][0]
        assert candidate.better == ANSWER[judged]
        assert ANSWER[other].startswith(candidate.worse)
        assert candidate.worse.endswith(".")
        assert 1.5 <= len(candidate.better) / len(candidate.worse) <= 4


def test_it_is_the_mirror_image_of_handicapped() -> None:
    long, short = (kind(answered(), seed=0) for kind in (advantaged, handicapped))
    assert {frozenset(c.sources[:2]) for c in long} & {frozenset(c.sources[:2]) for c in short}
    assert all(len(c.better) > len(c.worse) for c in long)
    assert all(len(c.better) < len(c.worse) for c in short)


def test_answers_without_a_short_whole_beginning_are_no_misfit() -> None:
    fence = Answered(
        id="fence", instruction=TEXTS["fence"][0], answer="Paint the garden fence in winter now " * 3
    )
    assert "wall" not in {c.key for c in advantaged([*answered("wall"), fence], seed=0)}
