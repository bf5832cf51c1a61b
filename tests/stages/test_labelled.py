"""Labelled pairs in a run: their numbers, which of them choose checkpoints, and what new labels change."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ste_jax import pipeline
from ste_jax.checkpoint.source import read_card
from ste_jax.pairs.used import text_hash, text_hashes, write_splits
from ste_jax.records import Comparison, Instruction, Judgment
from ste_jax.stages import evaluate, fitting, pairs
from ste_jax.stages.context import Context
from ste_jax.stages.pair_inputs import scored_digest
from ste_jax.storage.files import digest
from ste_jax.storage.readers import read_records
from ste_jax.storage.record_set import RecordSet
from tests.errors import raises

ROWS: list[dict[str, Any]] = [
    {
        "id": f"l{i:02d}",
        "instruction": f"Which river is number {i}?",
        "response_a": f"River {i} is the Rhine.",
        "response_b": f"Rose {i} is red.",
        "label": "AB"[i % 2],
        "category": ("rivers", "roses")[i // 2 % 2],
    }
    for i in range(12)
]
MADE = [
    Comparison(
        id=f"m{i}",
        prompt_id=f"i{i}",
        instruction=f"Name stone {i}.",
        response_a=f"Stone {i} is granite.",
        response_b="No.",
        label=("A", "B")[i % 2],
    )
    for i in range(6)
]
SELECTED = [
    Instruction(id=f"i{i}", text=f"Name stone {i}.", source="s", category=("a", "b")[i % 2]) for i in range(6)
]


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def run(make_context: Callable[..., Context], tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A run of which the seed model is evaluated, with labelled pairs."""
    one = (1, 1, 1)
    context = make_context(
        mesh=one,
        train_mesh=one,
        judge_prompt="verdict",
        labelled_pairs=str(written(tmp_path_factory.mktemp("data") / "ours.jsonl", ROWS)),
        annotate={"max_new_tokens": 0, "force_verdict": True},
        pairs={"test": 3},
        decode={"buckets": (640,), "sequences": 16},
    )
    selected = RecordSet(context.workdir / "select", Instruction, {})
    for instruction in SELECTED:
        selected.add(instruction.id, [instruction])
    selected.finish([i.id for i in SELECTED], {"funnel": [], "categories": {}, "labels": {}})
    made = RecordSet(context.workdir / "pairs", Comparison, {})
    for pair in MADE:
        made.add(pair.id, [pair])
    summary = {"asked": 6, "made": 6, "rejected": {}, "mode": "degraded"}
    made.finish([p.id for p in MADE], summary | {"chosen_tokens_mean": 4.0, "rejected_tokens_mean": 1.0})
    pipeline.run_stage(context, "evaluate", 0)
    return context


def relabelled(run: Context, path: Path, **labels: str) -> Context:
    """Returns the run with a file of other labels."""
    rows = [row | {"label": labels.get(row["id"], row["label"])} for row in ROWS]
    config = dataclasses.replace(run.config, labelled_pairs=str(written(path, rows)))
    return Context(config, run.workdir)


def test_labelled_pairs_have_all_numbers_of_a_model(run: Context) -> None:
    (model,) = pipeline.report(run)["models"]
    labelled = model["labelled"]
    shared = ("accuracy", "interval95", "accuracy_pooled", "flip_rate", "p_value_vs_seed", "longer_correct")
    assert {*shared, "majority", "prompts", "length_balance"} <= labelled.keys()
    assert (model["n"], labelled["n"], labelled["prompts"]) == (3, 6, 6)
    splits = pipeline._splits(run)
    categories = Counter(pair.category for pair in splits.labelled)
    assert {name: group["n"] for name, group in labelled["categories"].items()} == categories
    # Constructed pairs without a category of their own have that of their instruction.
    of_instruction = {instruction.id: instruction.category for instruction in SELECTED}
    categories = Counter(of_instruction[pair.prompt_id] for pair in splits.test)
    assert {name: group["n"] for name, group in model["categories"].items()} == categories
    html = (Path(run.workdir) / "report.html").read_text("utf-8")
    assert "Accuracy on 6" in html
    assert "Where the judge disagrees with you" in html


def test_other_labels_give_other_numbers_without_judging(run: Context, tmp_path: Path) -> None:
    folder = Path(run.iteration(0)) / "evaluate"
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    numbers = evaluate.finished(run, 0, pipeline._splits(run))["labelled"]
    flipped = {row["id"]: "B" if row["label"] == "A" else "A" for row in ROWS}
    other = relabelled(run, tmp_path / "ours.jsonl", **flipped)
    pipeline.run_stage(other, "evaluate", 0)
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    anew = evaluate.finished(other, 0, pipeline._splits(other))["labelled"]
    assert anew["n"] == numbers["n"]
    assert anew["accuracy_pooled"] == pytest.approx(1 - numbers["accuracy_pooled"])
    assert anew["categories"] != numbers["categories"] or not numbers["categories"]


def test_a_pair_that_is_labelled_a_tie_stays_in_its_half(run: Context, tmp_path: Path) -> None:
    splits = pipeline._splits(run)
    tied, chooses = splits.labelled[0].id, splits.validation[0].id
    other = relabelled(run, tmp_path / "ours.jsonl", **{tied: "tie", chooses: "tie"})
    moved = pipeline._splits(other)
    assert [p.id for p in moved.labelled] == [p.id for p in splits.labelled]
    assert [p.id for p in moved.validation] == [p.id for p in splits.validation[1:]]
    numbers = evaluate.finished(other, 0, moved)["labelled"]
    assert (numbers["n"], numbers["ties"]) == (5, 1)


def test_a_half_of_ties_only_has_no_numbers(run: Context, tmp_path: Path) -> None:
    ties = {pair.id: "tie" for pair in pipeline._splits(run).labelled}
    other = relabelled(run, tmp_path / "ours.jsonl", **ties)
    assert evaluate.finished(other, 0, pipeline._splits(other))["labelled"] is None
    assert pipeline.report(other)["models"][0]["labelled"] is None


def test_training_depends_on_labels_of_the_pairs_that_choose_its_checkpoint(run: Context) -> None:
    splits = pipeline._splits(run)
    first, *rest = splits.validation

    def digest_with(by_kind: bool = False, **changes: Any) -> str:
        pairs_now = [dataclasses.replace(first, **changes), *rest]
        return scored_digest(run.iteration(1) / "train", pairs_now, by_kind=by_kind)

    assert digest_with(category="new", metadata={"note": "by Ann"}, subset="new") == digest_with()
    assert digest_with(subset="new", by_kind=True) != digest_with(by_kind=True)
    for change in ({"label": "A" if first.label == "B" else "B"}, {"response_a": "Other."}):
        assert digest_with(**change) != digest_with()


@pytest.mark.parametrize("field", ["instruction", "response_b", "reference"])
def test_other_texts_must_be_judged_again(run: Context, tmp_path: Path, field: str) -> None:
    changed = pipeline._splits(run).labelled[0].id
    rows = [row | ({field: "Another text?"} if row["id"] == changed else {}) for row in ROWS]
    config = dataclasses.replace(run.config, labelled_pairs=str(written(tmp_path / "ours.jsonl", rows)))
    other = Context(config, run.workdir)
    with raises("stage_stale", "iteration_0/evaluate"):
        evaluate.finished(other, 0, pairs.split(config, read_records(run.workdir / "pairs", Comparison)))


def test_an_evaluation_of_an_earlier_version_is_read(run: Context) -> None:
    """Earlier versions noted a hash of whole records."""
    splits = pipeline._splits(run)
    success = Path(run.iteration(0)) / "evaluate" / "SUCCESS.json"
    original = success.read_text("utf-8")
    value = json.loads(original)
    records = [pair.to_json() for pair in (*splits.test, *splits.labelled)]
    value["fingerprint"]["inputs"]["pairs"] = digest(records)
    try:
        success.write_text(json.dumps(value))
        pipeline.run_stage(run, "evaluate", 0)
        assert json.loads(success.read_text("utf-8")) == value
    finally:
        success.write_text(original)


def test_the_halves_are_written_down(run: Context, tmp_path: Path) -> None:
    splits = pipeline._splits(run)
    path = Path(run.workdir) / "splits.json"
    value = json.loads(path.read_text("utf-8"))
    assert value["labelled_pairs"] == run.config.labelled_pairs
    assert list(value["choose_checkpoints"]) == [pair.id for pair in splits.validation]
    assert list(value["evaluate"]) == [pair.id for pair in splits.labelled]
    assert value["evaluate"][splits.labelled[0].id] == text_hash(splits.labelled[0])
    write_splits(run.workdir, "", splits)
    assert not path.exists()
    pipeline._splits(run)
    assert json.loads(path.read_text("utf-8")) == value


def test_the_hash_is_of_the_texts_alone() -> None:
    pair = MADE[0]
    same = dataclasses.replace(
        pair,
        id="x",
        label="B",
        category="c",
        response_a=pair.response_b + "\n",
        response_b=f" {pair.response_a}",
    )
    assert text_hash(pair) == text_hash(same)
    for field in ("instruction", "response_a", "response_b"):
        assert text_hash(dataclasses.replace(pair, **{field: "other"})) != text_hash(pair)
    assert text_hashes([pair, same, MADE[1]]) == tuple(sorted({text_hash(pair), text_hash(MADE[1])}))


def test_the_card_of_a_model_names_the_pairs_that_chose_it(run: Context, tiny_model: Path) -> None:
    splits = pipeline._splits(run)
    source = run.seed_model
    training = fitting.Training(run, 1, "train", run.config.train, source)
    card = fitting._card(training, splits.validation)
    assert card.chosen_by == text_hashes(splits.validation)
    # A model that is trained from this one inherits them.
    heir = dataclasses.replace(training, source=dataclasses.replace(source, card=card))
    assert set(fitting._card(heir, splits.validation[:1]).chosen_by) == set(card.chosen_by)
    made_only = Context(dataclasses.replace(run.config, labelled_pairs=""), run.workdir)
    assert fitting._card(dataclasses.replace(training, context=made_only), MADE[:2]).chosen_by == ()
    seed = read_card(tiny_model)
    assert seed is not None
    assert seed.chosen_by == ()


def test_judgments_of_the_stage_are_of_test_and_labelled_pairs(run: Context) -> None:
    judged = {judgment.pair_id for judgment in read_records(run.iteration(0) / "evaluate", Judgment)}
    splits = pipeline._splits(run)
    assert judged == {pair.id for pair in (*splits.test, *splits.labelled)}
