import ast
import json
import re

import pytest

from ste_jax.pairs import sandbox
from ste_jax.pairs.audit import audit
from ste_jax.pairs.digits import with_wrong_digit
from ste_jax.pairs.mutation import faults, normalized, with_fault
from ste_jax.pairs.verified_arithmetic import arithmetic
from ste_jax.pairs.verified_code import code, failing_mutants
from ste_jax.pairs.verified_rows import TestedFunction, WorkedSolution, read_functions, read_solutions
from ste_jax.pairs.verified_solutions import evaluated, solutions
from ste_jax.randomness import generator
from tests.errors import raises

needs_sandbox = pytest.mark.skipif(sandbox.unavailable() is not None, reason="no sandbox")
SHORT = sandbox.Limits(seconds=5, cpu_seconds=1)
_EQUATION = re.compile(r"(\d+) ([-+×÷]) (\d+) (?:=|makes) (\d+)")
_ANSWER = re.compile(r"(?:Answer:|answer is|result is) (\d+)")


def is_right(worked: str) -> bool:
    """Recomputes a worked solution: each equation, the chain of results, and the answer."""
    equations = [tuple(match) for match in _EQUATION.findall(worked)]
    results = [result for *_, result in equations]
    (answer,) = _ANSWER.findall(worked)
    operations = {"+": int.__add__, "-": int.__sub__, "×": int.__mul__, "÷": lambda a, b: a / b}
    return (
        all(operations[sign](int(a), int(b)) == int(result) for a, sign, b, result in equations)
        and results[:-1] == [left for left, *_ in equations][1:]
        and answer == results[-1]
    )


def test_arithmetic_is_right_in_the_better_response_alone() -> None:
    candidates = arithmetic(600, seed=1)
    assert len({candidate.key for candidate in candidates}) == 600
    for candidate in candidates:
        assert is_right(candidate.better)
        assert not is_right(candidate.worse)
        assert len(candidate.better) == len(candidate.worse)
        first = _EQUATION.findall(candidate.better)[0][0]
        assert first in candidate.instruction
    assert {c.details["variant"] for c in candidates} == {"answer", "step", "carried"}
    assert arithmetic(50, seed=1) == candidates[:50]
    assert arithmetic(50, seed=2) != candidates[:50]


def test_an_expression_has_the_value_of_its_solution() -> None:
    found = 0
    for candidate in arithmetic(300, seed=0):
        if expression := re.search(r"(?:is|late|out) ([\d(][^?.]*)[?.]", candidate.instruction):
            written = expression[1].replace("×", "*").replace("÷", "/")
            assert evaluated(written) == int(_ANSWER.findall(candidate.better)[0])
            found += 1
    assert found > 50


@pytest.mark.parametrize("number", ["7", "10", "100", "1,250.5", "0"])
def test_one_digit_is_wrong(number) -> None:
    for name in range(30):
        wrong = with_wrong_digit(number, generator(0, "digits", name))
        assert len(wrong) == len(number)
        assert sum(a != b for a, b in zip(wrong, number, strict=True)) == 1
        assert not (len(number) > 1 and wrong.startswith("0"))


CLIPS = WorkedSolution(
    id="clips",
    question="Ada sold 48 clips in May and half as many in June. How many were that?",
    answer="In June she sold 48/2 = <<48/2=24>>24 clips.\n"
    "Together that is 48+24 = <<48+24=72>>72 clips.\n#### 72",
)
RIGHT = "In June she sold 48/2 = 24 clips.\nTogether that is 48+24 = 72 clips.\nThe answer is 72."


def test_a_solution_without_marks_against_one_with_a_changed_number() -> None:
    worse = {}
    for seed in range(60):
        (candidate,) = solutions([CLIPS], seed=seed)
        assert candidate.better == RIGHT
        assert candidate.instruction == CLIPS.question
        worse.setdefault(candidate.details["variant"], set()).add(candidate.worse)
    for text in worse["answer"]:
        assert text.splitlines()[:-1] == RIGHT.splitlines()[:-1]
    for text in worse["step"]:
        assert text.endswith("72.")
        assert sum(a != b for a, b in zip(text, RIGHT, strict=True)) == 1
    for text in worse["carried"]:
        june, total = re.findall(r"= (\d+) clips", text)
        assert total == "72" or f"48+{june} = {total}" in text
        assert int(total) == 48 + int(june) or june == "24"
        assert text.endswith(f"The answer is {total}.")


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ("No marks at all. It is 5.\n#### 5", 0),
        ("It is <<2+3=5>>5.", 0),
        ("It is <<2+3=5>>5.\n#### five", 0),
        ("It is <<2+3=5>>5.\n#### 5", 1),
        ("It is $<<2000-750=1250>>1,250.\n#### 1,250", 1),
        ("It falls to 2-5 = -<<5-2=3>>3 degrees.\n#### -3", 1),
        ("Half is <<1/0=0>>0 and <<0+2=2>>2.\n#### 2", 1),
    ],
)
def test_solutions_that_can_be_changed(answer, count) -> None:
    row = WorkedSolution(id="r", question="How many?", answer=answer)
    for seed in range(12):
        made = solutions([row], seed=seed)
        assert len(made) == count
        for candidate in made:
            assert candidate.better != candidate.worse
            assert "<<" not in candidate.better + candidate.worse


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1,000*(2+3)/4", 1250),
        ("-2 + 5", 3),
        ("1/0", None),
        ("2**9", None),
        ("f(2)", None),
        ("", None),
        ("(" * 500, None),
    ],
)
def test_evaluated(expression, value) -> None:
    assert evaluated(expression) == value


CODE = """\
def total(numbers, most):
    # adds up the small numbers
    found = 0
    for i in range(len(numbers)):
        if numbers[i] <= most and numbers[i] != 3:
            found += numbers[i] * 2
    return found
"""


def test_every_fault_is_valid_code_with_one_difference() -> None:
    original = normalized(CODE)
    assert original
    made = [(fault.kind, with_fault(original, fault)) for fault in faults(original)]
    assert {kind for kind, _ in made} == {"operator", "off_by_one", "constant", "variable", "branch"}
    texts = {text for _, text in made if text}
    for text in texts:
        ast.parse(text)
        assert text != original
    for expected in (
        "numbers[i] < most and",
        "numbers[i] <= most or",
        "numbers[i] == 3",
        "found -= numbers[i]",
        "numbers[i] + 2",
        "range(len(numbers) + 1)",
        "range(len(numbers) - 1)",
        "found = 1",
        "return most",
        "len(numbers)):\n        pass\n",
    ):
        assert any(expected in text for text in texts), expected
    assert "#" not in original


def test_else_is_kept_where_a_branch_is_left_out() -> None:
    original = normalized(
        "def f(x):\n    if x > 1:\n        return 1\n    elif x:\n        return 2\n"
        "    else:\n        return 3"
    )
    assert original
    texts = [with_fault(original, fault) for fault in faults(original) if fault.kind == "branch"]
    assert texts[0] == "def f(x):\n    if x:\n        return 2\n    else:\n        return 3"
    assert texts[1] == "def f(x):\n    if x > 1:\n        return 1\n    else:\n        return 3"


@pytest.mark.parametrize(
    "text", ["def f(:", "x = '\0'", "(" * 2000, "x = 1\n" * 5000, "x = " + "-" * 3000 + "1"]
)
def test_code_that_cannot_be_read_has_no_faults(text) -> None:
    assert normalized(text) is None
    assert faults(text) == []


def function(text: str, *tests: str, id_: str = "f", setup: str = "") -> TestedFunction:
    return TestedFunction(id=id_, text="Write a function.", code=text, tests=tests, setup=setup)


TOTAL = function(CODE, "assert total([1, 2, 3, 9], 2) == 6", "assert total([], 0) == 0")


@needs_sandbox
def test_a_mutant_fails_the_tests_that_the_original_passes() -> None:
    for seed in range(4):
        (candidate,) = code([TOTAL], seed=seed, limits=SHORT)
        assert sandbox.run("\n".join((candidate.better, *TOTAL.tests))) == "passed"
        assert sandbox.run("\n".join((candidate.worse, *TOTAL.tests)), SHORT) != "passed"
        assert candidate.instruction.startswith("Write a function. ")
        assert all(test in candidate.instruction for test in TOTAL.tests)


@needs_sandbox
def test_rows_without_a_candidate_are_counted() -> None:
    constant = function("def f(x):\n    return x + 1", "assert f(1) == 2", id_="kept", setup="import math")
    made = failing_mutants(
        [
            constant,
            function("def f(:", "assert f(1) == 2"),
            function("def f(x):\n    return x", "assert f(1) == 2"),
            function("def f(x):\n    while x: pass", "assert f(1) == 2"),
            function("def f(x):\n    return x + 1", "f(1)"),
            function("import os\nos._exit(0)\ndef f(x):\n    return 1", "assert f(1) == 2"),
        ],
        seed=0,
        limits=SHORT,
    )
    assert [candidate.key for candidate in made.candidates] == ["kept"]
    assert made.left_out == {"mutants_pass": 1, "tests_fail": 2, "tests_timeout": 1, "unreadable": 1}


@needs_sandbox
def test_a_mutant_without_end_fails() -> None:
    row = function("def f(n):\n    while n > 0:\n        n -= 1\n    return n", "assert f(5) == 0")
    worse = {code([row], seed=seed, limits=SHORT)[0].worse for seed in range(6)}
    assert any("n += 1" in text for text in worse)


def test_rows_are_read_from_files(tmp_path) -> None:
    solved, coded = tmp_path / "gsm8k.jsonl", tmp_path / "mbpp.jsonl"
    solved.write_text(json.dumps({"question": CLIPS.question, "answer": CLIPS.answer}) + "\n")
    assert read_solutions(str(solved)) == [
        WorkedSolution(id="gsm8k-1", question=CLIPS.question, answer=CLIPS.answer)
    ]
    rows = [
        {
            "task_id": 7,
            "text": "Do it.",
            "code": "x = 1",
            "test_list": ["assert x"],
            "test_setup_code": "import re",
        },
        {
            "task_id": 8,
            "prompt": "Do it.",
            "code": "x = 1",
            "test_list": ["assert x"],
            "test_imports": ["import os"],
        },
    ]
    coded.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = {"text": "Do it.", "code": "x = 1", "tests": ("assert x",)}
    assert read_functions(str(coded)) == [
        TestedFunction(id="mbpp-7", setup="import re", **common),
        TestedFunction(id="mbpp-8", setup="import os", **common),
    ]


@pytest.mark.parametrize("missing", ["text", "code", "test_list"])
def test_rows_without_a_column_are_refused(tmp_path, missing) -> None:
    row = {"text": "Do it.", "code": "x = 1", "test_list": ["assert x"]}
    del row[missing]
    path = tmp_path / "mbpp.jsonl"
    path.write_text(json.dumps(row))
    with raises("data_invalid", "mbpp.jsonl", missing):
        read_functions(str(path))


def test_the_audit_of_arithmetic_shows_no_length() -> None:
    numbers = audit(arithmetic(100, seed=0))
    assert (numbers.median_ratio, numbers.better_longer, numbers.within_tenth) == (1.0, 0.5, 1.0)
