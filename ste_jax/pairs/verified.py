"""Kinds of pairs that are made of people's references, by the name of their mode in `pairs.mode`.

The rows of the file of references are divided into parts by the hash of their id, so that no problem of a
held-out pair is one of training.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ste_jax.pairs.candidate import Candidate
from ste_jax.pairs.verified_code import code
from ste_jax.pairs.verified_rows import TestedFunction, WorkedSolution, read_functions, read_solutions
from ste_jax.pairs.verified_solutions import solutions
from ste_jax.randomness import generator
from ste_jax.records import Part
from ste_jax.storage.files import digest

Reference = WorkedSolution | TestedFunction
# Share of the rows in the test, and again in the validation.
_HELD_OUT = 1 / 8


class _Kind(NamedTuple):
    """Functions that make a kind: (path) -> rows, and (rows, seed=) -> candidates."""

    read: Callable[[str], Sequence[Any]]
    make: Callable[..., list[Candidate]]


VERIFIED = {"solutions": _Kind(read_solutions, solutions), "code": _Kind(read_functions, code)}


def read_references(mode: str, path: str) -> Sequence[Reference]:
    """Returns the rows of the file of a mode.

    Raises:
      SteError: see `verified_rows`.
    """
    return VERIFIED[mode].read(path)


def references_digest(rows: Sequence[Reference]) -> str:
    """Returns the sha256 of rows."""
    return digest([dataclasses.asdict(row) for row in rows])


def verified(mode: str, rows: Sequence[Reference], count: int, *, seed: int, part: Part) -> list[Candidate]:
    """Returns the candidates of at most `count` rows of a part; rows that give none are left out.

    Args:
      mode: a key of `VERIFIED`.
      rows: rows of its file.
      count: largest number of rows to use, those with the lowest hash.
      seed: seed of the draws.
      part: part of the pairs.
    """
    numbers = {row.id: generator(seed, "references", row.id).random() for row in rows}
    own = sorted((row for row in rows if _part_of(numbers[row.id]) == part), key=lambda row: numbers[row.id])
    return VERIFIED[mode].make(own[:count], seed=seed)


def _part_of(number: float) -> Part:
    """Returns the part of a row by its number from 0 to 1."""
    return "test" if number < _HELD_OUT else "validation" if number < 2 * _HELD_OUT else "train"
