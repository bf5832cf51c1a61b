"""Kind `verified`, arithmetic: worked problems against the same with one wrong digit.

Problems and solutions are made by this program, so that labels are certain, and both responses are equally
long. Unlike the other two sources of `verified`, it needs no references of people.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ste_jax.pairs.candidate import Candidate
from ste_jax.pairs.digits import with_wrong_digit
from ste_jax.randomness import generator

KIND = "arithmetic"
_STEPS = (2, 6)
_MOST = 2000
_SIGNS = ("+", "-", "×", "÷")
_NAMES = ("Mia", "Omar", "Lena", "Ravi", "Chloe", "Tomas", "Aiko", "Sam", "Nadia", "Pavel")
_ITEMS = ("pens", "stamps", "marbles", "shells", "cards", "apples", "coins", "beads", "tickets", "stickers")
_STORY = {
    "+": ("{name} buys {n} more.", "A friend gives {name} {n} more.", "{name} finds another {n}."),
    "-": ("{name} gives away {n}.", "{name} loses {n} of them.", "{name} sells {n}."),
    "×": ("Then {name} collects until there are {n} times as many.",),
    "÷": ("{name} splits them into {n} equal piles and keeps only one pile.",),
}
_ORDERS = {"+": "Add {n}.", "-": "Subtract {n}.", "×": "Multiply by {n}.", "÷": "Divide by {n}."}
_EXPRESSIONS = ("What is {expression}?", "Calculate {expression}. Show each step.", "Work out {expression}.")


@dataclasses.dataclass(frozen=True)
class _Step:
    """One operation; `left` and `result` are written numbers, of which one may be wrong."""

    left: int
    sign: str
    operand: int
    result: int


def arithmetic(count: int, *, seed: int) -> list[Candidate]:
    """Returns candidates of problems with two to five steps, the first of which do not depend on `count`.

    The wrong digit is in the answer alone, in the result of a step alone, or in that result and all that
    follows from it. The three are equally frequent draws; where what follows is no whole number, or not as
    long as before, the wrong digit stands alone.
    """
    return [_candidate(index, generator(seed, KIND, index)) for index in range(count)]


def _candidate(index: int, random: np.random.Generator) -> Candidate:
    steps = _problem(random)
    question = _QUESTIONS[random.integers(len(_QUESTIONS))](steps, random)
    style = _STYLES[random.integers(len(_STYLES))]
    better = style(steps, str(steps[-1].result))
    variant, worse = _with_fault(steps, style, random)
    if len(worse) != len(better):
        # What follows from a wrong digit can be longer or shorter; a wrong answer alone is not.
        variant, worse = "answer", style(steps, with_wrong_digit(str(steps[-1].result), random))
    return Candidate(
        key=f"{KIND}-{index}",
        sources=(f"{KIND}-{index}",),
        instruction=question,
        better=better,
        worse=worse,
        details={"variant": variant, "steps": len(steps)},
    )


def _problem(random: np.random.Generator) -> list[_Step]:
    value, steps = int(random.integers(6, 100)), []
    for _ in range(random.integers(*_STEPS)):
        operands = _operands(value)
        signs = [sign for sign in _SIGNS if operands[sign]]
        sign = signs[random.integers(len(signs))]
        operand = int(random.choice(operands[sign]))
        steps.append(_Step(value, sign, operand, _applied(value, sign, operand)))
        value = steps[-1].result
    return steps


def _operands(value: int) -> dict[str, list[int]]:
    """Returns the operands by sign that keep the value a whole number from 2 to the maximum."""
    return {
        "+": list(range(2, min(100, _MOST - value))),
        "-": list(range(2, min(100, value - 1))),
        "×": [n for n in range(2, 10) if value * n <= _MOST],
        "÷": [n for n in range(2, 10) if value % n == 0 and value // n >= 2],
    }


def _applied(value: int, sign: str, operand: int) -> int:
    if sign == "÷":
        return value // operand
    return {"+": value + operand, "-": value - operand, "×": value * operand}[sign]


def _expression(steps: Sequence[_Step], random: np.random.Generator) -> str:
    text, is_sum = str(steps[0].left), False
    for step in steps:
        if step.sign in "×÷" and is_sum:
            text = f"({text})"
        is_sum = step.sign in "+-"
        text = f"{text} {step.sign} {step.operand}"
    return _EXPRESSIONS[random.integers(len(_EXPRESSIONS))].format(expression=text)


def _orders(steps: Sequence[_Step], random: np.random.Generator) -> str:
    del random
    orders = (_ORDERS[step.sign].format(n=step.operand) for step in steps)
    return f"Start with {steps[0].left}. {' '.join(orders)} Which number do you get?"


def _story(steps: Sequence[_Step], random: np.random.Generator) -> str:
    name, items = _NAMES[random.integers(len(_NAMES))], _ITEMS[random.integers(len(_ITEMS))]
    clauses = [
        _STORY[step.sign][random.integers(len(_STORY[step.sign]))].format(name=name, n=step.operand)
        for step in steps
    ]
    start = f"{name} has {steps[0].left} {items}."
    return f"{start} {' '.join(clauses)} How many {items} does {name} have now?"


_QUESTIONS: tuple[Callable[[Sequence[_Step], np.random.Generator], str], ...] = (_expression, _orders, _story)


def _lines(steps: Sequence[_Step], answer: str) -> str:
    lines = (f"{step.left} {step.sign} {step.operand} = {step.result}" for step in steps)
    return "\n".join((*lines, f"Answer: {answer}"))


def _numbered(steps: Sequence[_Step], answer: str) -> str:
    lines = (
        f"Step {number}: {step.left} {step.sign} {step.operand} = {step.result}."
        for number, step in enumerate(steps, start=1)
    )
    return "\n".join((*lines, f"The answer is {answer}."))


def _sentence(steps: Sequence[_Step], answer: str) -> str:
    parts = (f"{step.left} {step.sign} {step.operand} makes {step.result}" for step in steps)
    return f"{', then '.join(parts)}. So the result is {answer}."


_STYLES: tuple[Callable[[Sequence[_Step], str], str], ...] = (_lines, _numbered, _sentence)


def _with_fault(
    steps: Sequence[_Step], style: Callable[[Sequence[_Step], str], str], random: np.random.Generator
) -> tuple[str, str]:
    """Returns the name of a fault and the solution with it."""
    variant = ("answer", "step", "carried")[random.integers(3)]
    right = str(steps[-1].result)
    if variant == "answer":
        return variant, style(steps, with_wrong_digit(right, random))
    at = int(random.integers(len(steps)))
    wrong = int(with_wrong_digit(str(steps[at].result), random))
    faulty = [*steps[:at], dataclasses.replace(steps[at], result=wrong), *steps[at + 1 :]]
    if variant == "step":
        return variant, style(faulty, right)
    for index in range(at + 1, len(steps)):
        left, sign, operand = faulty[index - 1].result, steps[index].sign, steps[index].operand
        if left < 1 or (sign == "÷" and left % operand) or (sign == "-" and left < operand):
            return "step", style(faulty, right)
        faulty[index] = _Step(left, sign, operand, _applied(left, sign, operand))
    return variant, style(faulty, str(faulty[-1].result))
