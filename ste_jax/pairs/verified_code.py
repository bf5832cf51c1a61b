"""Kind `verified`, code: a function of MBPP against a mutant that fails the tests of the function.

The functions and tests are people's work, so this kind is reported apart from those without labels. Tests run
in a sandbox; docs/PAIRS.md says what it protects from.
"""

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from ste_jax.pairs import sandbox
from ste_jax.pairs.candidate import Candidate
from ste_jax.pairs.mutation import faults, normalized, with_fault
from ste_jax.pairs.verified_rows import TestedFunction
from ste_jax.randomness import generator

KIND = "code"
MAX_DIFFERENCE = 0.2
# Mutants of a function that are tried until one fails.
_TRIED = 6


@dataclasses.dataclass(frozen=True)
class FailingMutants:
    """Candidates, and the numbers of rows without one.

    Attributes:
      candidates: candidates in the order of the rows.
      left_out: numbers of rows by reason: "unreadable" (no Python, or too long), "tests_fail" (already for
        the original), "tests_timeout" (likewise) and "mutants_pass" (no mutant of nearly equal length fails).
    """

    candidates: list[Candidate]
    left_out: dict[str, int]


def code(
    rows: Sequence[TestedFunction], *, seed: int, limits: sandbox.Limits | None = None
) -> list[Candidate]:
    """Returns the candidates of `failing_mutants`."""
    return failing_mutants(rows, seed=seed, limits=limits).candidates


def failing_mutants(
    rows: Sequence[TestedFunction], *, seed: int, limits: sandbox.Limits | None = None
) -> FailingMutants:
    """Returns a candidate for each row whose code passes its tests and has a mutant that does not.

    Both responses are written in the same style, without comments. A mutant that runs without end fails.

    Raises:
      SteError: "sandbox_unavailable" if tests cannot be confined on this machine.
    """
    candidates: list[Candidate] = []
    left_out: collections.Counter[str] = collections.Counter()
    for row in rows:
        made = _candidate(row, generator(seed, KIND, row.id), limits or sandbox.Limits())
        if isinstance(made, str):
            left_out[made] += 1
        else:
            candidates.append(made)
    return FailingMutants(candidates, dict(sorted(left_out.items())))


def _candidate(row: TestedFunction, random: np.random.Generator, limits: sandbox.Limits) -> Candidate | str:
    original = normalized(row.code)
    if not original or not row.text.strip():
        return "unreadable"
    outcome = _tested(row, original, limits)
    if outcome != "passed":
        return "tests_timeout" if outcome == "timeout" else "tests_fail"
    for kind, mutant in itertools.islice(_mutants(original, random), _TRIED):
        if _tested(row, mutant, limits) != "passed":
            return Candidate(
                key=row.id,
                sources=(row.id,),
                instruction=_instruction(row),
                better=original,
                worse=mutant,
                details={"variant": kind},
            )
    return "mutants_pass"


def _tested(row: TestedFunction, text: str, limits: sandbox.Limits) -> sandbox.ProgramOutcome:
    return sandbox.run("\n".join((row.setup, text, *row.tests)), limits)


def _mutants(original: str, random: np.random.Generator) -> Iterator[tuple[str, str]]:
    """Yields kinds of faults and mutants of nearly equal length, a random one of each kind in turn."""
    by_kind = collections.defaultdict(list)
    for fault in faults(original):
        by_kind[fault.kind].append(fault)
    while by_kind:
        for kind in random.permutation(sorted(by_kind)).tolist():
            fault = by_kind[kind].pop(int(random.integers(len(by_kind[kind]))))
            if not by_kind[kind]:
                del by_kind[kind]
            mutant = with_fault(original, fault)
            if mutant and abs(len(mutant) - len(original)) <= MAX_DIFFERENCE * len(original):
                yield kind, mutant


def _instruction(row: TestedFunction) -> str:
    text = row.text.strip()
    if all(test in text for test in row.tests):
        return text
    return "\n".join((f"{text} Your code should pass these tests:", *row.tests))
