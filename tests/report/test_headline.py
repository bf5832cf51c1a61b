import numpy as np
import pytest

from ste_jax.metrics.stats import sign_flip_test
from ste_jax.report.headline import DECISIONS, can_tell, headline, least_changed, measure_of


def _model(iteration, accuracy, p=None, interval=(0.6, 0.9), flips=0.1):
    return {
        "iteration": iteration,
        "n": 500,
        "accuracy": accuracy,
        "interval95": list(interval),
        "flip_rate": flips,
        "p_value_vs_seed": p,
    }


@pytest.mark.parametrize(
    ("accuracy", "p", "tone", "verdict"),
    [
        (0.70, 0.31, "flat", "No significant gain over the seed (+10.0 points, p = 0.31)."),
        (0.70, 0.049, "gain", "Significant gain over the seed (+10.0 points, p = 0.049)."),
        (0.70, 0.0001, "gain", "Significant gain over the seed (+10.0 points, p < 0.001)."),
        (0.60, 1.0, "flat", "No gain: no trained model scores above the seed (p = 1.00)."),
        (0.55, 0.2, "flat", "No gain: no trained model scores above the seed (p = 0.20)."),
        (0.40, 0.01, "loss", "Significantly worse than the seed (−20.0 points, p = 0.010)."),
        (0.90, None, "open", "No test against the seed was made (+30.0 points), so there is no conclusion."),
    ],
)
def test_verdict_says_what_the_test_says(accuracy, p, tone, verdict):
    result = headline([_model(0, 0.6), _model(1, accuracy, p)])
    assert (result.tone, result.verdict) == (tone, verdict)


def test_best_of_several_pays_for_the_choice():
    models = [_model(0, 0.6), _model(1, 0.65, 0.5), _model(2, 0.75, 0.02), _model(3, 0.7, 0.1)]
    result = headline(models)
    assert result.best is models[2]
    assert result.verdict == "No significant gain over the seed (+15.0 points, p = 0.060)."
    assert "multiplied by 3 (uncorrected: p = 0.020)" in result.notes[0]


def test_notes_name_chance_and_position():
    notes = headline([_model(0, 0.5), _model(1, 0.6, 0.5, interval=(0.42, 0.75), flips=0.8)]).notes
    assert notes == (
        "The 95% interval of the iteration 1 model (42.0–75.0%) includes chance (50%).",
        "The verdict of the iteration 1 model changes with the order in 80.0% of the pairs.",
    )
    assert headline([_model(0, 0.5), _model(1, 0.7, 0.5)]).notes == ()


def test_unfinished_runs_claim_nothing():
    assert headline([]).verdict == "No model has been evaluated yet."
    only_seed = headline([_model(0, 0.6)])
    assert only_seed.verdict == "Only the seed has been evaluated so far."
    assert only_seed.tone == "open"
    assert only_seed.best is None


def test_runs_with_the_pairwise_objective_are_judged_by_their_decisions():
    seed, trained = (_model(k, 0.5, 1.0) for k in (0, 1))
    seed |= {"accuracy_pooled": 0.52, "pooled_interval95": [0.4, 0.6], "p_value_pooled_vs_seed": None}
    trained |= {"accuracy_pooled": 0.8, "pooled_interval95": [0.7, 0.9], "p_value_pooled_vs_seed": 0.001}
    assert measure_of({"objective": "pairwise"}) is DECISIONS
    assert headline([seed, trained]).tone == "flat"
    result = headline([seed, trained], DECISIONS)
    assert result.verdict == "Significant gain over the seed (+28.0 points, p = 0.001)."


def test_the_order_means_nothing_to_a_pointwise_judge():
    measure = measure_of({"objective": "pairwise", "pointwise": True})
    model = _model(1, 0.5, 1.0, flips=0.9)
    model |= {"accuracy_pooled": 0.8, "pooled_interval95": [0.7, 0.9], "p_value_pooled_vs_seed": 0.001}
    seed = _model(0, 0.5) | {"accuracy_pooled": 0.5}
    assert headline([seed, model], measure).notes == ()
    assert headline([seed, model], DECISIONS).notes != ()


@pytest.mark.parametrize(("comparisons", "least"), [(1, 6), (2, 7), (3, 7), (5, 8)])
def test_the_least_number_of_changes_is_that_of_the_test_itself(comparisons, least):
    assert least_changed(comparisons) == least
    # The test that makes the p-values: as many prompts that all got better, and a few that stayed.
    for changed, is_significant in ((least - 1, False), (least, True)):
        p = sign_flip_test(np.array([1.0] * changed + [0.0] * 4), seed=0)
        assert (comparisons * p < 0.05) == is_significant


@pytest.mark.parametrize(
    ("n", "prompts", "verdict"),
    [
        (3, 3, "Cannot tell from 3 pairs (+10.0 points, p = 0.50)."),
        (1, 1, "Cannot tell from 1 pair (+10.0 points, p = 0.50)."),
        (10, 10, "Cannot tell from 10 pairs (+10.0 points, p = 0.50)."),
        (11, 11, "No significant gain over the seed (+10.0 points, p = 0.50)."),
        (60, 4, "Cannot tell from 60 pairs of 4 instructions (+10.0 points, p = 0.50)."),
    ],
)
def test_few_pairs_cannot_tell(n, prompts, verdict):
    sizes = {"n": n, "prompts": prompts}
    result = headline([_model(0, 0.6) | sizes, _model(1, 0.7, 0.5) | sizes])
    assert result.verdict == verdict
    assert result.tone == ("open" if "Cannot" in verdict else "flat")


def test_more_models_need_more_pairs():
    assert can_tell(11)
    assert not can_tell(11, comparisons=3)
    assert can_tell(13, comparisons=3)


def test_no_gain_of_few_pairs_is_no_answer_but_a_significant_one_is():
    sizes = {"n": 8, "prompts": 8}
    same = headline([_model(0, 0.5) | sizes, _model(1, 0.5, 1.0) | sizes])
    assert same.verdict == "Cannot tell from 8 pairs (+0.0 points, p = 1.00)."
    clear = headline([_model(0, 0.5) | sizes, _model(1, 1.0, 0.008) | sizes])
    assert clear.tone == "gain"


@pytest.mark.parametrize(
    ("measure", "points"), [(None, "20 points on 15 pairs"), (DECISIONS, "40 points on 15 pairs")]
)
def test_the_least_gain_that_can_be_significant_is_noted(measure, points):
    pooled = {"accuracy_pooled": 0.6, "pooled_interval95": [0.5, 0.7], "p_value_pooled_vs_seed": 0.6}
    models = [_model(k, 0.6, 0.6) | pooled | {"n": 15} for k in (0, 1)]
    notes = headline(models, measure).notes if measure else headline(models).notes
    assert any(f"at least 6 instructions are judged otherwise, which takes {points}" in one for one in notes)
    assert not any("at least" in one for one in headline([m | {"n": 400} for m in models]).notes)
