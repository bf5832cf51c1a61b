import json
from collections import Counter
from importlib import resources

import pytest

import ste_jax
from ste_jax.data.sources import read_instructions
from ste_jax.instructions.filters import FilterSettings, filter_instructions
from ste_jax.instructions.labels import CATEGORIES


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    file = resources.files(ste_jax) / "data" / "starter_instructions.jsonl"
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_every_category_has_its_share(rows):
    counts = Counter(row["category"] for row in rows)
    assert set(counts) == set(CATEGORIES)
    assert min(counts.values()) >= 20
    assert len(rows) >= 340
    assert [row["id"] for row in rows] == [f"starter-{number:04d}" for number in range(1, len(rows) + 1)]


def test_any_head_of_the_file_is_balanced(rows):
    assert set(Counter(row["category"] for row in rows[:30]).values()) == {2}


def test_the_filters_keep_all_of_it():
    instructions = read_instructions("starter")
    settings = FilterSettings(near_duplicate_threshold=0.5, max_chars=400)
    left, steps = filter_instructions(instructions, settings)
    assert left == instructions
    assert [step.removed for step in steps] == [0] * 5


def test_most_are_short(rows):
    words = sorted(len(row["instruction"].split()) for row in rows)
    assert words[len(words) // 2] <= 25
    assert words[-1] <= 60
