"""Every benchmark from its files to what `ste stats` prints and compares; only the judgments are planted."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ste_jax.benchmarks import judgebench, llmbar, rewardbench, rewardbench2, rm_bench
from ste_jax.benchmarks.catalogue import load
from ste_jax.benchmarks.names import BENCHMARKS
from ste_jax.evaluation.compare import compare
from ste_jax.evaluation.numbers import numbers
from ste_jax.evaluation.terminal import comparison_table, tables
from ste_jax.metrics.policy import POLICIES
from tests.evaluation.evaluation_cases import result, right, wrong

WRONG = POLICIES["wrong"]


def _vote(turn: int) -> dict[str, Any]:
    def talk(text: str) -> list[dict[str, str]]:
        turns = [("user", "Name a river."), ("assistant", text), ("user", "A lake?"), ("assistant", text)]
        return [{"role": role, "content": content} for role, content in turns]

    models = {"model_a": "m", "model_b": "n", "conversation_a": talk("Rhine"), "conversation_b": talk("Oak")}
    return {"question_id": 111, "judge": "expert_1", "winner": "model_a", "turn": turn, **models}


def _files(name: str) -> dict[str, Any]:
    """Returns files of the benchmark's own schema, a prompt or two of each subset."""
    texts = {"prompt": "Why?", "chosen": "good", "rejected": "bad"}
    many = {"prompt": "Why?", "chosen": ["g0", "g1", "g2"], "rejected": ["b0", "b1", "b2"]}
    match name:
        case "rewardbench":
            files = {
                f"{s}.json": [{"subset": s, "id": i, **texts} for i in (1, 2)] for s in rewardbench.WEIGHTS
            }
            prior = texts | {"prompt": [{"role": "user", "content": "Why?"}], "id": 1}
            return files | {f"{s}.json": [prior] for s in rewardbench.PRIOR_SETS}
        case "rewardbench2":
            row = {"prompt": "Why?", "chosen": ["good"], "rejected": ["b0", "b1", "b2"]}
            return {"test.json": [{"id": s, "subset": s, **row} for s in rewardbench2.SUBSETS]}
        case "mt_bench":
            return {"human.json": [_vote(1), _vote(2)]}
        case "helpsteer2":
            rated = (("good", 4), ("bad", 0))
            return {
                "validation.json": [{"prompt": "Why?", "response": r, "helpfulness": n} for r, n in rated]
            }
        case "judgebench":
            row = {"response_A": "a", "response_B": "b", "label": "A>B"}
            asked = [(model, source) for model in judgebench.MODELS for source in judgebench.SUBSETS]
            return {
                "all.json": [
                    {"pair_id": f"{m} {s}", "response_model": m, "source": s, "question": f"{m} {s}?"} | row
                    for m, s in asked
                ]
            }
        case "rm_bench":
            return {"total_dataset.json": [{"domain": domain, **many} for domain in rm_bench.SUBSETS]}
        case _:
            row = {"input": "Do it.", "output_1": "done", "output_2": "no", "label": 1}
            return {f"{subset}/dataset.json": [row] for subset in llmbar.COUNTS}


def _leaves(scores: Any) -> list[float]:
    """Returns every accuracy and agreement among a benchmark's own scores."""
    if not isinstance(scores, dict):
        return []
    here = [scores[key] for key in ("accuracy", "agreement") if isinstance(scores.get(key), float)]
    return [*here, *(value for inner in scores.values() for value in _leaves(inner))]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_from_its_files_to_what_is_printed(tmp_path: Path, name: str) -> None:
    for file, rows in _files(name).items():
        (tmp_path / "files" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / file).write_text(json.dumps(rows))
    items = load(name, str(tmp_path / "files")).items
    judges = {"good": right, "bad": wrong}
    good, bad = (
        result(tmp_path / title, items, lambda one, order, _, say=say: say(one, order), benchmark=name)
        for title, say in judges.items()
    )
    for file, share in ((good, 1.0), (bad, 0.0)):
        report = json.loads(json.dumps(numbers(file, WRONG)))
        assert report["accuracy"] == share
        own = report["own_scores"]
        found = _leaves(own)
        assert found == pytest.approx([share] * len(found))
        assert bool(found) == (name != "helpsteer2")
        assert not own.get("missing_subsets")
        text = io.StringIO()
        Console(file=text, width=200).print(tables(report))
        assert (f"{name}: its own scores" in text.getvalue()) == bool(found)
    difference = compare(good, bad, WRONG)
    assert difference["difference"]["accuracy"] == -1.0
    Console(file=io.StringIO()).print(comparison_table(difference))
