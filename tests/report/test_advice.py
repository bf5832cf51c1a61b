"""Advice: every rule has a summary that triggers it and one that does not."""

import copy
import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest

from ste_jax.config import RunConfig
from ste_jax.report.advice import advice

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def fine(labelled_summary: dict[str, Any]) -> dict[str, Any]:
    """A run that needs no advice."""
    summary = copy.deepcopy(labelled_summary) | {"max_new_tokens": 512, "objective": "sft"}
    summary["labels"] = {"asked": 100, "parsed_category": 95}
    summary["pairs"]["splits"]["labelled"] = 40
    return summary


def _of_last(section: str, **values: Any) -> Change:
    return lambda summary: summary[section][-1].update(values)


def _of_model(**values: Any) -> Change:
    return lambda summary: summary["models"][-1]["labelled"].update(values)


def _all(*changes: Change) -> Change:
    def change(summary: dict[str, Any]) -> None:
        for one in changes:
            one(summary)

    return change


def _without_labelled(summary: dict[str, Any]) -> None:
    summary["pairs"]["splits"]["labelled"] = 0
    for model in summary["models"]:
        model["labelled"] = None
        model["n"] = 200


def _set(**values: Any) -> Change:
    return lambda summary: summary.update(values)


def _pairs(**values: Any) -> Change:
    return lambda summary: summary["pairs"].update(values)


def test_a_good_run_needs_no_advice(fine: dict[str, Any]) -> None:
    assert advice(fine) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_of_model(n=15), ("15 test pairs are few", "85.0–100.0%", "labelled_pairs")),
        (_of_model(n=1), ("1 test pair is few",)),
        (_pairs(asked=100, made=40, rejected={"refusal": 10, "too_long": 50}), ("60.0%", "decode.buckets")),
        (
            _pairs(asked=12, made=1, rejected={"modified_unparsable": 11}),
            ("91.7%", "modified unparsable (11)", "pairs.mode"),
        ),
        (_of_last("training", examples=4), ("trained on 4 examples", "select.size", "annotate.samples")),
        (
            _of_last("yields", parsed=100, forced=0),
            ("79.2%", "no verdict", "annotate.force_verdict=True", "annotate.max_new_tokens"),
        ),
        (_of_last("yields", forced=470), ("97.9%", "forced", "annotate.max_new_tokens")),
        (_set(labels={"asked": 60, "parsed_category": 0}), ("0.0%", "select.categories=()", "select.quotas")),
        (_of_model(first_preference=1.0), ("100.0%", "first", 'train.objective="pairwise"')),
        (_of_model(first_preference=0.1), ("10.0%", "both orders")),
        (
            _all(_of_model(first_preference=1.0, accuracy_pooled=0.9, pooled_interval95=[0.8, 1.0]),
                 _set(objective="pairwise")),
            ("train.lean_penalty",),
        ),
        (_of_model(longer_preference=0.9, longer_correct=0.5), ("90.0%", "50.0%", "padded", "cut_off")),
        (_of_model(longer_preference=0.2, longer_correct=0.5), ("20.0%", "50.0%")),
        (_of_last("yields", kept=10, dropped=90), ("kept 10 judgments", "90 have no", "annotate.samples")),
        (_of_last("yields", kept=10, dropped=20), ("kept 10 judgments", "balance")),
        (_without_labelled, ("constructed pairs", "labelled_pairs")),
    ],
)  # fmt: skip
def test_a_rule_says_what_limits_and_what_to_change(
    fine: dict[str, Any], change: Change, words: tuple[str, ...]
) -> None:
    change(fine)
    (sentence,) = advice(fine)
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    "change",
    [
        _of_model(n=30),
        _pairs(asked=100, made=51, rejected={"refusal": 49}),
        _of_last("training", examples=50),
        _of_last("yields", parsed=390),
        _all(_of_last("yields", forced=480), _set(max_new_tokens=0)),  # the verdict alone is always forced
        _set(labels={"asked": 100, "parsed_category": 80}),
        _set(labels={}),  # nothing was selected yet
        _set(labels={"asked": 0, "parsed_category": 0}),  # no labels are wanted
        _of_model(first_preference=0.6),
        _of_model(first_preference=None, longer_preference=None),
        _all(_of_model(first_preference=1.0, accuracy_pooled=0.9, pooled_interval95=[0.8, 1.0]),
             _set(pointwise=True)),
        _of_model(longer_preference=0.6, longer_correct=0.5),
        _of_last("yields", kept=30, dropped=90),
        _all(_of_last("yields", kept=0), _set(objective="pairwise")),  # learns from the labels of all pairs
        lambda summary: summary["yields"][0].update(forced=480, parsed=1, kept=0),  # an earlier iteration
        lambda summary: summary["training"][0].update(examples=1),
    ],
)  # fmt: skip
def test_a_rule_is_silent_where_nothing_is_wrong(fine: dict[str, Any], change: Change) -> None:
    change(fine)
    assert advice(fine) == []


def test_few_constructed_pairs_ask_for_more_of_either_kind(fine: dict[str, Any]) -> None:
    _without_labelled(fine)
    fine["models"][-1]["n"] = 3
    first, second = advice(fine)
    assert "pairs.test" in first
    assert "labelled_pairs" in second


def test_an_unfinished_run_can_be_advised(young_summary: dict[str, Any]) -> None:
    young_summary |= {"pairs": {}, "labels": {}, "funnel": [], "categories": {}}
    assert advice(young_summary) == []


def test_every_setting_that_is_named_exists(
    fine: dict[str, Any], make_config: Callable[..., RunConfig]
) -> None:
    text = ""
    for change in (
        _of_model(n=3, first_preference=1.0, longer_preference=1.0),
        _of_last("yields", forced=0, parsed=0, kept=0),
        _of_last("training", examples=1),
        _of_last("yields", forced=470, parsed=480, dropped=0),
        _set(labels={"asked": 60, "parsed_category": 0}),
        _pairs(asked=10, made=1, rejected={"too_long": 9}),
        _of_model(accuracy_pooled=0.9, pooled_interval95=[0.8, 1.0]),
        _set(objective="pairwise"),
        _all(_set(objective="sft"), _without_labelled),
        lambda summary: summary["models"][-1].update(n=3),
    ):
        change(fine)
        text += " ".join(advice(fine))
    sections = ("select", "pairs", "annotate", "train", "decode")
    named = set(re.findall(rf"\b({'|'.join(sections)})\.(\w+)", text))
    assert len(named) >= 12
    config = make_config()
    for section, field in named:
        assert field in {one.name for one in dataclasses.fields(getattr(config, section))}, (section, field)
    assert {"labelled_pairs", "judge_prompt"} <= {one.name for one in dataclasses.fields(config)}


@pytest.mark.parametrize(
    ("longer", "shorter", "preferred", "better"),
    [((10, 0.9), (10, 0.2), "85.0%", "50.0%"), ((15, 0.2), (0, None), "20.0%", "100.0%")],
)
def test_the_length_is_that_of_decisions_where_these_count(
    fine: dict[str, Any],
    longer: tuple[int, float],
    shorter: tuple[int, float | None],
    preferred: str,
    better: str,
) -> None:
    halves = {"longer": longer, "shorter": shorter}
    balance = {name: {"n": n, "accuracy": accuracy} for name, (n, accuracy) in halves.items()}
    fine |= {"objective": "pairwise", "pointwise": True}
    # Verdicts that are all the same letter prefer the longer response in half of the pairs.
    _of_model(
        accuracy_pooled=0.55, pooled_interval95=[0.4, 0.7], longer_preference=0.5, length_balance=balance
    )(fine)
    (sentence,) = (one for one in advice(fine) if "longer response" in one)
    assert f"{preferred} of its decisions" in sentence
    assert f"the better one in {better}" in sentence
    halves_right = {name: {"n": 10, "accuracy": 0.6} for name in halves}
    _of_model(length_balance=halves_right)(fine)
    assert not any("longer response" in one for one in advice(fine))
