"""Evaluations of a file whose labels have changed, and of pairs that chose the checkpoint of a judge."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ste_jax.benchmarks.benchmark import Benchmark, read_pairs_file
from ste_jax.evaluation.relabelled import texts_hash
from ste_jax.evaluation.result import read_result
from ste_jax.evaluation.run import evaluate, without_checkpoint_pairs
from ste_jax.judge import Judge
from ste_jax.pairs.used import text_hash
from ste_jax.records import Comparison
from tests.errors import raises
from tests.judges import load_judge

VERDICT: dict[str, Any] = {"prompt": "verdict", "max_new_tokens": 0, "force_verdict": True}
ROWS = [
    {
        "id": f"x{i}",
        "instruction": f"Name river number {i}.",
        "response_a": "The Rhine. " * (1 + i % 3),
        "response_b": "A rose.",
        "label": ("A", "B", "tie")[i % 3],
        "subset": "rivers",
    }
    for i in range(6)
] + [
    {"id": "long", "instruction": "Long?", "response_a": "A rose. " * 2000, "response_b": "No.", "label": "A"}
]


def pairs_file(folder: Path, name: str = "rivers.jsonl", changes: Mapping[str, Any] = {}) -> str:
    rows = [row | changes.get(row["id"], {}) for row in ROWS]
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def judge(tiny_model: Path) -> Judge:
    return load_judge(tiny_model, **VERDICT)


@pytest.fixture(scope="module")
def result(judge: Judge, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("result")
    evaluate(judge, read_pairs_file(pairs_file(folder)), out=folder / "mine.jsonl")
    return folder / "mine.jsonl"


@pytest.fixture
def out(result: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(result, tmp_path / "mine.jsonl"))


def judgments(path: Path) -> list[tuple[Any, ...]]:
    return [(j.pair_id, j.order, j.tokens, j.verdict, j.log_odds) for j in read_result(path).judgments]


NEW = {
    "x0": {"label": "B", "subset": "lakes", "note": "by Ann"},
    "x1": {"label": "tie"},
    "x2": {"label": "A"},
}


@pytest.mark.parametrize("name", ["rivers.jsonl", "rivers_by_ann.jsonl"])
def test_other_labels_are_not_judged_again(tiny_model: Path, out: Path, tmp_path: Path, name: str) -> None:
    before = judgments(out)
    fresh = load_judge(tiny_model, **VERDICT)
    found = evaluate(fresh, read_pairs_file(pairs_file(tmp_path, name, NEW)), out=out)
    assert fresh.model._engine is None, "no weights were read"
    assert judgments(out) == before
    labels = {comparison.id: comparison.label for comparison in found.result.comparisons}
    assert labels == {"x0": "B", "x1": "tie", "x2": "A", "x3": "A", "x4": "B", "x5": "tie"}
    assert found.result.too_long == ["long"]
    for judgment in found.result.judgments:
        label = labels[judgment.pair_id]
        says_a = judgment.verdict == ("A" if judgment.order == "as_given" else "B")
        assert judgment.correct == (None if label == "tie" else says_a == (label == "A"))
    assert found.numbers["subsets"].keys() == {"lakes", "rivers"}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"mine.jsonl", name})
    # Like the result of an evaluation that begins with these labels.
    again = evaluate(fresh, read_pairs_file(pairs_file(tmp_path, name, NEW)), out=out)
    assert again.numbers == found.numbers
    assert fresh.model._engine is None


def test_the_new_result_is_that_of_a_new_evaluation(judge: Judge, out: Path, tmp_path: Path) -> None:
    data = pairs_file(tmp_path, changes=NEW)
    evaluate(judge, read_pairs_file(data), out=out)
    evaluate(judge, read_pairs_file(data), out=tmp_path / "fresh.jsonl")
    assert out.read_bytes() == (tmp_path / "fresh.jsonl").read_bytes()


@pytest.mark.parametrize(
    "change", [{"instruction": "Name a lake."}, {"response_a": "The Elbe."}, {"reference": "The Rhine."}]
)
def test_other_texts_are_refused(judge: Judge, out: Path, tmp_path: Path, change: dict[str, str]) -> None:
    before = out.read_bytes()
    data = read_pairs_file(pairs_file(tmp_path, changes={"x0": change | {"label": "B"}}))
    with raises("output_mismatch", "mine.jsonl", "texts_hash"):
        evaluate(judge, data, out=out)
    assert out.read_bytes() == before


def test_other_settings_are_refused_whatever_the_labels(tiny_model: Path, out: Path, tmp_path: Path) -> None:
    other = load_judge(tiny_model, **VERDICT, seed=1)
    with raises("output_mismatch", "seed: 0 -> 1"):
        evaluate(other, read_pairs_file(pairs_file(tmp_path, changes=NEW)), out=out)


def test_a_result_without_the_hash_of_its_texts_is_not_reused(
    judge: Judge, out: Path, tmp_path: Path
) -> None:
    """Results of earlier versions do not say which reference was shown."""
    header, *lines = out.read_text("utf-8").splitlines(keepends=True)
    value = json.loads(header)
    del value["settings"]["data"]["texts_hash"], value["sha256"]
    out.write_text(json.dumps(value) + "\n" + "".join(lines))
    with raises("output_mismatch", "mine.jsonl"):
        evaluate(judge, read_pairs_file(pairs_file(tmp_path, changes=NEW)), out=out)


# ---- pairs that chose the checkpoint ----


def benchmark(folder: Path, name: str = "") -> Benchmark:
    return dataclasses.replace(read_pairs_file(pairs_file(folder)), name=name)


def test_pairs_that_chose_the_checkpoint_are_left_out_and_counted(tmp_path: Path) -> None:
    given = benchmark(tmp_path)
    hashes = [text_hash(item) for item in given.items[:2]] + ["another"]
    left = without_checkpoint_pairs(given, hashes, keep=False)
    assert [item.id for item in left.items] == [item.id for item in given.items[2:]]
    assert left.notes == given.notes | {"pairs_that_chose_the_checkpoint_left_out": 2}
    assert without_checkpoint_pairs(given, ["another"], keep=False) is given


@pytest.mark.parametrize(("name", "keep"), [("", True), ("rewardbench", False)])
def test_they_are_only_counted_where_all_pairs_belong_together(tmp_path: Path, name: str, keep: bool) -> None:
    given = benchmark(tmp_path, name)
    kept = without_checkpoint_pairs(given, [text_hash(given.items[0])], keep=keep)
    assert kept.items == given.items
    assert kept.notes == given.notes | {"pairs_that_chose_the_checkpoint": 1}


def chosen_by(model: Path, pairs: Benchmark, number: int) -> None:
    """Notes in the card of a model that the first pairs chose its checkpoint."""
    card = json.loads((model / "model.json").read_text("utf-8"))
    card["chosen_by"] = [text_hash(item) for item in pairs.items[:number]]
    (model / "model.json").write_text(json.dumps(card))


def test_a_judge_is_not_evaluated_on_what_chose_it(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    given = benchmark(tmp_path)
    chosen_by(folder, given, 3)
    judge = load_judge(folder, **VERDICT)
    found = evaluate(judge, given)
    assert [comparison.id for comparison in found.result.comparisons] == ["x3", "x4", "x5"]
    assert found.numbers["notes"]["pairs_that_chose_the_checkpoint_left_out"] == 3
    assert len(evaluate(judge, given, include_checkpoint_pairs=True).result.comparisons) == 6
    chosen_by(folder, given, 7)
    with raises("no_labels", "rivers.jsonl", "--include_checkpoint_pairs"):
        evaluate(load_judge(folder, **VERDICT), given)


def test_texts_of_shown_columns_are_texts_that_judgments_depend_on() -> None:
    pair = Comparison(id="a", instruction="Q", response_a="x", response_b="y", label="A")
    one, other = (dataclasses.replace(pair, texts={"context": text}) for text in ("one", "other"))
    assert len({texts_hash([made]) for made in (pair, one, other)}) == 3
    assert len({text_hash(made) for made in (pair, one, other)}) == 3
    assert texts_hash([one]) == texts_hash([dataclasses.replace(one, label="B")])
