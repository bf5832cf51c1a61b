"""Numbers of planted judges: known accuracy, known biases, known ties, every policy."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from ste_jax.evaluation.numbers import TIE_RULE, numbers
from ste_jax.evaluation.terminal import tables
from ste_jax.metrics.policy import POLICIES
from ste_jax.metrics.stats import wilson_interval
from tests.evaluation.evaluation_cases import item, result, right, says, wrong

WRONG, REWARDBENCH, DROPPED = (POLICIES[name] for name in ("wrong", "rewardbench", "dropped"))
KEYS = (
    *("n", "accuracy_as_given", "accuracy_swapped", "accuracy", "consistent_accuracy", "flip_rate"),
    *("first_preference", "unparsed", "interval95"),
)


def test_a_planted_judge_gets_its_numbers(tmp_path):
    rng = np.random.default_rng(0)
    items = [
        item(
            i, "AB"[i % 2], subset=("easy", "hard")[i % 5 == 0], category="c", response_a="a" * (i % 7 * 100)
        )
        for i in range(600)
    ]
    skill = {"easy": 0.9, "hard": 0.6}

    def texts(one, order, _):
        return right(one, order) if rng.random() < skill[one.subset] else wrong(one, order)

    report = numbers(result(tmp_path / "r.jsonl", items, texts), WRONG)
    assert set(KEYS) <= report.keys()
    assert report["n"] == 600
    assert report["accuracy"] == pytest.approx(0.84, abs=0.03)
    assert report["interval95"][0] < 0.84 < report["interval95"][1]
    assert report["subsets"]["easy"]["accuracy"] == pytest.approx(0.9, abs=0.03)
    assert report["subsets"]["hard"]["accuracy"] == pytest.approx(0.6, abs=0.1)
    assert report["subsets"]["hard"]["n"] == 120
    assert report["categories"]["c"]["n"] == 600
    assert sum(row["n"] for row in report["lengths"].values()) == 600
    assert list(report["lengths"]) == ["0-249", "250-999"]
    # Labels are balanced, so kappa is twice the accuracy less one.
    assert report["agreement"]["label"]["kappa"] == pytest.approx(2 * report["accuracy"] - 1, abs=0.01)
    assert report["agreement"]["orders"]["agreement"] == pytest.approx(1 - report["flip_rate"])
    text = io.StringIO()
    Console(file=text, width=120).print(tables(report))
    assert "hard" in text.getvalue()
    json.dumps(report)


def test_the_terminal_shows_what_was_left_out(tmp_path):
    notes = {"ties_left_out": 3, "attribute": "helpfulness", "columns_passed_through": ["a", "b"], "none": 0}
    data = {"source": "planted.jsonl", "hash": "d", "notes": notes, "limit": None}
    made = result(tmp_path / "r.jsonl", [item(i, "AB"[i % 2]) for i in range(4)], lambda *one: "x", data=data)
    text = io.StringIO()
    Console(file=text, width=120).print(tables(numbers(made, WRONG)))
    lines = text.getvalue().splitlines()
    assert {"ties left out: 3", "attribute: helpfulness", "columns passed through: a, b"} <= {*lines}
    assert not any(line.startswith("none") for line in lines)


def test_planted_biases_show(tmp_path):
    listed, plain = "- one\n- two\n**done**", "one and two " * 9

    def made(i):
        responses = (listed, plain) if i % 2 else (plain, listed)
        return item(i, "AB"[i // 2 % 2], response_a=responses[0], response_b=responses[1])

    items = [made(i) for i in range(80)]

    def likes_lists(one, order, _):
        first, _ = one.shown(order)
        return says("A" if first == listed else "B")

    report = numbers(result(tmp_path / "r.jsonl", items, likes_lists), WRONG)
    assert (report["accuracy"], report["consistent_accuracy"], report["flip_rate"]) == (0.5, 0.5, 0.0)
    bias = report["bias"]
    assert (bias["list"]["judge"], bias["list"]["label"], bias["list"]["n"]) == (1.0, 0.5, 80)
    assert bias["markdown"]["judge"] == 1.0
    assert bias["longer"]["judge"] == 0.0
    assert bias["first"]["judge"] == pytest.approx(0.5)
    base = report["baselines"]
    assert (base["always_first"]["accuracy"], base["always_first"]["consistent_accuracy"]) == (0.5, 0.0)
    assert base["always_longer"]["consistent_accuracy"] == 0.5
    assert base["random"]["consistent_accuracy"] == pytest.approx(0.25, abs=0.15)


def test_the_place_of_the_better_response(tmp_path):
    items = [item(i, "AB"[i % 2]) for i in range(20)]
    report = numbers(result(tmp_path / "r.jsonl", items, lambda one, order, _: says("B")), WRONG)
    assert (report["accuracy_better_first"], report["accuracy_better_second"]) == (0.0, 1.0)
    assert report["first_preference"] == 0.0


def test_policies_on_judgments_without_a_verdict(tmp_path):
    items = [item(i, "A") for i in range(10)]

    def texts(one, order, _):
        if one.id == "i0000":
            return "They are alike."
        if one.id == "i0001":
            return "[[A]] or rather [[B]]"
        return right(one, order)

    made = result(tmp_path / "r.jsonl", items, texts)
    strict, half, dropped = (numbers(made, policy) for policy in (WRONG, REWARDBENCH, DROPPED))
    # i0001 says B last: wrong as given, right swapped. RewardBench finds its [[A]] first: the reverse.
    assert strict["accuracy"] == pytest.approx((16 + 1) / 20)
    assert half["accuracy"] == pytest.approx((16 + 1 + 2 * 0.5) / 20)
    assert half["accuracy_as_given"] == pytest.approx((8 + 1 + 0.5) / 10)
    assert strict["accuracy_as_given"] == pytest.approx(8 / 10)
    assert dropped["accuracy"] == pytest.approx((16 + 1) / 18)
    assert dropped["consistent_accuracy"] == pytest.approx(8 / 9)
    assert strict["unparsed"] == half["unparsed"] == {"missing": 2}
    assert half["policy"]["score"] == 0.5


def test_pairs_of_one_prompt_are_no_independent_observations(tmp_path):
    def texts(one, order, _):
        return right(one, order) if int(one.prompt_id) % 2 else wrong(one, order)

    together = [item(i, "A", prompt_id=str(i % 10)) for i in range(200)]
    apart = [item(i, "A", prompt_id=str(i)) for i in range(200)]
    wide, narrow = (
        numbers(result(tmp_path / name, items, texts), WRONG)["interval95"]
        for name, items in (("t", together), ("a", apart))
    )
    assert wide[1] - wide[0] > 3 * (narrow[1] - narrow[0])


def test_ties_by_label_are_in_no_accuracy(tmp_path):
    items = [item(0, "A"), item(1, "tie"), item(2, "tie")]

    def texts(one, order, _):
        if one.id == "i0001":
            return says("A")  # in both orders: the two verdicts disagree, which is to say tie
        return right(one, order)

    report = numbers(result(tmp_path / "r.jsonl", items, texts), WRONG)
    assert (report["n"], report["ties"], report["accuracy"]) == (1, 2, 1.0)
    assert report["tied"] == {"n": 2, "flip_rate": 0.5, "first_preference": 0.75}
    assert report["agreement"]["with_ties"] == report["agreement"]["with_ties"] | {"n": 3, "agreement": 2 / 3}
    assert report["agreement"]["without_ties"]["n"] == 1


def test_votes_have_a_curve_and_a_stated_tie_rule(tmp_path):
    items = [item(i, "A") for i in range(30)]

    def texts(one, order, sample):
        return wrong(one, order) if sample == 0 else right(one, order)

    report = numbers(result(tmp_path / "r.jsonl", items, texts, samples=5), WRONG)
    votes = report["votes"]
    assert (votes["k"], votes["tie_rule"]) == (5, TIE_RULE)
    assert votes["curve"][0] == 0.0
    assert 0.3 < votes["curve"][1] < 0.7  # a tie each: coins
    assert votes["curve"][2:] == [1.0, pytest.approx(1.0), 1.0]
    assert report["accuracy"] == 1.0


def test_votes_do_not_hide_what_gave_no_verdict(tmp_path):
    items = [item(i, "A") for i in range(4)]

    def texts(one, order, sample):
        return right(one, order) if sample == 0 and one.id == "i0000" else "Well."

    report = numbers(result(tmp_path / "r.jsonl", items, texts, samples=3), WRONG)
    assert (report["unparsed"], report["accuracy"]) == ({"missing": 6}, 0.25)
    assert report["votes"]["unparsed_samples"] == {"missing": 22}

    cut = result(tmp_path / "c.jsonl", items, texts, samples=3, finish="length")
    assert numbers(cut, WRONG)["unparsed"] == {"truncated": 6}


def test_judgments_without_a_verdict_agree_as_the_policy_says(tmp_path):
    items = [item(i, "A") for i in range(10)]

    def texts(one, order, _):
        return right(one, order) if one.id == "i0000" else "Well."

    made = result(tmp_path / "r.jsonl", items, texts)
    for policy, n, share in ((WRONG, 10, 0.1), (REWARDBENCH, 10, 0.55), (DROPPED, 1, 1.0)):
        rows = numbers(made, policy)["agreement"]
        assert (rows["with_ties"]["n"], rows["with_ties"]["agreement"]) == (n, pytest.approx(share))
        assert rows["without_ties"]["agreement"] == rows["label"]["agreement"] == pytest.approx(share)
        one = wilson_interval(1, 1)
        assert rows["orders"] == {"n": 1, "unparsed": 0, "agreement": 1.0, "interval95": one, "kappa": None}


def test_agreement_is_drawn_by_prompt(tmp_path):
    def width(prompts):
        items = [item(i, "A", prompt_id=f"p{i % prompts}") for i in range(200)]

        def texts(one, order, _):
            return (right if int(one.prompt_id[1:]) % 2 else wrong)(one, order)

        made = result(tmp_path / f"{prompts}.jsonl", items, texts)
        low, high = numbers(made, WRONG)["agreement"]["with_ties"]["interval95"]
        return high - low

    # The error of a share of one half among so many coins.
    assert width(200) == pytest.approx(2 * 1.96 * (0.25 / 200) ** 0.5, rel=0.1)
    assert width(50) == pytest.approx(2 * 1.96 * (0.25 / 50) ** 0.5, rel=0.1)


def test_the_curve_obeys_the_policy(tmp_path):
    items = [item(i, "A") for i in range(4)]

    def texts(one, order, _):
        return "Well." if one.id == "i0000" else right(one, order)

    made = result(tmp_path / "r.jsonl", items, texts, samples=3)
    for policy, share in ((WRONG, 0.75), (REWARDBENCH, 0.875), (DROPPED, 1.0)):
        report = numbers(made, policy)
        assert report["votes"]["curve"] == [share] * 3
        assert report["accuracy"] == share


def test_stats_and_compare_need_no_jax(tmp_path):
    paths = [
        str(result(tmp_path / name, [item(0, "A"), item(1, "B")], lambda one, o, _: right(one, o)).path)
        for name in ("a.jsonl", "b.jsonl")
    ]
    program = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('jax', 'flax', 'torch', 'transformers'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "from ste_jax.cli import main\n"
        "main()\n"
    )
    for arguments in (["stats", paths[0]], ["compare", *paths]):
        command = [sys.executable, "-c", program, *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["n"] == 2
