import json
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from ste_jax.judging.calibration import (
    Calibration,
    calibration_bins,
    calibration_error,
    calibration_path,
    fit_calibration,
    fit_temperature,
    fit_threshold,
    read_calibration,
    risk_coverage,
    write_calibration,
)
from tests.errors import raises


def _judge(n: int, temperature: float, seed: int = 0):
    """Returns log-odds and labels of a judge whose probabilities are right at `temperature`."""
    random = np.random.default_rng(seed)
    log_odds = 3 * random.normal(size=n)
    labels = random.random(n) < special.expit(log_odds / temperature)
    return log_odds, labels


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_recovers_the_temperature_of_a_planted_judge(temperature):
    log_odds, labels = _judge(4000, temperature)
    found = fit_calibration(list(log_odds), list(labels), [f"p{i}" for i in range(4000)])
    assert found.temperature == pytest.approx(temperature, rel=0.1)
    assert found.threshold == 0.0
    assert found.held_out["ece_after"] < 0.03
    if temperature != 1.0:
        assert found.held_out["ece_before"] > found.held_out["ece_after"] + 0.03
        assert found.held_out["nll_before"] > found.held_out["nll_after"]


def test_exchanging_the_responses_changes_nothing():
    log_odds, labels = _judge(200, 2.0)
    prompts = [f"p{i}" for i in range(200)]
    swapped = fit_calibration(list(-log_odds), list(~labels), prompts, agreement=0.8)
    assert swapped == fit_calibration(list(log_odds), list(labels), prompts, agreement=0.8)


def test_a_judge_that_is_always_right_keeps_a_positive_temperature():
    assert 0.05 < fit_temperature(np.full(100, 2.0)) < 1.0
    sharper = fit_temperature(np.full(10_000, 2.0))
    assert 0.0 < sharper < fit_temperature(np.full(100, 2.0))


def test_a_judge_below_chance_is_never_confident():
    log_odds, labels = _judge(1000, 1.0)
    found = fit_calibration(list(log_odds), list(~labels), [f"p{i}" for i in range(1000)])
    assert special.expit(np.abs(log_odds).max() / found.temperature) < 0.51


def test_the_threshold_reaches_the_wanted_agreement_on_pairs_that_it_did_not_see():
    log_odds, labels = _judge(4000, 3.0)
    found = fit_calibration(list(log_odds), list(labels), [f"p{i}" for i in range(4000)], agreement=0.85)
    fresh, truth = _judge(4000, 3.0, seed=1)
    confidence = special.expit(np.abs(fresh) / found.temperature)
    kept = confidence >= found.threshold
    correct = (fresh > 0) == truth
    assert correct.mean() < 0.8
    assert correct[kept].mean() == pytest.approx(0.85, abs=0.03)
    assert found.held_out["kept"] == pytest.approx(kept.mean(), abs=0.05)
    low, high = found.held_out["kept_agreement_interval95"]
    assert low < 0.85 < high
    assert found.held_out["kept_agreement"] == pytest.approx(0.85, abs=0.03)


def test_the_threshold_is_the_smallest_that_does():
    # 30 sure ones of which 27 are right, 30 unsure ones of which 15 are.
    margins = np.concatenate([np.repeat([4.0, -4.0], [27, 3]), np.repeat([1.0, -1.0], [15, 15])])
    assert fit_threshold(margins, 1.0, 0.9) == pytest.approx(special.expit(4.0))
    assert fit_threshold(margins, 1.0, 0.7) == pytest.approx(special.expit(1.0))
    assert fit_threshold(margins, 1.0, 0.95) is None


def test_pairs_of_a_prompt_stay_in_one_half():
    # Within a prompt all pairs are alike: split apart, the fit would know the held-out ones.
    random = np.random.default_rng(0)
    right = random.random(40) < 0.6
    margins = np.where(right, 1.0, -1.0).repeat(25) * random.uniform(0.5, 3, 40).repeat(25)
    prompts = np.arange(40).repeat(25).astype(str)
    found = fit_calibration(list(margins), [True] * 1000, list(prompts))
    single = fit_calibration(list(margins), [True] * 1000, [str(i) for i in range(1000)])
    assert found.prompts == 40
    assert found.temperature == single.temperature
    (low, high), (low1, high1) = (x.held_out["agreement_interval95"] for x in (found, single))
    assert high - low > 3 * (high1 - low1)


def test_abstentions_count_against_the_kept_share():
    log_odds, labels = _judge(400, 1.0)
    prompts = [f"p{i}" for i in range(800)]
    full = fit_calibration(list(log_odds), list(labels), prompts[:400], agreement=0.8)
    half = fit_calibration([*log_odds, *[None] * 400], [*labels, *labels], prompts, agreement=0.8)
    assert half.without_numbers == 400
    assert half.temperature == full.temperature
    assert half.held_out["kept"] == pytest.approx(full.held_out["kept"] / 2)


def test_bins_error_and_risk_coverage_of_a_small_example():
    confidence = np.array([0.55, 0.55, 0.95, 0.95, 1.0])
    correct = np.array([False, True, True, True, False])
    rows = [row for row in calibration_bins(confidence, correct) if row["pairs"]]
    assert [(row["low"], row["high"], row["pairs"]) for row in rows] == [(0.55, 0.6, 2), (0.95, 1.0, 3)]
    assert rows[0]["agreement"] == 0.5
    assert rows[1]["confidence"] == pytest.approx(2.9 / 3)
    assert calibration_error(confidence, correct) == pytest.approx((2 * 0.05 + 3 * (2.9 - 2) / 3) / 5)
    curve = risk_coverage(confidence, correct)
    assert [row["coverage"] for row in curve] == [k / 10 for k in range(1, 11)]
    assert curve[1]["agreement"] == 0.0
    assert curve[5]["agreement"] == pytest.approx(2 / 3)
    assert curve[-1]["agreement"] == 0.6


def test_too_little_data_and_unreachable_agreements_are_refused():
    log_odds, labels = _judge(100, 20.0)
    prompts = [f"p{i}" for i in range(100)]
    with raises("data_invalid", "49", "50"):
        fit_calibration(list(log_odds[:49]), list(labels[:49]), prompts[:49])
    with raises("data_invalid", "20 prompts"):
        fit_calibration(list(log_odds), list(labels), ["p", "q"] * 50)
    with raises("data_invalid", "0 labelled pairs"):
        fit_calibration([None] * 100, list(labels), prompts)
    with raises("agreement_unreachable", "0.99"):
        fit_calibration(list(log_odds), list(labels), prompts, agreement=0.99)
    for value in (0.5, 1.0, 80.0):
        with raises("argument_invalid", "agreement"):
            fit_calibration(list(log_odds), list(labels), prompts, agreement=value)


@pytest.fixture
def example() -> Calibration:
    log_odds, labels = _judge(100, 2.0)
    prompts = [f"p{i}" for i in range(100)]
    settings = {"prompt_digest": "abc", "max_new_tokens": 0}
    return fit_calibration(list(log_odds), list(labels), prompts, agreement=0.75, settings=settings)


def test_survives_json(example: Calibration):
    assert Calibration.from_dict(json.loads(json.dumps(example.to_dict()))) == example


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"schema_version": 2}, "schema_newer"),
        ({"temperature": None}, "data_invalid"),
        ({"temperature": 0.0}, "data_invalid"),
        ({"temperature": float("nan")}, "data_invalid"),
        ({"threshold": 2.0}, "data_invalid"),
        ({"colour": "red"}, "data_invalid"),
    ],
)
def test_refuses_other_versions_and_broken_fields(example: Calibration, change, code):
    with raises(code, "calibration"):
        Calibration.from_dict(example.to_dict() | change)


def test_is_kept_in_the_data_folder_of_the_user(
    example: Calibration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("STE_DATA_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert calibration_path("f1") == tmp_path / "home/.local/share/ste_jax/calibration/f1.json"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert calibration_path("f1") == tmp_path / "xdg/ste_jax/calibration/f1.json"
    monkeypatch.setenv("STE_DATA_HOME", str(tmp_path / "ste"))
    assert calibration_path("f1") == tmp_path / "ste/calibration/f1.json"
    assert read_calibration("f1") is None
    assert write_calibration("f1", example) == calibration_path("f1")
    assert read_calibration("f1") == example
    assert read_calibration("f2") is None
    calibration_path("f1").write_text('{"temperature": ')
    with raises("data_invalid", str(tmp_path)):
        read_calibration("f1")
    calibration_path("f1").write_text(json.dumps({"temperature": 1, "schema_version": 9}))
    with raises("schema_newer", str(tmp_path)):
        read_calibration("f1")
    with pytest.raises(ValueError, match="file name"):
        calibration_path("../escape")
