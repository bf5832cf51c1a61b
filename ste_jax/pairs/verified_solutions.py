"""Kind `verified`, solutions: a worked solution of GSM8K against the same with one changed number.

The solutions are people's work, so this kind is reported apart from those without labels.
"""

import ast
import dataclasses
import operator
import re
from collections.abc import Callable, Sequence

import numpy as np

from ste_jax.pairs.candidate import Candidate
from ste_jax.pairs.digits import with_wrong_digit
from ste_jax.pairs.verified_rows import WorkedSolution
from ste_jax.randomness import generator

KIND = "solutions"
MAX_DIFFERENCE = 0.1
_MARK = re.compile(r"<<([^<>=]*)=([^<>=]*)>>")
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
_FINAL = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_OPERATIONS: dict[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclasses.dataclass(frozen=True)
class _Result:
    """A computed number: its place in the text, and the expression that it is the value of."""

    start: int
    end: int
    expression: str


def solutions(rows: Sequence[WorkedSolution], *, seed: int) -> list[Candidate]:
    """Returns a candidate for each row with a computed number and a result; the others are left out.

    In the worse response one digit of a computed number is wrong, in half of the draws with all that follows
    from it, or one digit of the final answer.
    """
    made = (_candidate(row, generator(seed, KIND, row.id)) for row in rows)
    return [candidate for candidate in made if candidate]


def _candidate(row: WorkedSolution, random: np.random.Generator) -> Candidate | None:
    worked, _, final = row.answer.rpartition("####")
    if not _FINAL.fullmatch(final.strip()) or not row.question.strip():
        return None
    text, results = _without_marks(worked.strip())
    if not results:
        return None
    whole = f"{text}\nThe answer is {final.strip()}."
    place = whole.rindex(final.strip()) + final.strip().startswith("-")
    results.append(_Result(place, place + len(final.strip().lstrip("-")), ""))
    variant, worse = _altered(whole, results, random)
    return Candidate(
        key=row.id,
        sources=(row.id,),
        instruction=row.question.strip(),
        better=whole,
        worse=worse,
        details={"variant": variant},
    )


def _without_marks(worked: str) -> tuple[str, list[_Result]]:
    """Returns the solution without calculator marks, and the numbers that stood after one."""
    text, end, results = "", 0, []
    for mark in _MARK.finditer(worked):
        text += worked[end : mark.start()]
        end = mark.end()
        if number := _NUMBER.match(worked, end):
            results.append(_Result(len(text), len(text) + len(number[0]), mark[1]))
    return text + worked[end:], results


def _altered(whole: str, results: Sequence[_Result], random: np.random.Generator) -> tuple[str, str]:
    at = int(random.integers(len(results)))
    result = results[at]
    old = whole[result.start : result.end]
    new = with_wrong_digit(old, random)
    alone = whole[: result.start] + new + whole[result.end :]
    if at == len(results) - 1:
        return "answer", alone
    if random.random() < 0.5:
        rest = _carried(whole, results, at, new)
        if rest and abs(len(rest) - len(whole)) <= MAX_DIFFERENCE * len(whole):
            return "carried", rest
    return "step", alone


def _carried(whole: str, results: Sequence[_Result], at: int, new: str) -> str | None:
    """Returns the text with a changed result and all that follows from it; None if nothing whole does."""
    first = results[at]
    changed = {_value(whole[first.start : first.end]): new}
    for result in results[at + 1 : -1]:
        expression = _NUMBER.sub(lambda n: changed.get(_value(n[0]), n[0]), result.expression)
        if expression == result.expression:
            continue
        value = evaluated(expression)
        if value is None or value < 0 or value != int(value):
            return None
        changed[_value(whole[result.start : result.end])] = str(int(value))
    rest = _NUMBER.sub(lambda n: changed.get(_value(n[0]), n[0]), whole[first.end :])
    return None if rest == whole[first.end :] else whole[: first.start] + new + rest


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def evaluated(expression: str) -> float | None:
    """Returns the value of an expression of numbers, the four operations and brackets, or None."""
    try:
        return _evaluated(ast.parse(expression.replace(",", "").strip(), mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return None


def _evaluated(node: ast.AST) -> float:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return float(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_evaluated(node.left), _evaluated(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_evaluated(node.operand)
    raise ValueError(f"not arithmetic: {ast.dump(node)[:60]}")
