import collections

import pytest

from ste_jax.pairs.audit import audit
from ste_jax.pairs.candidate import Answered
from ste_jax.pairs.crossed import crossed, random_crossed
from ste_jax.pairs.matching import heaviest_matching, neighbour_matches, random_matches, random_pairs
from ste_jax.pairs.overlap import crossing_reason, overlap
from ste_jax.pairs.usable import flaw
from tests.pairs.answered import TEXTS, answered, by_key, check_kind


def a(id_: str, instruction: str, answer: str) -> Answered:
    return Answered(id=id_, instruction=instruction, answer=answer)


def test_similar_instructions_are_crossed_both_ways() -> None:
    found = by_key(crossed(answered(), seed=0))
    for left, right in (("wall", "fence"), ("bread", "cake")):
        assert (found[left].better, found[left].worse) == (TEXTS[left][1], TEXTS[right][1])
        assert (found[right].better, found[right].worse) == (TEXTS[right][1], TEXTS[left][1])
        assert found[left].instruction == TEXTS[left][0]
        assert found[left].sources == (left, right)


@pytest.mark.parametrize("kind", [crossed, random_crossed])
def test_every_response_wins_once_and_loses_once(kind) -> None:
    check_kind(kind)
    for seed in range(10):
        candidates = kind(answered(), seed=seed)
        wins = collections.Counter(c.better for c in candidates)
        assert wins == collections.Counter(c.worse for c in candidates)
        assert set(wins.values()) == {1}
        numbers = audit(candidates)
        assert (numbers.balanced, numbers.better_longer, numbers.hubs) == (1.0, 0.5, 0)


def test_one_more_instruction_changes_few_random_matches() -> None:
    names = [f"n{i}" for i in range(400)]
    before = set(random_pairs(names, seed=3, kind="k"))
    assert len(before) == 200
    changed = [len(before - set(random_pairs([*names, f"new{i}"], seed=3, kind="k"))) for i in range(20)]
    assert max(changed) < 15
    assert set(random_pairs(names, seed=4, kind="k")) != before
    assert set(random_pairs(reversed(names), seed=3, kind="k")) == before


@pytest.mark.parametrize(
    ("edges", "matching"),
    [
        ([], []),
        ([(0.5, 0, 1)], [(0, 1)]),
        ([(0.5, 0, 1), (0.6, 1, 2)], [(1, 2)]),
        # Two edges to free ends are heavier than the heaviest one between them.
        ([(0.4, 0, 1), (0.6, 1, 2), (0.4, 2, 3)], [(0, 1), (2, 3)]),
        # Both would take the same end: the second best of one side is used.
        ([(0.6, 1, 2), (0.5, 1, 4), (0.5, 2, 4), (0.3, 2, 5)], [(1, 4), (2, 5)]),
        ([(0.9, 1, 2), (0.5, 1, 4), (0.5, 2, 4)], [(1, 2)]),
    ],
)
def test_heaviest_matching(edges, matching) -> None:
    assert heaviest_matching(edges) == heaviest_matching(edges[::-1]) == matching


@pytest.mark.parametrize(
    ("left", "right", "reason"),
    [
        (
            ("Tell me a joke", "Two cats walk into a bar."),
            ("Tell me a joke about cats", "Dogs bark."),
            "instructions_near",
        ),
        (
            ("Name European capitals", "Rome, Bern"),
            ("Name the European capitals!", "Paris"),
            "instructions_near",
        ),
        (
            ("What are penguins?", "A bird."),
            ("How do birds fly?", "Penguins swim, others flap."),
            "answer_fits_both",
        ),
        (
            ("What is iron?", "A hard grey metal of the earth"),
            ("Explain copper", "A hard red metal of the earth"),
            "answers_near",
        ),
        (("What is iron?", "A grey metal"), ("Who was Kant?", "A thinker of Prussia"), None),
        (("What should I do?", "Sleep."), ("Who was Kant?", "A thinker"), "instructions_near"),
    ],
)
def test_overlap(left, right, reason) -> None:
    x, y = a("x", *left), a("y", *right)
    assert overlap(x, y) == overlap(y, x) == reason


def test_answers_that_miss_their_instruction_are_not_crossed() -> None:
    kant = a("k", "Who was Kant?", "Immanuel Kant was a thinker of Prussia.")
    iron = a("i", "What is iron?", "Iron is a grey metal.")
    missed = a("m", "Who invented the telephone?", "I like to help you with that in many ways.")
    assert crossing_reason(kant, iron) is None
    assert crossing_reason(kant, missed) == crossing_reason(missed, kant) == "fit_undecided"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (TEXTS["tides"][1], None),
        ("Because of the moon.", "answer_short"),
        ("", "answer_short"),
        ("The moon pulls the water of the sea towards it\ufffd", "answer_broken"),
        ("The moon pulls the sea. The sun helps it. The moon pulls the sea.", "answer_repetitive"),
        ("again and again and again and again and again and again", "answer_repetitive"),
        ("Why does the sea have tides? It has them because of the moon.", "answer_echo"),
        ("I'm sorry, but I can't help with that question about the sea today.", "answer_refusal"),
    ],
)
def test_flaws_of_answers(answer, reason) -> None:
    assert flaw(a("t", TEXTS["tides"][0], answer)) == reason


def test_what_is_left_out_is_counted() -> None:
    texts = [
        *answered("wall", "fence"),
        a("short", "How do I paint a door?", "With a brush."),
        a("open", "Tell me something", TEXTS["fox"][1]),
        a("copy", TEXTS["wall"][0], TEXTS["wall"][1]),
    ]
    found = neighbour_matches(texts)
    assert [[one.id for one in pair] for pair in found.pairs] in ([["fence", "wall"]], [["copy", "fence"]])
    assert found.left_out == {
        "answer_short": 1,
        "instruction_open": 1,
        "instructions_near": 1,
        "unmatched": 1,
    }
    # Several kinds are made from the same answers.
    assert neighbour_matches(list(texts)) is found
    assert neighbour_matches(texts[:-1]) == neighbour_matches(texts[:-1]) != found
    alone = random_matches([texts[0], texts[4]], seed=0, kind="k")
    assert (alone.pairs, alone.left_out) == ([], {"instructions_near": 1, "unmatched": 2})
