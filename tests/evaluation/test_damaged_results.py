"""Result files whose lines were changed are refused by file and line, whatever the change."""

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ste_jax.errors import SteError
from ste_jax.evaluation.compare import compare
from ste_jax.evaluation.numbers import numbers
from ste_jax.evaluation.probes.probe import make_probes
from ste_jax.evaluation.result import read_result
from ste_jax.metrics.policy import POLICIES
from tests.errors import raises
from tests.evaluation.evaluation_cases import item, probed_result, result, right

FORMAT_1 = Path(__file__).parent / "fixtures" / "result_format_1.jsonl"
VALUES = (None, True, -1, 1.5, float("nan"), 10**400, "", "A", "\ud800", [], [[3]], {}, {"a": None})


@pytest.fixture
def changed(tmp_path) -> Callable[..., Path]:
    """Writes a result of two comparisons with one value changed or, for ..., removed."""
    result(
        tmp_path / "r.jsonl", [item(i, "AB"[i]) for i in range(2)], lambda one, order, _: right(one, order)
    )
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]

    def write(line: int, path: tuple[str | int, ...], value: Any) -> Path:
        after = copy.deepcopy(rows)
        place: Any = after[line]
        for name in path[:-1]:
            place = place[name]
        if value is ...:
            del place[path[-1]]
        else:
            place[path[-1]] = value
        (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in after))
        return tmp_path / "r.jsonl"

    return write


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (("settings", "seed"), (..., None, "0", -1, True)),
        (("settings", "samples"), (..., 0, 1.5, [1])),
        (("settings", "model"), (..., None, "name", {})),
        (("settings", "model", "name"), (..., 3)),
        (("settings", "data", "source"), (..., {})),
        (("settings", "data", "notes"), (..., [], 1)),
        (("settings", "benchmark"), (..., "no such", 3)),
        (("settings", "sampling"), (...,)),
        (("settings",), ([], 3, None)),
    ],
)
def test_settings_of_another_type_are_named(changed, path, values):
    for value in values:
        with raises("result_invalid", "r.jsonl, line 1", path[-1]):
            read_result(changed(0, path, value))


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (("id",), (..., 7, [], None)),
        (("label",), ("C", 1, [])),
        (("votes",), ([], {"A": "1"})),
        (("__surface__",), (..., None, {}, {"length_a": 1})),
        (("__surface__", "length_a"), ("1", None, 1e999)),
        (("judgments",), (..., {}, None, [3])),
        (("too_long",), (..., 1, "no")),
        (("judgments", 0, "text"), (None, [], 3)),
        (("judgments", 0, "order"), ("first", None)),
        (("judgments", 0, "pair_id"), ("another",)),
        (("judgments", 0, "log_odds"), ("1", float("nan"), 10**400)),
        (("judgments", 1, "order"), ("as_given",)),
        (("judgments", 1), (...,)),
        (("judgments",), ([],)),
        (("judgments", 0, "sample"), (-1, 5)),
    ],
)
def test_lines_of_another_type_are_named(changed, path, values):
    for value in values:
        with raises("result_invalid", "r.jsonl, line 3"):
            read_result(changed(2, path, value))


def test_fewer_samples_than_the_settings_say_are_named(changed):
    with raises("result_invalid", "r.jsonl, line 2"):
        read_result(changed(0, ("settings", "samples"), 2))


@pytest.mark.parametrize("value", [None, "retest", {}, {"kind": "retest"}, {"kind": [], "pair": "i0000"}])
def test_the_origin_of_a_probe_of_another_type_is_named(changed, value):
    with raises("result_invalid", "r.jsonl, line 3", "probe"):
        read_result(changed(2, ("probe",), value))


def test_a_comparison_that_occurs_twice_is_named(changed):
    path = changed(2, ("id",), "i0000")
    with raises("result_invalid", "r.jsonl, line 3"):
        read_result(path)


@pytest.mark.parametrize("seed", range(30))
def test_no_change_of_a_file_ends_in_another_error(tmp_path, seed):
    """Changes a random value of a file of either format; it is read, or refused with its name."""
    drawn = random.Random(seed)
    items = [item(i, "AB"[i]) for i in range(2)]
    whole = result(tmp_path / "a.jsonl", items, lambda one, order, _: "[[A]]")
    probes = make_probes(items, 1, seed=0)
    probed_result(tmp_path / "p.jsonl", items, probes, lambda x, a, b: len(a) - len(b) + 0.5)
    for source in (tmp_path / "a.jsonl", tmp_path / "p.jsonl", FORMAT_1):
        rows = [json.loads(line) for line in source.read_text().splitlines()]
        place: Any = rows
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = drawn.choice(keys)
            if not isinstance(place[key], dict | list) or not place[key] or drawn.random() < 0.2:
                break
            place = place[key]
        place[key] = drawn.choice(VALUES)
        changed = tmp_path / "changed.jsonl"
        changed.write_text("".join(json.dumps(row) + "\n" for row in rows))
        try:
            read = read_result(changed)
            json.dumps(numbers(read, POLICIES["wrong"]))
            compare(read, whole, POLICIES["wrong"])
        except SteError as error:
            if "changed.jsonl" not in str(error):
                raise
