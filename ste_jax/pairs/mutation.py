"""Faults of Python code, small ones as people make them."""

import ast
import dataclasses
from collections.abc import Callable, Iterator

_MOST_CHARACTERS = 10_000
_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mod,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault that code can have.

    Attributes:
      kind: "operator", "off_by_one", "constant", "variable", or "branch" for one that is left out.
      place: index of the node among those of the code.
      change: changes the node in place.
    """

    kind: str
    place: int
    change: Callable[[ast.AST], None]


_Change = Callable[[ast.AST], None]


def normalized(code: str) -> str | None:
    """Returns code as mutants are written, without comments; None if it is too long or no Python."""
    tree = _parsed(code)
    return None if tree is None else _written(tree)


def faults(code: str) -> list[Fault]:
    """Returns the faults that code can have, in the order of their places; none if it cannot be read."""
    tree = _parsed(code)
    if tree is None:
        return []
    variables = _variables(tree)
    return [
        Fault(kind, place, change)
        for place, node in enumerate(ast.walk(tree))
        for kind, change in _changes(node, variables)
    ]


def with_fault(code: str, fault: Fault) -> str | None:
    """Returns code with one of its `faults`, or None if that changes nothing or cannot be written."""
    tree = ast.parse(code)
    fault.change(next(node for place, node in enumerate(ast.walk(tree)) if place == fault.place))
    text = _written(tree)
    return None if text == code else text


def _parsed(code: str) -> ast.Module | None:
    if len(code) > _MOST_CHARACTERS:
        return None
    try:
        return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _written(tree: ast.Module) -> str | None:
    try:
        return ast.unparse(ast.fix_missing_locations(tree))
    except (ValueError, RecursionError):
        return None


def _variables(tree: ast.Module) -> list[str]:
    """Returns the names of arguments and assigned variables, in alphabetical order."""
    arguments = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    assigned = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return sorted(arguments | assigned)


def _changes(node: ast.AST, variables: list[str]) -> Iterator[tuple[str, _Change]]:
    """Yields the kinds of faults that a node can have, with the functions that make them."""
    yield from _operators(node)
    yield from _numbers(node)
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in variables:
        for name in variables:
            yield "variable", _setting("id", name)
    for field in ("body", "orelse"):
        block = getattr(node, field, None)
        if isinstance(block, list):
            for index, statement in enumerate(block):
                if isinstance(statement, ast.If):
                    yield "branch", _without_branch(field, index)


def _operators(node: ast.AST) -> Iterator[tuple[str, _Change]]:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        # Strictness is the classic fault of a bound; the other comparisons turn into their opposites.
        is_bound = isinstance(node.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE)
        new = [_COMPARISONS[type(node.ops[0])](), *node.ops[1:]]
        yield "off_by_one" if is_bound else "operator", _setting("ops", new)
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _ARITHMETIC:
        yield "operator", _setting("op", _ARITHMETIC[type(node.op)]())
    if isinstance(node, ast.BoolOp):
        yield "operator", _setting("op", ast.Or() if isinstance(node.op, ast.And) else ast.And())


def _numbers(node: ast.AST) -> Iterator[tuple[str, _Change]]:
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "constant", _setting("value", not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        for step in (1, -1):
            yield "constant", _setting("value", node.value + step)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        for index, argument in enumerate(node.args[:2]):
            if not isinstance(argument, ast.Constant):
                for sign in (ast.Add(), ast.Sub()):
                    yield "off_by_one", _shifted(index, sign)


def _setting(field: str, value: object) -> _Change:
    return lambda node: setattr(node, field, value)


def _shifted(index: int, sign: ast.operator) -> _Change:
    def change(node: ast.AST) -> None:
        assert isinstance(node, ast.Call)
        node.args[index] = ast.BinOp(node.args[index], sign, ast.Constant(1))

    return change


def _without_branch(field: str, index: int) -> _Change:
    """Returns the change that leaves out an `if` with what it guards, and keeps its `else`."""

    def change(node: ast.AST) -> None:
        block = getattr(node, field)
        block[index : index + 1] = block[index].orelse
        if not block and field == "body":
            block.append(ast.Pass())

    return change
