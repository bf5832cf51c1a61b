"""Paired comparisons of planted judges, against the tests' definitions."""

import io

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binom, binomtest, chi2

from ste_jax.evaluation.compare import compare
from ste_jax.evaluation.terminal import comparison_table
from ste_jax.metrics.policy import POLICIES
from tests.errors import raises
from tests.evaluation.evaluation_cases import item, result, right, says, wrong

WRONG, DROPPED = POLICIES["wrong"], POLICIES["dropped"]
ITEMS = [item(i, "AB"[i % 2]) for i in range(60)]


def planted(path, wrong_ids, items=ITEMS):
    wrong_ids = {f"i{i:04d}" for i in wrong_ids}
    return result(path, items, lambda one, order, _: (wrong if one.id in wrong_ids else right)(one, order))


def printed(report):
    text = io.StringIO()
    Console(file=text, width=200).print(comparison_table(report))
    return text.getvalue()


def test_mcnemar_counts_the_pairs_that_differ(tmp_path):
    a, b = planted(tmp_path / "a", range(12)), planted(tmp_path / "b", [0, 1, 59])
    report = compare(a, b, WRONG)
    row = report["mcnemar"]["both_orders"]
    assert (row["n"], row["only_a"], row["only_b"]) == (60, 1, 10)
    assert row["p_value"] == pytest.approx(binomtest(1, 11).pvalue)
    assert report["difference"]["accuracy"] == pytest.approx(9 / 60)
    low, high = report["difference"]["interval95"]
    assert 0 < low < 9 / 60 < high < 0.3
    assert report["difference"]["p_value"] == pytest.approx(2 * sum(binom.pmf([0, 1], 11, 0.5)), abs=0.01)
    assert "+15.0 points" in printed(report)
    assert "prompts:" not in printed(report)


def test_lengths_and_changed_decisions(tmp_path):
    # The better response is longer in the first 40 of 60; B is wrong on 10 of them, A on the last 10.
    items = [
        item(
            i,
            "AB"[i % 2],
            **{f"response_{'ab'[i % 2]}": "long " * 9}
            if i < 40
            else {f"response_{'ba'[i % 2]}": "long " * 9},
        )
        for i in range(60)
    ]
    a, b = (planted(tmp_path / name, ids, items) for name, ids in (("a", range(50, 60)), ("b", range(10))))
    report = compare(a, b, WRONG)
    row = report["difference_length_balanced"]
    assert (row["accuracy_a"], row["accuracy_b"]) == (pytest.approx(3 / 4), pytest.approx(7 / 8))
    assert row["accuracy"] == pytest.approx(1 / 8)
    assert row["interval95"][0] < 1 / 8 < row["interval95"][1]
    changed = report["changed_decisions"]
    assert (changed["share"], changed["to_right"], changed["to_wrong"]) == (pytest.approx(20 / 60), 10, 10)
    text = printed(report)
    assert "length-balanced, orders pooled: 75.0% and 87.5%" in text
    assert "33.3% of the pooled decisions differ" in text


def test_mcnemar_of_a_published_table(tmp_path):
    # Approval of a prime minister in two surveys: 794 twice, 150 and 86 once, 570 never (Agresti, Categorical
    # Data Analysis, table 10.1, where z squared is 17.36; with the continuity correction 16.82).
    items = [item(i, "AB"[i % 2]) for i in range(1600)]
    a = planted(tmp_path / "a", [*range(794 + 150, 1600)], items)
    b = planted(tmp_path / "b", [*range(794, 794 + 150), *range(794 + 150 + 86, 1600)], items)
    row = compare(a, b, WRONG)["mcnemar"]["both_orders"]
    assert (row["n"], row["only_a"], row["only_b"]) == (1600, 150, 86)
    assert row["p_value"] == pytest.approx(chi2.sf(16.82, 1), rel=0.002)


def test_a_result_does_not_differ_from_itself(tmp_path):
    a = planted(tmp_path / "a", range(12))
    report = compare(a, a, WRONG)
    assert report["difference"]["p_value"] == 1.0
    assert report["difference"]["interval95"] is None  # without a spread resampling says nothing
    assert report["mcnemar"]["as_given"]["p_value"] == 1.0
    assert "+0.0 points, no interval" in printed(report)


def test_different_settings_are_named(tmp_path):
    a = planted(tmp_path / "a", [])
    assert "settings differ" not in printed(compare(a, planted(tmp_path / "same", []), WRONG))
    other = {"prompt_hash": "q", "max_new_tokens": 32}
    b = result(tmp_path / "b", ITEMS, lambda one, order, _: right(one, order), **other)
    report = compare(a, b, WRONG)
    assert report["settings_differ"] == ["prompt_hash", "max_new_tokens"]
    assert "settings differ: prompt hash, max new tokens" in printed(report)


def test_judges_that_say_nothing(tmp_path):
    def speaking_only(path, spoken):
        return result(path, ITEMS, lambda one, order, _: right(one, order) if order in spoken else "Well.")

    a, b = speaking_only(tmp_path / "a", ()), speaking_only(tmp_path / "b", ("swapped",))
    with raises("nothing_in_common", "'dropped'"):
        compare(a, b, DROPPED)
    given = compare(b, planted(tmp_path / "c", []), DROPPED)["mcnemar"]["as_given"]
    assert (given["n"], given["right_a"], given["p_value"]) == (0, None, 1.0)
    assert compare(b, planted(tmp_path / "c", []), WRONG)["mcnemar"]["as_given"]["right_a"] == 0.0


def test_one_prompt_is_no_evidence(tmp_path):
    items = [item(i, "A", prompt_id="p") for i in range(5)]
    a, b = planted(tmp_path / "a", range(5), items), planted(tmp_path / "b", [], items)
    assert compare(a, b, WRONG)["difference"]["p_value"] == 1.0


def test_equal_judges_seldom_differ(tmp_path):
    rng = np.random.default_rng(0)
    found = []
    for trial in range(20):
        sides = [
            planted(tmp_path / f"{side}{trial}", np.flatnonzero(rng.random(60) < 0.3)) for side in ("a", "b")
        ]
        found.append(compare(sides[0], sides[1], WRONG)["difference"]["p_value"] < 0.05)
    assert sum(found) <= binom.ppf(0.999, 20, 0.05)


def test_pairs_of_one_prompt_go_together(tmp_path):
    items = [item(i, "A", prompt_id=f"p{i % 3}") for i in range(60)]
    a = planted(tmp_path / "a", range(0, 60, 3), items)
    b = planted(tmp_path / "b", [], items)
    # One prompt of three differs: no evidence at all, though twenty pairs do.
    report = compare(a, b, WRONG)
    assert report["difference"]["p_value"] == 1.0
    assert (report["n"], report["prompts"]) == (60, 3)
    assert report["mcnemar"]["both_orders"]["p_value"] < 0.001
    assert "3 prompts: McNemar's test" in printed(report)


def test_only_pairs_that_both_judged_are_compared(tmp_path):
    a, b = planted(tmp_path / "a", [], ITEMS[:40]), planted(tmp_path / "b", [0], ITEMS[10:])
    report = compare(a, b, WRONG)
    assert (report["n"], report["only_in_a"], report["only_in_b"]) == (30, 10, 20)
    with raises("nothing_in_common"):
        compare(planted(tmp_path / "c", [], ITEMS[:5]), planted(tmp_path / "d", [], ITEMS[5:]), WRONG)
    changed = [item(0, "A", response_a="another text")]
    with raises("data_differs", "i0000"):
        compare(a, planted(tmp_path / "e", [], changed), WRONG)


def test_pooled_decisions_are_compared_too(tmp_path):
    def first(one, order, _):
        return says("A")  # in both orders: half of them right, and no pooled decision

    sides = [
        result(tmp_path / name, [item(i, "AB"[i % 2]) for i in range(20)], texts)
        for name, texts in (("a.jsonl", first), ("b.jsonl", lambda one, order, _: right(one, order)))
    ]
    pooled = compare(sides[0], sides[1], WRONG)["difference_pooled"]
    assert (pooled["accuracy_a"], pooled["accuracy_b"], pooled["accuracy"]) == (0.5, 1.0, 0.5)
    assert pooled["p_value"] < 0.001
    text = printed(compare(sides[0], sides[1], WRONG))
    assert "accuracy, orders pooled: 50.0" in text
    assert "+50.0 points" in text
