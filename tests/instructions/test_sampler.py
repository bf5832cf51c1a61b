import random

import pytest

from ste_jax.instructions.sampler import UNLABELLED, Quota, sample
from ste_jax.records import Instruction
from tests.errors import raises


def _pool(**counts: int) -> list[Instruction]:
    return [
        Instruction(
            id=f"{category}-{number:03d}",
            text=f"{category} {number}",
            source="test",
            category=None if category == UNLABELLED else category,
            complexity=None if category == UNLABELLED else 1 + number % 10,
        )
        for category, count in counts.items()
        for number in range(count)
    ]


def _taken(selection) -> dict[str, int]:
    return {quota.category: quota.taken for quota in selection.quotas}


def test_the_order_of_the_pool_does_not_matter_and_the_seed_does():
    pool = _pool(a=40, b=40, unlabelled=20)
    shuffled = random.Random(1).sample(pool, len(pool))
    chosen = sample(pool, 30, {}, seed=5, prefer_complex=False)
    assert sample(shuffled, 30, {}, seed=5, prefer_complex=False) == chosen
    assert sample(pool, 30, {}, seed=6, prefer_complex=False).instructions != chosen.instructions
    ids = [instruction.id for instruction in chosen.instructions]
    assert ids == sorted(ids)
    assert len(set(ids)) == 30


def test_weights_are_met_by_largest_remainder():
    selection = sample(_pool(a=50, b=50, c=50), 10, {"a": 1, "b": 1, "c": 1}, seed=0)
    assert _taken(selection) == {"a": 4, "b": 3, "c": 3}
    selection = sample(_pool(a=50, b=50, c=50), 10, {"a": 5.5, "b": 3.5, "c": 1.0}, seed=0)
    assert _taken(selection) == {"a": 6, "b": 3, "c": 1}


def test_a_shortfall_goes_to_the_others_by_weight():
    selection = sample(_pool(a=2, b=50, c=50), 20, {"a": 2, "b": 2, "c": 1}, seed=0)
    assert selection.quotas == (Quota("a", 8, 2, 2), Quota("b", 8, 50, 12), Quota("c", 4, 50, 6))
    assert selection.missing == 0


def test_a_shortfall_can_cascade():
    selection = sample(_pool(a=1, b=7, c=50), 30, {"a": 1, "b": 1, "c": 1, "absent": 1}, seed=0)
    assert _taken(selection) == {"a": 1, "absent": 0, "b": 7, "c": 22}
    assert {quota.category: quota.wanted for quota in selection.quotas} == {
        "a": 8,
        "absent": 8,
        "b": 7,
        "c": 7,
    }


def test_categories_without_a_quota_are_left_out():
    selection = sample(_pool(a=10, b=10, unlabelled=10), 8, {"a": 3, "unlabelled": 1, "b": 0}, seed=0)
    assert _taken(selection) == {"a": 6, "unlabelled": 2}
    assert {instruction.category for instruction in selection.instructions} == {"a", None}


def test_balanced_keeps_the_share_of_the_unlabelled():
    selection = sample(_pool(a=70, b=10, unlabelled=20), 20, {}, seed=0)
    assert _taken(selection) == {"a": 8, "b": 8, "unlabelled": 4}
    assert _taken(sample(_pool(unlabelled=9), 4, {}, seed=0)) == {"unlabelled": 4}


def test_complex_instructions_come_first_and_ties_are_drawn():
    pool = _pool(a=100)
    hardest = sample(pool, 25, {}, seed=3).instructions
    assert sorted(instruction.complexity for instruction in hardest) == [8] * 5 + [9] * 10 + [10] * 10
    other = sample(pool, 25, {}, seed=4).instructions
    assert {one.id for one in hardest if one.complexity > 8} == {
        one.id for one in other if one.complexity > 8
    }
    assert hardest != other
    spread = sample(pool, 25, {}, seed=3, prefer_complex=False).instructions
    assert min(instruction.complexity for instruction in spread) < 5


def test_min_complexity_leaves_out_the_easy_and_the_unknown():
    selection = sample(_pool(a=20, unlabelled=20), 40, {}, seed=0, min_complexity=6)
    assert [instruction.complexity for instruction in selection.instructions] == [6, 7, 8, 9, 10] * 2
    assert selection.missing == 30


@pytest.mark.parametrize(
    ("size", "quotas", "code", "place"),
    [
        (0, {}, "config_invalid", "size"),
        (5, {"a": -1.0}, "config_invalid", "'a'"),
        (5, {"a": float("nan")}, "config_invalid", "'a'"),
        (5, {"a": 0}, "config_invalid", "quotas"),
        (5, {"z": 1}, "data_invalid", "categories z"),
    ],
)
def test_arguments_out_of_range_are_refused(size, quotas, code, place):
    with raises(code, place):
        sample(_pool(a=3), size, quotas, seed=0)


def test_an_empty_pool_is_refused():
    with raises("data_invalid", "complexity 11"):
        sample(_pool(a=30), 5, {}, seed=0, min_complexity=11)
