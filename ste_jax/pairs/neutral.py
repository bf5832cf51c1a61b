"""Kind `neutral`: two answers to other instructions, of which neither is better.

The pairs come in groups of four instructions h, i, j, k: under h and i the responses are the answers to j
and k, and the other way round, with the order of the two exchanged in the second pair. So each response comes
first as often as second, and no property of a response alone goes with its place. Lengths are whatever they
are.
"""

import itertools
from collections.abc import Sequence

from ste_jax.pairs.candidate import Answered, Candidate
from ste_jax.pairs.matching import random_pairs
from ste_jax.pairs.overlap import overlap
from ste_jax.pairs.usable import usable

KIND = "neutral"
_SEPARATOR = "\x1f"


def neutral(answers: Sequence[Answered], *, seed: int) -> list[Candidate]:
    """Returns four ties for each random group of four instructions of which no two overlap.

    One more instruction changes few groups.
    """
    by_id = {answered.id: answered for answered in usable(answers)}
    # The place of a pair in its group must not depend on the order of its members' names.
    pairs = {_SEPARATOR.join(sorted(pair)): pair for pair in random_pairs(by_id, seed=seed, kind=KIND)}
    made: list[Candidate] = []
    for names in random_pairs(pairs, seed=seed, kind=KIND):
        (h, i), (j, k) = ([by_id[id_] for id_ in pairs[name]] for name in names)
        overlaps = any(overlap(left, right) for left, right in itertools.product((h, i), (j, k)))
        if overlaps or h.answer == i.answer or j.answer == k.answer:
            continue
        made += [_tie(h, j, k), _tie(i, k, j), _tie(j, h, i), _tie(k, i, h)]
    return sorted(made, key=lambda candidate: candidate.key)


def _tie(judged: Answered, first: Answered, second: Answered) -> Candidate:
    return Candidate(
        key=judged.id,
        sources=(judged.id, first.id, second.id),
        instruction=judged.instruction,
        better=first.answer,
        worse=second.answer,
        is_tie=True,
    )
