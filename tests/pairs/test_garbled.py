import collections

import numpy as np
import pytest

from ste_jax.pairs.damage import dropped_and_doubled, out_of_order, swapped_clause, swapped_noun
from ste_jax.pairs.garbled import garbled
from tests.pairs.answered import TEXTS, answered, check_kind

ROUNDS = [np.random.default_rng(i) for i in range(20)]


def test_the_lengths_hardly_differ() -> None:
    variants = collections.Counter()
    for candidate in check_kind(garbled):
        assert abs(len(candidate.worse) - len(candidate.better)) <= 0.05 * len(candidate.better)
        assert candidate.better == TEXTS[candidate.key][1]
        variants[candidate.details["variant"]] += 1
    assert set(variants) == {"order", "noun", "clause", "words"}


def test_steps_move_with_their_numbers() -> None:
    text = "Do this:\n1. Open it.\n2. Fill it.\n3. Close it.\nDone."
    for random in ROUNDS:
        lines = out_of_order(text, random).split("\n")
        assert (lines[0], lines[-1]) == ("Do this:", "Done.")
        assert sorted(lines) == sorted(text.split("\n"))
        assert all(moved != line for moved, line in zip(lines[1:4], text.split("\n")[1:4], strict=True))


def test_sentences_move_in_running_text() -> None:
    for random in ROUNDS:
        moved = out_of_order("One ran. Two ran. Three ran.\n\nFour ran. The last one", random)
        pieces = moved.replace("\n\n", " ").removesuffix(" The last one").split(". ")
        assert len(pieces) == 4
        assert not pieces[0].startswith("One")
        assert "\n\n" in moved


@pytest.mark.parametrize(
    "text",
    [
        "One ran. Two ran. Three ran.",
        "1. Tea.\n2. Milk.",
        "* One ran.\n* Two ran.\n* Three ran.\n* Four ran.",
        "Roses\nViolets\nSugar\nYou",
        "```\nOne ran. Two ran. Three ran. Four ran.\n```",
        "",
    ],
)
def test_texts_without_a_right_order(text) -> None:
    assert out_of_order(text, ROUNDS[0]) is None


def test_words_are_dropped_and_doubled() -> None:
    text = TEXTS["tides"][1]
    for random in ROUNDS:
        damaged = dropped_and_doubled(text, random)
        pairs = zip(damaged.split(), damaged.split()[1:], strict=False)
        assert sum(left == right for left, right in pairs) >= 2
        assert collections.Counter(text.split()) - collections.Counter(damaged.split())
    assert dropped_and_doubled("two words", ROUNDS[0]) is None


def test_a_foreign_clause_takes_the_place_of_one_of_like_length() -> None:
    (tides,) = answered("tides")
    donors = answered("bread", "lakes", "contract")
    for random in ROUNDS:
        damaged, (source,) = swapped_clause(tides, donors, random)
        start = next(i for i, (a, b) in enumerate(zip(damaged, tides.answer, strict=False)) if a != b)
        assert damaged[start + 1 : start + 12] in TEXTS[source][1]
    assert swapped_clause(tides, [tides], ROUNDS[0]) is None
    assert swapped_clause(tides, [], ROUNDS[0]) is None


def test_a_noun_of_the_instruction_is_exchanged_throughout() -> None:
    wall, waves, fox = answered("wall", "waves", "fox")
    found = {swapped_noun(waves, [wall, fox], random) for random in ROUNDS}
    assert found
    for damaged, _ in found - {None}:
        changed = [
            (a, b)
            for a, b in zip(waves.answer.split(), damaged.split(), strict=True)
            if a.strip(".") != b.strip(".")
        ]
        assert {a.strip(".,").lower() for a, _ in changed} in ({"beach"}, {"waves"})
        assert len({b.strip(".,").lower() for _, b in changed}) == 1
    assert swapped_noun(fox, [], ROUNDS[0]) is None
