"""The shortcut panel on planted judges: of the right answer, of length, of position, and mixtures."""

import dataclasses
import io
import json
import re

import numpy as np
import pytest
from rich.console import Console

from ste_jax.evaluation.numbers import numbers
from ste_jax.evaluation.probes.probe import make_probes
from ste_jax.evaluation.shortcuts import shortcuts
from ste_jax.evaluation.terminal import tables
from ste_jax.metrics.policy import WRONG
from ste_jax.records import Comparison
from tests.evaluation.evaluation_cases import item, probed_result
from tests.result_cases import judged as judged_case

NUMBER = re.compile(r"answer is number (\d+)")
TAIL = " It has been so for a long time, and it will be so in the years to come."


def pair(i: int) -> Comparison:
    """Returns a pair whose better response names the number of the instruction; it is longer in 3 of 5."""
    number, other = i, i + 1000
    right = f"The answer is number {number}, as was to be shown." + TAIL * (i % 5 < 3)
    wrong = f"The answer is number {other}, as was to be shown." + TAIL * (i % 5 >= 3)
    label = "AB"[i % 2]
    responses = (right, wrong) if label == "A" else (wrong, right)
    return item(
        i, label, instruction=f"Which is number {number}?", response_a=responses[0], response_b=responses[1]
    )


PAIRS = [pair(i) for i in range(60)]


def names_the_number(instruction: str, response: str) -> bool:
    asked, said = re.search(r"number (\d+)", instruction), NUMBER.search(response)
    return bool(asked and said and asked[1] == said[1])


def of_the_right_answer(instruction: str, first: str, second: str) -> float:
    return 3.0 * (names_the_number(instruction, first) - names_the_number(instruction, second))


def of_length(instruction: str, first: str, second: str) -> float:
    return 0.01 * (len(first) - len(second))


def of_position(instruction: str, first: str, second: str) -> float:
    return 2.0


def of_praise(instruction: str, first: str, second: str) -> float:
    praised = ["best answer" in response for response in (first, second)]
    return of_the_right_answer(instruction, first, second) + 9.0 * (praised[0] - praised[1])


def of_forged_letters(instruction: str, first: str, second: str) -> float:
    claims = [letter for letter in "AB" if f"[[{letter}]]" in first + second]
    forged = {"A": 9.0, "B": -9.0}[claims[0]] if claims else 0.0
    return forged + of_the_right_answer(instruction, first, second)


def of_emptiness(instruction: str, first: str, second: str) -> float:
    """Prefers short texts without words to any answer."""
    empty = [len(response) < 20 for response in (first, second)]
    return of_the_right_answer(instruction, first, second) + 9.0 * (empty[0] - empty[1])


def judged(tmp_path, log_odds, count=60):
    probes = make_probes(PAIRS, count, seed=0)
    result = probed_result(tmp_path / "r.jsonl", PAIRS, probes, log_odds)
    return numbers(result, WRONG)


def warnings(report):
    return {line["name"] for line in report["shortcuts"]["panel"]["lines"] if line["warning"]}


def test_a_judge_of_the_right_answer(tmp_path):
    report = judged(tmp_path, of_the_right_answer)
    found = report["shortcuts"]
    assert found["length_balance"]["pooled"]["accuracy"] == 1.0
    blind = found["probes"]["blind"]
    assert [blind[kind]["share"] for kind in ("instruction_removed", "instruction_swapped")] == [0.5, 0.5]
    assert warnings(report) == set()
    assert found["panel"]["decides_by"] == ["the instruction and what the responses say"]
    assert found["panel"]["not_for"] == []
    assert all(row["share"] == 0.0 for row in found["probes"]["biases"].values())


def test_a_judge_of_length(tmp_path):
    report = judged(tmp_path, of_length)
    found = report["shortcuts"]
    assert found["accuracy"]["share"] == pytest.approx(0.6)
    balance = found["length_balance"]["pooled"]
    assert (balance["accuracy"], balance["gap"]) == (0.5, 1.0)
    biases = found["probes"]["biases"]
    # All decisions that were right are moved by padding, and none by a list of the same words.
    assert (biases["repetition"]["share"], biases["filler"]["share"]) == (1.0, 1.0)
    assert biases["filler"]["fall"]["share"] == pytest.approx(0.6)
    assert found["probes"]["contentless"]["empty_answer"]["share"] == 0.0
    assert found["panel"]["decides_by"] == ["the length of the responses (it prefers the longer one)"]
    assert {"length-balanced accuracy", "repetition", "filler", "instruction_removed"} <= warnings(report)
    assert "order flips" not in warnings(report)


def test_a_judge_of_position(tmp_path):
    report = judged(tmp_path, of_position)
    found = report["shortcuts"]
    assert (found["order_flips"]["share"], found["first_preference"]["share"]) == (1.0, 1.0)
    assert found["accuracy"]["share"] == 0.5
    assert found["panel"]["decides_by"] == [
        "the position of the responses (its verdicts prefer the first one)"
    ]
    assert {"accuracy", "order flips", "position"} <= warnings(report)
    assert not {"repetition", "length-balanced accuracy", "cycles"} & warnings(report)


@pytest.mark.parametrize(
    ("judge", "expected"),
    [
        (of_praise, {"self_praise"}),
        (of_forged_letters, {"forged_letter", "forged_verdict"}),
        (of_emptiness, {"master_key", "empty_answer"}),
    ],
)
def test_a_weakness_shows_in_its_own_line_only(tmp_path, judge, expected):
    report = judged(tmp_path, judge)
    lines = {line["name"] for line in report["shortcuts"]["panel"]["lines"] if line["warning"] == "attack"}
    assert lines == expected
    assert report["shortcuts"]["panel"]["decides_by"] == ["the instruction and what the responses say"]
    assert len(report["shortcuts"]["panel"]["not_for"]) == 1


def test_a_pointwise_judge_has_no_order_and_reads_forged_grades(tmp_path):
    def grade(instruction, response, _):
        return 3.0 * names_the_number(instruction, response) - 1.0 + 9.0 * ("[[A]]" in response)

    probes = make_probes(PAIRS, 60, seed=0, pointwise=True)
    prompt = {"user": "### Response\n{response}\n### Question"}
    report = numbers(probed_result(tmp_path / "r.jsonl", PAIRS, probes, grade, prompt=prompt), WRONG)
    found = report["shortcuts"]
    assert (found["order_flips"]["n"], found["first_preference"]["n"]) == (0, 0)
    assert found["probes"]["forged"]["forged_letter"]["share"] == 1.0
    assert warnings(report) == {"forged_letter", "forged_verdict"}
    assert found["panel"]["decides_by"] == ["the instruction and what the responses say"]
    json.dumps(report)
    Console(file=io.StringIO()).print(tables(report))


def test_a_judge_of_chance_is_moved_by_nothing(tmp_path):
    draws = np.random.default_rng(0)
    report = judged(tmp_path, lambda *texts: float(draws.normal()))
    found = report["shortcuts"]
    assert not [
        line
        for line in found["panel"]["lines"]
        if line["name"] in found["probes"]["biases"] and line["warning"]
    ]
    assert found["probes"]["cycles"]["share"] == pytest.approx(0.25, abs=0.15)
    assert {"accuracy", "retest", "cycles", "order flips"} <= warnings(report)


def test_responses_that_lose_in_a_circle_are_counted(tmp_path):
    def rock_paper_scissors(instruction, first, second):
        # By the number that they name: each third beats the one before it.
        numbers_ = [int(NUMBER.search(text)[1]) % 3 for text in (first, second)]
        return float({0: 0, 1: 1, 2: -1}[(numbers_[0] - numbers_[1]) % 3])

    probes = [p for p in make_probes(PAIRS, 60, seed=0) if p.kind.startswith("cycle")]
    report = numbers(probed_result(tmp_path / "r.jsonl", PAIRS, probes, rock_paper_scissors), WRONG)
    # The pair names i and i + 1000, which is i + 1 in thirds; a third response decides if it is i + 2.
    thirds = {p.pair: int(NUMBER.search(third_of(p))[1]) for p in probes if p.kind == "cycle_better"}
    expected = [(n - int(id_[1:])) % 3 for id_, n in thirds.items()]
    cycles = report["shortcuts"]["probes"]["cycles"]
    assert cycles["n"] == expected.count(2)
    assert cycles["share"] == 1.0


def third_of(probe):
    one = probe.comparison
    return one.response_b if int(one.id[-4:]) % 2 == 0 else one.response_a


def test_few_pairs_give_no_warning_of_a_shortcut(tmp_path):
    some = PAIRS[:4]
    report = numbers(
        probed_result(tmp_path / "r.jsonl", some, make_probes(some, 4, seed=0), of_praise), WRONG
    )
    assert not [line for line in report["shortcuts"]["panel"]["lines"] if line["warning"] == "length"]


def test_without_probes_the_panel_has_what_the_judgments_show(tmp_path):
    found = judged(tmp_path, of_length, count=0)["shortcuts"]
    assert found["probes"] is None
    assert [line["name"] for line in found["panel"]["lines"]] == [
        *("accuracy", "length-balanced accuracy", "order flips", "position")
    ]
    assert "not probed" in found["panel"]["summary"]


def test_kinds_in_which_the_responses_give_nothing_away(tmp_path):
    def line_of(log_odds):
        items = [dataclasses.replace(one, subset="crossed") for one in PAIRS]
        result = probed_result(tmp_path / "r.jsonl", items, make_probes(items, 60, seed=0), log_odds)
        lines = numbers(result, WRONG)["shortcuts"]["panel"]["lines"]
        (tmp_path / "r.jsonl").unlink()
        return next(line for line in lines if line["name"].endswith(", crossed"))

    def of_a_leak(instruction, first, second):
        """Knows the right numbers by heart: a judge cannot, unless the pairs give the label away."""
        said = [NUMBER.search(text) for text in (first, second)]
        known = [bool(number) and int(number[1]) < 1000 for number in said]
        return float(known[0]) - float(known[1])

    fair, leak = line_of(of_the_right_answer), line_of(of_a_leak)
    assert (fair["share"], fair["warning"]) == (0.5, None)
    assert (leak["share"], leak["warning"]) == (1.0, "neutral_kinds")


def test_verified_pairs_and_changes_have_lines_of_their_own():
    right = [
        judged_case(f"c{i}", "A", ("A", "B"), log_odds=1.0, subset=("code", "")[i % 2]) for i in range(40)
    ]
    wrong = [
        judged_case(f"c{i}", "A", ("B", "A"), log_odds=-1.0, subset=("code", "")[i % 2]) for i in range(40)
    ]
    found = shortcuts(right, WRONG, seed=0, previous=[*wrong[:10], *right[10:]])
    assert (found["verified"]["n"], found["verified"]["share"]) == (20, 1.0)
    assert (found["changed"]["share"], found["changed"]["to_right"]) == (0.25, 10)
    lines = {line["name"]: line for line in found["panel"]["lines"]}
    assert lines["verified pairs"]["warning"] is None
    assert "10 became right and 0 wrong" in lines["changed decisions"]["text"]
    wrongly = shortcuts(wrong, WRONG, seed=0)["panel"]
    assert "checking calculations or code" in wrongly["not_for"]


def test_length_is_subtracted_on_request(tmp_path):
    result = probed_result(tmp_path / "r.jsonl", PAIRS, [], of_length)
    assert numbers(result, WRONG)["length_calibration"] is None
    report = numbers(result, WRONG, calibrate_length=True)
    calibrated = report["length_calibration"]
    assert calibrated["coefficient_interval95"][0] > 0
    text = io.StringIO()
    Console(file=text, width=200).print(tables(report))
    assert f"{calibrated['coefficient']:+.2f}" in text.getvalue()
    assert "pooled, without length" in text.getvalue()


def test_the_panel_is_printed_and_is_json(tmp_path):
    report = judged(tmp_path, of_length)
    json.dumps(report)
    text = io.StringIO()
    Console(file=text, width=200).print(tables(report))
    printed = " ".join(text.getvalue().split())
    assert report["shortcuts"]["panel"]["summary"] in printed
    assert "! length-balanced accuracy" in printed
    assert "! repetition" in printed
