import pytest

from ste_jax.pairs.candidate import Answered
from ste_jax.pairs.handicapped import handicapped
from tests.pairs.answered import TEXTS, answered, check_kind

ANSWER = {id_: answer for id_, (_, answer) in TEXTS.items()}


def test_a_whole_beginning_meets_a_longer_misfit() -> None:
    thirds = 0
    for candidate in check_kind(handicapped):
        judged, other, *third = candidate.sources
        assert candidate.instruction == TEXTS[judged][0]
        assert ANSWER[judged].startswith(candidate.better)
        assert candidate.better.endswith(".")
        assert candidate.worse == "\n\n".join(ANSWER[id_] for id_ in (other, *third))
        assert 1.5 <= len(candidate.worse) / len(candidate.better) <= 4
        thirds += len(third)
    assert thirds


def test_the_beginning_must_name_its_subject() -> None:
    lead = "There is a lot that one could say about that. "
    vague = Answered(id="wall", instruction=TEXTS["wall"][0], answer=lead + ANSWER["wall"])
    others = answered("fence", "rivers", "fox")
    found = {c.key: c.better for s in range(20) for c in handicapped([*others, vague], seed=s)}
    assert "wall" in found
    assert found["wall"].startswith(lead)
    assert "scraper" in found["wall"]


@pytest.mark.parametrize(
    "answer", ["```\nThe fence. Paint. The garden fence.\n```", "Paint the garden fence now " * 3]
)
def test_code_and_texts_without_a_whole_sentence_are_left_out(answer) -> None:
    fence = Answered(id="fence", instruction=TEXTS["fence"][0], answer=answer)
    assert "fence" not in {c.key for c in handicapped([*answered("wall"), fence], seed=0)}
