"""Checkable requirements on a text: their types, and the requirements that hold for one of two texts only."""

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from ste_jax.pairs.reading import is_blank, normal

Values = tuple[str | int, ...]


def _no_values(meets: str, fails: str) -> Iterable[Values]:
    del meets, fails
    return [()]


def _never(instruction: str, *values: str | int) -> bool:
    del instruction, values
    return False


@dataclasses.dataclass(frozen=True)
class PredicateType:
    """A kind of requirement, such as "contains the word {0}".

    Attributes:
      name: its name.
      check: whether a text, in the form of `reading.normal`, meets the requirement with the given values;
        None where careful readers may differ.
      wordings: sentences that state the requirement; "{0}", "{1}" stand for the values. One that ends with a
        colon stands before the instruction, any other after it.
      propose: values that are worth a try for a text that is to meet the requirement and one that is to fail
        it, in an order that depends on nothing else.
      clashes: whether an instruction already speaks of what the requirement is about, so that both may
        contradict each other.
    """

    name: str
    check: Callable[..., bool | None]
    wordings: tuple[str, ...]
    propose: Callable[[str, str], Iterable[Values]] = _no_values
    clashes: Callable[..., bool] = _never

    def separating(
        self, instruction: str, meets: str, fails: str, rng: np.random.Generator
    ) -> "Predicate | None":
        """Returns a random predicate of this type that holds for one text and not for the other.

        None if there is none, or none that goes with the instruction.
        """
        if is_blank(meets) or is_blank(fails):
            return None
        values = list(self.propose(normal(meets), normal(fails)))
        order = rng.permutation(len(values)) if len(values) > 1 else range(len(values))
        for index in order:
            predicate = Predicate(self, values[index])
            if predicate.separates(meets, fails) and not self.clashes(instruction, *values[index]):
                return predicate
        return None


@dataclasses.dataclass(frozen=True)
class Predicate:
    """A requirement: a type with its values."""

    type: PredicateType
    values: Values = ()

    def holds(self, text: str) -> bool | None:
        """Returns whether a text meets the requirement; None if that is unclear, as for a blank text."""
        return None if is_blank(text) else self.type.check(normal(text), *self.values)

    def separates(self, meets: str, fails: str) -> bool:
        """Returns True if it is certain that the first text meets the requirement and the second does not."""
        return self.holds(meets) is True and self.holds(fails) is False

    def wordings(self) -> list[str]:
        """Returns the sentences that state the requirement."""
        return [wording.format(*self.values) for wording in self.type.wordings]
