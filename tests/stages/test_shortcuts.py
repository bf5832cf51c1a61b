"""The evaluation stage with probes: what it judges, shows and writes into the card of the model."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ste_jax import pipeline, summary
from ste_jax.checkpoint.source import open_model, read_card
from ste_jax.evaluation.probes.probe import PROBE_KINDS
from ste_jax.judging.readme import export_judge
from ste_jax.pairs.splits import Splits
from ste_jax.records import Comparison, Judgment
from ste_jax.stages import evaluate
from ste_jax.stages.context import Context
from ste_jax.storage.readers import read_records
from ste_jax.storage.record_set import RecordSet

TEST = [
    Comparison(
        id=f"q{i}",
        instruction=f"Name river {i}.",
        response_a=f"River {i} is the Rhine. " * (1 + i % 2),
        response_b=f"Rose {i} is a flower, and it is red.",
        label=("A", "B")[i % 2],
    )
    for i in range(3)
]
SPLITS = Splits(train=[], validation=[], test=TEST, labelled=[])


@pytest.fixture(scope="module")
def evaluated(make_context: Callable[..., Context], tiny_model: Path) -> Context:
    """A run whose seed model and first iteration, the same tiny model, are evaluated, and one pair probed."""
    one = (1, 1, 1)
    context = make_context(
        mesh=one,
        train_mesh=one,
        judge_prompt="verdict",
        annotate={"max_new_tokens": 0, "force_verdict": True},
        evaluate={"probes": 1},
        decode={"buckets": (640,), "sequences": 16},
    )
    evaluate.run(context, 0, SPLITS)
    shutil.copytree(tiny_model, Path(context.iteration(1)) / "model")
    RecordSet(context.iteration(1) / "train", Judgment, {}).finish([], {})
    evaluate.run(context, 1, SPLITS)
    return context


def test_the_probes_are_judged_in_both_orders(evaluated: Context) -> None:
    judgments = read_records(evaluated.iteration(1) / "probes", Judgment)
    found = {judgment.pair_id.split("/")[1] for judgment in judgments}
    assert found == set(PROBE_KINDS)
    assert len(judgments) == 2 * len(PROBE_KINDS)
    numbers = evaluate.finished(evaluated, 1, SPLITS)["shortcuts"]
    probes = numbers["probes"]
    assert (numbers["accuracy"]["n"], probes["pairs"], probes["not_judged"]) == (3, 1, 0)
    assert (probes["retest"]["n"], probes["retest"]["share"]) == (1, 0.0)


def test_a_model_is_compared_with_the_iteration_before(evaluated: Context) -> None:
    seed, first = (evaluate.finished(evaluated, k, SPLITS)["shortcuts"] for k in (0, 1))
    assert seed["changed"] is None
    assert (first["changed"]["n"], first["changed"]["share"]) == (3, 0.0)


def test_the_panel_goes_into_the_card_and_the_readme_of_an_export(
    evaluated: Context, tiny_model: Path, tmp_path: Path
) -> None:
    panel = evaluate.finished(evaluated, 1, SPLITS)["shortcuts"]["panel"]
    folder = Path(evaluated.iteration(1)) / "model"
    card = read_card(folder)
    assert card is not None
    assert card.shortcuts == panel
    before = (folder / "model.json").stat().st_mtime_ns
    evaluate.run(evaluated, 1, SPLITS)
    assert (folder / "model.json").stat().st_mtime_ns == before, "nothing changed"
    seed = read_card(tiny_model)
    assert seed is not None
    assert seed.shortcuts is None, "the seed model is left alone"

    export_judge(open_model(folder), tmp_path / "out")
    text = (tmp_path / "out" / "README.md").read_text("utf-8")
    assert panel["summary"] in text
    assert all(line["text"] in text for line in panel["lines"])
    assert read_card(tmp_path / "out") == card
    export_judge(open_model(tiny_model), tmp_path / "plain")
    assert "decides by" not in (tmp_path / "plain" / "README.md").read_text("utf-8")


def test_without_its_model_the_numbers_stay(evaluated: Context, tmp_path: Path) -> None:
    folder = Path(evaluated.iteration(1)) / "model"
    folder.rename(tmp_path / "model")
    try:
        assert evaluate.finished(evaluated, 1, SPLITS)["shortcuts"]["probes"]["pairs"] == 1
    finally:
        (tmp_path / "model").rename(folder)


def test_the_probes_are_a_part_of_the_evaluation(make_context: Callable[..., Context]) -> None:
    with_probes, without = make_context(evaluate={"probes": 2}), make_context()
    assert "iteration_1/probes" in pipeline.stage_folders(with_probes)
    assert not [name for name in pipeline.stage_folders(without) if name.endswith("probes")]
    for name in ("evaluate", "probes"):
        (with_probes.iteration(1) / name).mkdir(parents=True)
    pipeline.redo(with_probes, "iteration_1/evaluate")
    assert not list(with_probes.iteration(1).iterdir())


def test_costs_of_probes_are_those_of_the_evaluation(evaluated: Context) -> None:
    seconds, tokens = summary._costs(evaluated, ["iteration_0/evaluate", "iteration_0/probes"])
    assert set(seconds) == set(tokens) == {"evaluate"}
