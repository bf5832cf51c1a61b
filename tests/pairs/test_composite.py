import collections

import numpy as np
import pytest

from ste_jax.pairs.audit import audit
from ste_jax.pairs.candidate import Answered, Candidate
from ste_jax.pairs.composite import composite
from ste_jax.pairs.phrasing import Phrasing, draw_phrasing
from tests.pairs.answered import TEXTS, answered, check_kind


def answers_in(response: str) -> set[str]:
    return {id_ for id_, (_, answer) in TEXTS.items() if answer in response}


def requested_in(candidate: Candidate) -> set[str]:
    return {id_ for id_, (question, _) in TEXTS.items() if question in candidate.instruction}


def test_the_better_response_answers_what_is_requested_and_the_worse_does_not() -> None:
    variants = collections.Counter()
    for candidate in check_kind(composite):
        requested, variant = requested_in(candidate), candidate.details["variant"]
        assert requested == answers_in(candidate.better)
        assert set(candidate.sources[: len(requested)]) == requested
        missing, further = requested - answers_in(candidate.worse), answers_in(candidate.worse) - requested
        expected = {
            "replaced": (1, 1),
            "replaced_back": (1, 1),
            "left_out": (1, 0),
            "surplus": (0, 1),
            "cut": (1, 0),
            "unrequested": (0, 1),
        }[variant]
        assert (len(missing), len(further)) == expected
        assert len(requested) == candidate.details["parts"]
        variants[variant] += 1
    assert len(variants) == 6
    assert variants["replaced"] == variants["replaced_back"]
    assert variants["left_out"] == variants["surplus"]
    assert variants["cut"] == variants["unrequested"]


def test_lengths_are_balanced() -> None:
    for seed in range(10):
        made = composite(answered(), seed=seed)
        assert audit(made).better_longer == 0.5
        matched = [c for c in made if c.details["variant"].startswith("replaced")]
        assert audit(matched).within_tenth == audit(matched).balanced == 1
        assert len(matched) >= 0.3 * len(made)


def test_long_responses_occur_and_all_numbers_of_parts() -> None:
    made = [candidate for seed in range(10) for candidate in composite(answered(), seed=seed)]
    assert {c.details["parts"] for c in made} == {1, 2, 3, 4, 5}
    assert sum(len(c.better) > 600 for c in made) > 0.1 * len(made)


def test_long_instructions_and_pairs_that_overlap_are_not_parts() -> None:
    long = Answered(id="long", instruction="Explain the tides of the sea. " * 20, answer=TEXTS["tides"][1])
    copies = [Answered(id=f"copy-{a.id}", instruction=a.instruction, answer=a.answer) for a in answered()]
    for candidate in composite([*answered(), *copies, long], seed=0):
        subjects = [source.removeprefix("copy-") for source in candidate.sources]
        assert len(set(subjects)) == len(subjects)
        assert "long" not in subjects


@pytest.mark.parametrize("seed", range(12))
def test_phrasing(seed) -> None:
    phrasing = draw_phrasing(np.random.default_rng(seed))
    assert phrasing.instructions(["Why?"]) == "Why?"
    assert phrasing.responses(["Because."]) == "Because."
    texts = [f"text {letter}" for letter in "abcde"]
    for joined in (phrasing.instructions(texts), phrasing.responses([*texts, "text f"])):
        at = [joined.index(text) for text in texts]
        assert at == sorted(at)
        assert "{" not in joined


def test_a_phrasing_by_hand() -> None:
    phrasing = Phrasing("Do {count}:\n", ("- ",) * 5, "\n", ("1) ", "2) ", "3) ", "4) ", "5) "))
    assert phrasing.instructions(["a", "b {count}"]) == "Do two:\n- a\n- b {count}"
    assert phrasing.responses(["a", "b"]) == "1) a\n\n2) b"
