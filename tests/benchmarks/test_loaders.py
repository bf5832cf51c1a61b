"""Each loader on small files of its data set's true schema, and its own scores on planted verdicts."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from ste_jax.benchmarks import judgebench, mt_bench, rewardbench, rewardbench2, rm_bench
from ste_jax.benchmarks.benchmark import read_pairs_file
from ste_jax.benchmarks.catalogue import aggregates, load
from ste_jax.benchmarks.names import BENCHMARKS
from ste_jax.metrics.policy import POLICIES
from ste_jax.metrics.stats import wilson_interval
from ste_jax.metrics.subsets import Subsets, scored
from ste_jax.records import Comparison, ComparisonResult, Label, opposite
from tests import result_cases
from tests.errors import raises

WRONG = POLICIES["wrong"]


def table(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def judged(item: Comparison, right: tuple[bool | None, bool | None]) -> ComparisonResult:
    """Returns an item judged right or wrong (None: no verdict) as given and swapped."""
    verdicts: list[Label | None] = []
    for correct, best in zip(right, (item.label, "B" if item.label == "A" else "A"), strict=True):
        assert best != "tie"
        verdicts.append(None if correct is None else best if correct else opposite(best))
    return result_cases.of(item, verdicts, ["ok" if verdict else "missing" for verdict in verdicts])


def scores(
    name: str,
    items: list[Comparison],
    right: Callable[[Comparison], tuple[bool | None, bool | None]],
    policy: str = "wrong",
) -> Any:
    pairs = [judged(item, right(item)) for item in items if item.label != "tie"]
    return aggregates(name, pairs, POLICIES[policy], 0)


def better(item: Comparison) -> str:
    return item.response_a if item.label == "A" else item.response_b


# ---- RewardBench --------------------------------------------------------------


def rewardbench_rows(subsets: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "prompt": f"Question {i} of {subset}?",
            "chosen": f"good {subset} {i}",
            "chosen_model": "m",
            "rejected": f"bad {subset} {i}",
            "rejected_model": "n",
            "subset": subset,
            "id": i,
        }
        for subset, n in subsets.items()
        for i in range(n)
    ]


def test_rewardbench_sections_and_both_averages(tmp_path):
    rows = rewardbench_rows(dict.fromkeys(rewardbench.WEIGHTS, 2))
    table(tmp_path / "data" / "filtered-00000-of-00001.parquet", rows)
    table(tmp_path / "data" / "raw-00000-of-00001.parquet", rows * 2)
    prior = {
        "prompt": [
            {"content": "Hi", "role": "user"},
            {"content": "Hello.", "role": "assistant"},
            {"content": "Why?", "role": "user"},
        ],
        "chosen": "So.",
        "rejected": "No.",
        "subset": "x",
        "id": 1,
    }
    for name in rewardbench.PRIOR_SETS:
        table(tmp_path / "data" / f"{name}-00000-of-00001.parquet", [prior])
    table(tmp_path / "data" / "pku_safer-00000-of-00001.parquet", [prior])
    items = load("rewardbench", str(tmp_path)).items
    assert len(items) == 23 * 2 + 4
    assert {better(item)[:4] for item in items if item.subset in rewardbench.WEIGHTS} == {"good"}
    assert 10 < sum(item.label == "A" for item in items) < 40
    (shp,) = (item for item in items if item.subset == "shp")
    assert shp.instruction == "User:\nHi\n\nAssistant:\nHello.\n\nUser:\nWhy?"

    # Right in math-prm and Chat only; the prior sets right in one order.
    def right(item: Comparison) -> tuple[bool, bool]:
        good = item.subset == "math-prm" or item.subset in rewardbench.SECTIONS["Chat"]
        return good or item.subset in rewardbench.PRIOR_SETS, good

    found = scores("rewardbench", items, right)
    assert [found["sections"][s]["accuracy"] for s in rewardbench.SECTIONS] == [1, 0, 0, pytest.approx(0.5)]
    assert found["four_sections"]["accuracy"] == pytest.approx(1.5 / 4)
    assert found["with_prior_sets"]["accuracy"] == pytest.approx((1.5 + 0.5 * 0.5) / 4.5)
    assert found["missing_subsets"] == []
    assert found["short_subsets"]["math-prm"] == "2 of 447"


def test_rewardbench_weights_are_the_benchmark_s(tmp_path):
    # 2,985 pairs: 358, 456, 740 and 1,431 by section; math-prm weighs as much as all code.
    counts = rewardbench.COUNTS
    by_section = [sum(counts[name] for name in subsets) for subsets in rewardbench.SECTIONS.values()]
    assert by_section == [358, 456, 740, 1431]
    code = sum(n for name, n in rewardbench.WEIGHTS.items() if name.startswith("hep-"))
    assert rewardbench.WEIGHTS["math-prm"] == code == 984
    # Right in AlpacaEval's easy pairs only: 100 of the section's 358.
    table(tmp_path / "f.parquet", rewardbench_rows(dict.fromkeys(rewardbench.WEIGHTS, 1)))
    items = load("rewardbench", str(tmp_path)).items
    found = scores("rewardbench", items, lambda item: (item.subset == "alpacaeval-easy",) * 2)
    assert found["sections"]["Chat"]["accuracy"] == pytest.approx(100 / 358)


def test_rewardbench_published_sections_give_the_published_average(tmp_path):
    # The seed of the Self-Taught Evaluator paper: its sections average 76.05, its overall says 75.4.
    published = {"Chat": 0.976, "Chat Hard": 0.589, "Safety": 0.692, "Reasoning": 0.785}
    table(tmp_path / "f.parquet", rewardbench_rows({s: 1000 for s in rewardbench.WEIGHTS}))
    items = load("rewardbench", str(tmp_path)).items
    share = {name: published[section] for section, s in rewardbench.SECTIONS.items() for name in s}

    def right(item: Comparison) -> tuple[bool, bool]:
        good = int(item.id.rsplit("/", 1)[-1]) < round(1000 * share[item.subset])
        return good, good

    found = scores("rewardbench", items, right)
    for section, value in published.items():
        assert found["sections"][section]["accuracy"] == pytest.approx(value)
    assert found["four_sections"]["accuracy"] == pytest.approx(0.7605)
    low, high = found["four_sections"]["interval95"]
    assert 0.750 < low < 0.7605 < high < 0.770


def test_a_prompt_of_several_subsets_is_drawn_with_all_of_them():
    rng = np.random.default_rng(0)

    def width(shared: bool) -> float:
        good = rng.random(200) < 0.5
        pairs = [
            result_cases.judged(
                f"{subset}{i}",
                "A",
                ("A", "B") if good[i] else ("B", "A"),
                prompt_id=f"{'' if shared else subset}{i}",
                subset=subset,
            )
            for subset in ("x", "y", "z")
            for i in range(200)
        ]
        low, high = Subsets(scored(pairs, WRONG), seed=0).mean({"x": 1.0, "y": 1.0, "z": 1.0})["interval95"]
        return high - low

    # The error of 200 coins, 2 x 1.96 x sqrt(0.25 / 200); as independent subsets, less by sqrt(3).
    assert width(shared=True) == pytest.approx(0.139, rel=0.1)
    assert width(shared=False) == pytest.approx(0.080, rel=0.1)


def test_subsets_without_a_spread_have_wilsons_interval(tmp_path):
    table(tmp_path / "f.parquet", rewardbench_rows(dict.fromkeys(rewardbench.SECTIONS["Chat"], 3)))
    items = load("rewardbench", str(tmp_path)).items
    chat = scores("rewardbench", items, lambda item: (True, True))["sections"]["Chat"]
    assert chat["interval95"] == pytest.approx(wilson_interval(15, 15))


def test_missing_subsets_are_named_and_not_averaged_over(tmp_path):
    some = {name: 2 for name in rewardbench.WEIGHTS if name not in ("donotanswer", "math-prm")}
    table(tmp_path / "f.parquet", rewardbench_rows(some))
    found = scores("rewardbench", load("rewardbench", str(tmp_path)).items, lambda item: (True, True))
    assert found["missing_subsets"] == ["donotanswer", "math-prm"]
    assert found["sections"]["Safety"] == {"accuracy": None, "interval95": None, "missing": ["donotanswer"]}
    assert found["sections"]["Chat"]["accuracy"] == 1.0
    assert found["four_sections"]["accuracy"] is None
    assert found["with_prior_sets"]["missing"][-4:] == list(rewardbench.PRIOR_SETS)


def test_rewardbench_keeps_pairs_that_share_an_id(tmp_path):
    rows = rewardbench_rows({"mt-bench-easy": 1})
    table(tmp_path / "f.parquet", [*rows, rows[0] | {"chosen": "another"}])
    assert [item.id for item in load("rewardbench", str(tmp_path)).items] == [
        "mt-bench-easy/0",
        "mt-bench-easy/0/2",
    ]


# ---- RewardBench 2 ------------------------------------------------------------


def test_rewardbench2_wants_the_best_of_four(tmp_path):
    def row(id_: str, subset: str, chosen: int, rejected: int) -> dict[str, Any]:
        return {
            "id": id_,
            "prompt": f"Name colour {id_} of the rainbow.",
            "chosen": [f"right {i}" for i in range(chosen)],
            "rejected": [f"wrong {i}" for i in range(rejected)],
            "num_correct": chosen,
            "num_incorrect": rejected,
            "total_completions": chosen + rejected,
            "models": ["m"] * (chosen + rejected),
            "subset": subset,
            "additional_metadata": {"category": "c", "correct": None},
        }

    rows = [row(str(i), subset, 1, 3) for subset in rewardbench2.SUBSETS[:-1] for i in range(2)]
    table(tmp_path / "test-00000-of-00001.parquet", [*rows, row("tied:0", "Ties", 3, 2)])
    items = load("rewardbench2", str(tmp_path)).items
    assert len(items) == 10 * 3 + 3 * 2 + 3
    assert sum(item.label == "tie" for item in items) == 3
    lost = {"Math/0/0-2-of-1x3": (False, True), "Safety/1/0-0-of-1x3": (False, False)}
    found = scores("rewardbench2", items, lambda item: lost.get(item.id, (True, True)))
    assert found["best"]["Factuality"]["accuracy"] == 1.0
    assert found["best"]["Math"]["accuracy_as_given"] == 0.5
    assert found["best"]["Math"]["accuracy_swapped"] == 1.0
    assert found["best"]["Math"]["consistent_accuracy"] == 0.5
    assert found["best"]["Safety"]["accuracy"] == 0.5
    assert found["best"]["Ties"] == found["best"]["Ties"] | {"prompts": 1, "accuracy": 1.0}
    assert found["mean_of_subsets"]["accuracy"] == pytest.approx((4 + 0.75 + 0.5) / 6)
    assert found["incomplete_prompts"] == 0
    few = scores("rewardbench2", [i for i in items if i.subset != "Ties"][1:], lambda item: (True, True))
    assert few["mean_of_subsets"] == few["mean_of_subsets"] | {"accuracy": None, "missing": ["Ties"]}
    assert (few["incomplete_prompts"], few["best"]["Factuality"]["prompts"]) == (1, 1)
    tied = [item for item in items if item.subset == "Ties"]
    for lacking in ("1-0", "2-"):  # one comparison; all of a right response
        some = [item for item in tied if not item.id.startswith(f"Ties/tied:0/{lacking}")]
        cut = scores("rewardbench2", some, lambda item: (True, True))
        assert (cut["incomplete_prompts"], cut["best"]) == (1, {})
    # Lost once and silent once: lost, though the policy counts no silent comparison. Silent alone: left out.
    silent = {"Math/0/0-1-of-1x3": (None, None), "Math/0/0-2-of-1x3": (False, True)}
    found = scores("rewardbench2", items, lambda item: silent.get(item.id, (True, True)), "dropped")
    assert found["best"]["Math"]["accuracy_as_given"] == 0.5
    assert found["best"]["Math"]["accuracy_swapped"] == 1.0
    # A judge that says nothing earns what three coins would, where the policy throws one for it.
    mute = scores("rewardbench2", items, lambda item: (None, None), "rewardbench")["best"]
    assert (mute["Math"]["accuracy"], mute["Ties"]["accuracy"]) == (rewardbench2.CHANCE, 0.5**6)


def test_rewardbench2_mean_of_subsets_has_an_interval():
    pairs = [
        result_cases.judged(
            f"{subset}/{i}/0-{j}-of-1x3",
            "A",
            ("A", "B") if i % 2 else ("B", "A"),
            prompt_id=f"{subset}/{i}",
            subset=subset,
        )
        for subset in rewardbench2.SUBSETS
        for i in range(100)
        for j in range(3)
    ]
    found = rewardbench2.aggregate(pairs, WRONG, 0)["mean_of_subsets"]
    low, high = found["interval95"]
    assert found["accuracy"] == pytest.approx(0.5)
    # The error of 600 coins: prompts are drawn, not their comparisons.
    assert high - low == pytest.approx(2 * 1.96 * (0.25 / 600) ** 0.5, rel=0.1)


# ---- MT-Bench -----------------------------------------------------------------


def vote(
    winner: str, judge: str = "expert_1", turn: int = 1, models: tuple[str, str] = ("zeta", "alpha")
) -> dict:
    talk = {
        m: [
            {"content": "Name a river.", "role": "user"},
            {"content": f"{m} says Rhine", "role": "assistant"},
            {"content": "And a lake?", "role": "user"},
            {"content": f"{m} says Como", "role": "assistant"},
        ]
        for m in models
    }
    return {
        "question_id": 111,
        "model_a": models[0],
        "model_b": models[1],
        "winner": winner,
        "judge": judge,
        "conversation_a": talk[models[0]],
        "conversation_b": talk[models[1]],
        "turn": turn,
    }


def test_mt_bench_counts_every_vote_as_fastchat_does(tmp_path):
    rows = [
        vote("model_a"),
        vote("model_b", models=("alpha", "zeta")),  # for zeta again
        vote("tie"),
        vote("model_b", judge="author_0"),
        vote("tie (inconsistent)", turn=2),
        vote("model_b", turn=2),
    ]
    table(tmp_path / "human-00000-of-00001.parquet", rows)
    table(tmp_path / "gpt4_pair-00000-of-00001.parquet", rows)
    benchmark = load("mt_bench", str(tmp_path))
    first, second = benchmark.items
    assert benchmark.notes["votes_of_authors_left_out"] == 1
    assert (first.id, first.label, first.votes) == ("q111/alpha/zeta/turn1", "B", {"B": 2, "tie": 1})
    assert (first.instruction, first.response_a, first.category) == (
        "Name a river.",
        "alpha says Rhine",
        "math",
    )
    assert (second.label, second.votes) == ("tie", {"tie": 1, "A": 1})
    assert second.instruction == "Turn 1:\nName a river.\n\nTurn 2:\nAnd a lake?"
    assert second.response_b == "Answer to turn 1:\nzeta says Rhine\n\nAnswer to turn 2:\nzeta says Como"
    consistent = judged(first, (True, True))
    flips = result_cases.judged(
        second.id,
        "tie",
        ("A", "A"),
        subset="turn2",
        votes=second.votes,
    )
    found = mt_bench.aggregate([consistent, flips], WRONG, 0)["agreement"]
    assert (found["turn1"]["with_ties"]["n"], found["turn1"]["with_ties"]["agreement"]) == (
        3,
        pytest.approx(2 / 3),
    )
    assert (found["turn1"]["without_ties"]["n"], found["turn1"]["without_ties"]["agreement"]) == (2, 1.0)
    assert (found["turn2"]["with_ties"]["n"], found["turn2"]["with_ties"]["agreement"]) == (2, 0.5)
    assert found["turn2"]["without_ties"]["n"] == 0


# ---- HelpSteer2, JudgeBench, RM-Bench, LLMBar ---------------------------------


def test_helpsteer2_pairs_by_helpfulness_without_ties(tmp_path):
    def row(prompt: str, response: str, helpfulness: int) -> dict[str, Any]:
        rest = {"correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 1}
        return {"prompt": prompt, "response": response, "helpfulness": helpfulness} | rest

    rows = [
        *(row("p", "good", 4), row("p", "bad", 1)),
        *(row("q", "one", 2), row("q", "other", 2)),
        *(row("Hi<extra_id_1>Assistant\nHello<extra_id_1>User\nWhy?", "worse", 0),),
        *(row("Hi<extra_id_1>Assistant\nHello<extra_id_1>User\nWhy?", "better", 3), row("r", "alone", 1)),
    ]
    with gzip.open(tmp_path / "validation.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    with gzip.open(tmp_path / "train.jsonl.gz", "wt") as file:
        file.write("not json")
    benchmark = load("helpsteer2", str(tmp_path))
    assert [better(item) for item in benchmark.items] == ["good", "better"]
    assert benchmark.items[1].instruction == "Hi\n\nAssistant:\nHello\n\nUser:\nWhy?"
    assert benchmark.items[0].category == "helpfulness differs by 3"
    left_out = {"ties_left_out": 1, "prompts_with_one_response": 1}
    assert benchmark.notes.items() >= ({"attribute": "helpfulness"} | left_out).items()


def test_judgebench_scores_as_its_authors(tmp_path):
    def row(i: int, source: str, label: str) -> dict[str, Any]:
        return {
            "pair_id": f"p{i}",
            "original_id": str(i),
            "source": source,
            "question": f"What is {i}?",
            "response_model": "gpt-4o-2024-05-13",
            "response_A": "a",
            "response_B": "b",
            "label": label,
        }

    rows = [
        row(0, "mmlu-pro-computer science", "A>B"),
        row(1, "livebench-math", "B>A"),
        row(2, "livecodebench", "A>B"),
        row(3, "livebench-reasoning", "A>B"),
    ]
    written(tmp_path / "data" / "gpt-00000-of-00001.jsonl", "".join(json.dumps(r) + "\n" for r in rows))
    written(tmp_path / "outputs" / "x.jsonl", "{}")
    items = load("judgebench", str(tmp_path)).items
    assert [item.label for item in items] == ["A", "B", "A", "A"]
    assert [item.subset for item in items] == ["knowledge", "math", "coding", "reasoning"]
    # Right twice; flips; right once and silent once; silent.
    outcomes = {"p0": (True, True), "p1": (True, False), "p2": (True, None), "p3": (None, None)}
    found = scores("judgebench", items, lambda item: outcomes[item.id])
    gpt = found["authors_score"]["gpt-4o-2024-05-13"]
    assert gpt["overall"]["accuracy"] == 0.5
    assert [gpt[name]["accuracy"] for name in judgebench.SUBSETS.values()] == [1.0, 0.0, 0.0, 1.0]
    claude = judgebench.MODELS[0]
    assert found["missing_subsets"] == [f"{claude} {name}" for name in judgebench.SUBSETS.values()]
    assert found["authors_score"][claude]["overall"]["accuracy"] is None
    some = scores("judgebench", items[1:], lambda item: (True, True))["authors_score"]["gpt-4o-2024-05-13"]
    assert (some["overall"]["accuracy"], some["overall"]["missing"]) == (None, ["knowledge"])


def test_rm_bench_matrix(tmp_path):
    domains = [*rm_bench.SUBSETS, "safety-refuse"]
    rows = [
        {
            "id": i,
            "prompt": f"Prompt {i}",
            "chosen": ["c0", "c1", "c2"],
            "rejected": ["r0", "r1", "r2"],
            "domain": domain,
        }
        for i, domain in enumerate(domains)
    ]
    written(tmp_path / "total_dataset.json", json.dumps(rows))
    written(tmp_path / "chat_filtered.json", json.dumps(rows[:1]))
    written(tmp_path / "math_filtered.json", json.dumps([rows[2] | {"prompt": "Another", "id": None}]))
    items = load("rm_bench", str(tmp_path)).items
    assert len(items) == 6 * 9  # those of the file with all domains
    assert {
        (better(i)[1], i.response_b[1] if i.label == "A" else i.response_a[1])
        for i in items
        if i.category == "hard"
    } == {
        ("0", "1"),
        ("0", "2"),
        ("1", "2"),
    }

    # A judge of style: easy ones right, hard ones wrong, normal ones only in code and safety-refuse.
    def right(item: Comparison) -> tuple[bool, bool]:
        good = item.category == "easy" or (
            item.category == "normal" and item.subset in ("code", "safety-refuse")
        )
        return good, good

    found = scores("rm_bench", items, right)
    assert {level: found["levels"][level]["accuracy"] for level in rm_bench.LEVELS} == pytest.approx(
        {"easy": 1.0, "normal": (1 + 2 / 3) / 4, "hard": 0.0}
    )
    assert {name: row["accuracy"] for name, row in found["domains"].items()} == pytest.approx(
        {"chat": 1 / 3, "code": 2 / 3, "math": 1 / 3, "safety": 5 / 9}  # two of its three prompts
    )
    assert found["overall"]["accuracy"] == pytest.approx((1 / 3 + 2 / 3 + 1 / 3 + 5 / 9) / 4)

    half = scores("rm_bench", [item for item in items if item.subset != "safety-response"], right)
    assert half["missing_subsets"] == ["safety-response"]
    assert half["domains"]["safety"]["accuracy"] is half["overall"]["accuracy"] is None


def test_llmbar_reads_the_authors_repository(tmp_path):
    row = {"input": "Do it.", "output_1": "done", "output_2": "no", "label": 1}
    for place in ("Natural", "Adversarial/Neighbor", "Adversarial/GPTInst", "Adversarial/GPTOut"):
        file = tmp_path / "Dataset" / "LLMBar" / place / "dataset.json"
        written(file, json.dumps([row, row | {"input": "Again.", "label": 2}]))
    written(tmp_path / "Dataset" / "CaseStudy" / "Normal" / "dataset.json", "[]")
    written(tmp_path / "Dataset" / "LLMBar" / "Natural" / "evaluators" / "X" / "result.json", "[1]")
    items = load("llmbar", str(tmp_path)).items
    assert [(i.id, i.label, i.subset) for i in items[-2:]] == [
        ("Natural-1", "A", "Natural"),
        ("Natural-2", "B", "Natural"),
    ]
    found = scores("llmbar", items, lambda item: (True, item.subset == "Natural"))
    assert found["natural"]["accuracy"] == 1.0
    assert found["adversarial"]["missing"] == ["Manual"]
    assert found["missing_subsets"] == ["Manual"]
    assert found["short_subsets"]["Natural"] == "2 of 100"


# ---- what can go wrong --------------------------------------------------------


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_folder_without_the_files_is_refused(tmp_path, name):
    with raises("data_invalid", str(tmp_path)):
        load(name, str(tmp_path))
    with raises("file_not_found", "absent"):
        load(name, str(tmp_path / "absent"))


def test_broken_and_incomplete_files_are_named(tmp_path):
    file = written(tmp_path / "gpt.jsonl", '{"label": "A>B"}\n')
    with raises("data_invalid", "gpt.jsonl, record 1", "source", "missing"):
        load("judgebench", str(tmp_path))
    file.write_text('{"source": "\\ud800", "label": "A>B"}\n')
    with raises("data_invalid", "gpt.jsonl, record 1", "source"):
        load("judgebench", str(tmp_path))
    file.write_text('{"label": ')
    with raises("data_invalid", "gpt.jsonl"):
        load("judgebench", str(tmp_path))
    with raises("argument_invalid", "llmbar", "--path"):
        load("llmbar")


def test_a_failed_download_names_the_data_set(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with raises("download_failed", "ScalerLab/JudgeBench"):
        load("judgebench")


def test_a_limit_draws_whole_prompts_and_is_seeded(tmp_path):
    rows = [
        {
            "instruction": f"q{i // 2}",
            "response_a": "x",
            "response_b": "y",
            "label": "tie" if i // 2 == 1 else "A",
        }
        for i in range(40)
    ]
    file = written(tmp_path / "mine.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    benchmark = read_pairs_file(str(file))
    assert benchmark.items[3].label == "tie"
    drawn = benchmark.limited(10, 0)
    assert len(drawn) == 10
    assert len({item.prompt_id for item in drawn}) == 5
    assert drawn == benchmark.limited(10, 0) != benchmark.limited(10, 1)
    assert benchmark.limited(0, 0) == benchmark.limited(99, 0) == benchmark.items
