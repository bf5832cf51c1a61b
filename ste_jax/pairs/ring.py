"""Partners of instructions, drawn at random so that none is drawn more often than others.

The instructions stand in a circle in a random order that follows from the seed and their ids. One more
instruction changes the partners only of those that stand next to it.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

from ste_jax.pairs.candidate import Answered
from ste_jax.pairs.overlap import overlap
from ste_jax.randomness import generator


class Ring:
    """Instructions in a random circle.

    Attributes:
      answers: the instructions with their answers, in the order of the circle.
    """

    def __init__(self, answers: Sequence[Answered], *, seed: int, kind: str):
        def rank(answered: Answered) -> tuple[float, str]:
            return generator(seed, kind, answered.id, "ring").random(), answered.id

        self.answers = sorted(answers, key=rank)
        self._at = {answered.id: index for index, answered in enumerate(self.answers)}

    def after(self, answered: Answered, limit: int) -> Iterator[Answered]:
        """Yields up to `limit` of the instructions that follow, each once and without `answered` itself."""
        at, count = self._at[answered.id], len(self.answers)
        for step in range(1, min(limit, count - 1) + 1):
            yield self.answers[(at + step) % count]

    def apart(
        self, answered: Answered, limit: int, *, suits: Callable[[Answered], bool] = lambda _: True
    ) -> Answered | None:
        """Returns the first of the `limit` that follow which suits and does not overlap with `answered`."""
        found = (a for a in self.after(answered, limit) if suits(a) and overlap(answered, a) is None)
        return next(itertools.chain(found, (None,)))
