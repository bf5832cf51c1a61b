import dataclasses
import json
import runpy
from pathlib import Path

import pytest

from ste_jax.config import read_config
from ste_jax.models.presets import PRESETS
from ste_jax.plan.assumptions import Lengths
from ste_jax.plan.rerun import stage_hours
from ste_jax.plan.topology import parse_topology
from ste_jax.plan.work import run_work

CONFIGS = Path(__file__).parents[2] / "configs"
CONFIG = read_config(runpy.run_path(str(CONFIGS / "paper_70b.py"))["get_config"]("v6e-64").to_dict())
CFG = PRESETS["llama3_70b"]


def hours(config=CONFIG, acceptance_rate=0.5, **lengths):
    assumed = Lengths(**lengths)
    work = run_work(config, assumed, kept=acceptance_rate)
    found = stage_hours(config, CFG, parse_topology("v6e-64"), assumed, work)
    return {stage.stage: stage for stage in found}


def test_stages_count_what_the_configuration_asks_for():
    stages = hours()
    assert list(stages) == ["select", "pairs", "annotate", "train", "validate", "evaluate"]
    pairs = 20582 - 512
    assert stages["annotate"].prompts == 5 * 2 * pairs
    assert stages["annotate"].tokens == 5 * 2 * pairs * 15 * 700
    assert stages["evaluate"].prompts == 6 * 2 * 256
    assert stages["pairs"].prompts == 2 * 20582  # the answer; x' and its answer in one call
    # Half of both orders of all pairs, twice, in whole batches.
    tokens = 2 * pairs * (1650 + 700)
    assert stages["train"].tokens == pytest.approx(5 * tokens, rel=0.02)
    assert all(stage.chip_hours > 0 for stage in stages.values())


@pytest.mark.parametrize(
    ("mode", "calls"),
    [
        *(("modified", 3), ("modified_one_call", 2), ("degraded", 2), ("high_temperature", 2)),
        *(("nearest", 1), ("random", 1), ("truncated", 1), (("degraded", "high_temperature", "random"), 3)),
    ],
)
def test_every_mode_counts_its_calls(mode, calls):
    config = dataclasses.replace(CONFIG, pairs=dataclasses.replace(CONFIG.pairs, mode=mode))
    assert hours(config)["pairs"].prompts == calls * CONFIG.select.size  # that for the better answer too


def test_the_shares_of_a_mixture_bound_its_pairs():
    """One modified instruction for each instruction, and two fifths of the pairs are of that kind."""
    mixture = {"modified_one_call": 0.4, "crossed": 0.6}
    config = dataclasses.replace(CONFIG, pairs=dataclasses.replace(CONFIG.pairs, mode=mixture))
    pairs = round(CONFIG.select.size / 0.4) - 512
    assert hours(config)["annotate"].prompts == 5 * 2 * pairs


def test_labelled_pairs_take_the_place_of_validation_pairs(tmp_path):
    row = {"response_a": "Yes.", "response_b": "No.", "label": "A"}
    rows = [row | {"id": f"o{i}", "instruction": f"Question {i}?"} for i in range(7)]
    (tmp_path / "ours.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stages = hours(dataclasses.replace(CONFIG, labelled_pairs=str(tmp_path / "ours.jsonl")))
    without = hours()
    assert stages["annotate"].prompts == without["annotate"].prompts + 5 * 2 * 256
    assert stages["validate"].prompts == without["validate"].prompts * 4 / 256
    assert stages["evaluate"].prompts == without["evaluate"].prompts + 6 * 2 * 3
    # They are judged greedily; votes are for the test pairs.
    assert stages["evaluate"].tokens == without["evaluate"].tokens + 6 * 2 * 3 * 700


@pytest.mark.parametrize(("every", "evaluations"), [(0, 2), (50, 7 + 2), (180, 2)])
def test_checkpoints_are_evaluated_at_the_end_of_every_epoch_too(every, evaluations):
    train = dataclasses.replace(CONFIG.train, evaluate_every=every)
    stages = hours(dataclasses.replace(CONFIG, train=train))
    step = CONFIG.train.batch_rows * CONFIG.train.row_length
    assert stages["train"].tokens == 5 * 2 * 180 * step
    assert stages["validate"].prompts == 5 * evaluations * 2 * 256


def test_longer_judgments_and_more_samples_cost_more():
    base = hours()["annotate"].chip_hours
    assert hours(judgment=1400)["annotate"].chip_hours > 1.9 * base
    few = dataclasses.replace(CONFIG, annotate=dataclasses.replace(CONFIG.annotate, samples=5))
    assert hours(few)["annotate"].chip_hours < base
    half = hours()["train"].chip_hours / 2
    assert hours(acceptance_rate=0.25)["train"].chip_hours == pytest.approx(half, rel=0.02)
    no_vote = dataclasses.replace(CONFIG, evaluate=dataclasses.replace(CONFIG.evaluate, votes=0))
    assert hours(no_vote)["evaluate"].chip_hours < hours()["evaluate"].chip_hours


def test_preferences_after_fine_tuning_are_a_stage_of_their_own():
    prefer = dataclasses.replace(CONFIG.train, objective="dpo", epochs=1.0, row_length=8192)
    stages, before = hours(dataclasses.replace(CONFIG, prefer=prefer)), hours()
    assert list(stages) == ["select", "pairs", "annotate", "train", "prefer", "validate", "evaluate"]
    assert stages["train"] == before["train"]
    # Two judgments an example, in one epoch of the two of fine-tuning.
    assert stages["prefer"].tokens == pytest.approx(before["train"].tokens, rel=0.02)
    # The pass of the starting model comes on top: one where a step makes three and recomputes one.
    assert 1.15 < stages["prefer"].chip_hours / before["train"].chip_hours < 1.4
    assert stages["validate"].prompts > 1.4 * before["validate"].prompts


def test_preferences_alone_cost_more_than_fine_tuning():
    train = dataclasses.replace(CONFIG.train, objective="dpo")
    stages = hours(dataclasses.replace(CONFIG, train=train))
    assert stages["train"].tokens == pytest.approx(2 * hours()["train"].tokens, rel=0.02)


def test_a_pairwise_training_learns_from_both_orders_of_every_pair():
    train = dataclasses.replace(CONFIG.train, objective="pairwise", epochs=1.0)
    annotate = dataclasses.replace(
        CONFIG.annotate, samples=1, max_new_tokens=0, force_verdict=True, max_pairs=200
    )
    work = run_work(
        dataclasses.replace(CONFIG, train=train, annotate=annotate), Lengths(judgment=1), kept=0.5
    )
    (training,) = work.trainings
    tokens = training.steps * train.batch_rows * train.row_length
    assert tokens == pytest.approx(work.pairs * 2 * (1650 + 1), rel=0.02)
    assert [calls.prompts for calls in work.calls if calls.stage == "annotate"] == [5 * 2 * 200]


def test_fewer_instructions_than_the_configuration_selects():
    work = run_work(CONFIG, Lengths(), kept=0.5, instructions=1000)
    assert work.pairs == 1000 - 512
    assert [calls.prompts for calls in work.calls if calls.stage == "pairs"] == [1000, 1000]


def test_the_kinds_of_two_answers_share_them():
    config = dataclasses.replace(
        CONFIG, pairs=dataclasses.replace(CONFIG.pairs, mode=("constraint", "high_temperature"))
    )
    assert hours(config)["pairs"].prompts == 2 * CONFIG.select.size


def test_given_responses_cost_no_calls() -> None:
    pairs = dataclasses.replace(CONFIG.pairs, mode=("truncated", "high_temperature"), better_from="reply")
    config = dataclasses.replace(CONFIG, pairs=pairs)
    assert hours(config)["pairs"].prompts == 20582
    none = dataclasses.replace(config, pairs=dataclasses.replace(pairs, mode=("truncated",)))
    assert "pairs" not in hours(none)
