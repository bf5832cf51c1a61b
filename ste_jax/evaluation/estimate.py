"""How long an evaluation will take, said before most of it is done.

The engine sizes its programs by the longest prompt that it is given, so requests go to it in rounds of like
lengths. Of each round one prefill of every length is served first, which compiles the programs; then as many
prefills as fill all slots, of all lengths in their shares, are timed. What is left is taken to go as fast,
prefill by prefill. All of them are judgments that had to be made anyway.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise

from ste_jax.decode.protocol import Request
from ste_jax.decode.schedule import plan_prefills
from ste_jax.decode.shape import Shape

_LADDER = (
    *(128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192),
    *(12288, 16384, 24576, 32768, 65536),
)
# Where a round ends: longer prompts would leave the shorter ones few slots.
_ROUND_ENDS = (512, 2048, 8192)


def buckets_below(context: int) -> tuple[int, ...]:
    """Returns the prompt lengths to compile for: up to all that a model of this context can read."""
    return (*(size for size in _LADDER if size < context - 1), context - 1)


def length_groups(requests: Sequence[Request]) -> list[list[Request]]:
    """Returns the requests in rounds of like prompt lengths, the short ones first."""
    edges = (-1, *_ROUND_ENDS, math.inf)
    parts = [[r for r in requests if low < len(r.prompt) - 1 <= high] for low, high in pairwise(edges)]
    return [part for part in parts if part]


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds of the whole evaluation, and those of them that had passed when this was known."""

    total: float
    passed: float


def time_and_estimate(
    parts: Sequence[Sequence[Request]],
    done: Collection[str],
    shape_of: Callable[[Sequence[Request]], Shape],
    serve: Callable[[str, Sequence[Request], Collection[str]], None],
    started: float,
) -> Estimate:
    """Serves some requests of every round, and says how long all will take.

    Args:
      parts: the rounds.
      done: ids of the requests that were served before.
      shape_of: tells the sizes of the programs that serve a round.
      serve: serves some ids of a round; its first argument names the progress line.
      started: `time.monotonic()` at the start of the evaluation.
    """
    left = 0.0
    for number, part in enumerate(parts, 1):
        shape = shape_of(part)
        rest = plan_prefills(shape, [r for r in part if r.id not in done])
        # Of each length the last one: it may not be full, and would mislead.
        first = {shape.bucket(read[0]): read for read in rest}
        rest = [read for read in rest if read is not first[shape.bucket(read[0])]]
        # One after the other: beside a long prompt the programs of the short ones would not be compiled.
        for read in first.values():
            serve(f"compile {number}/{len(parts)}", part, [r.id for r in read])
        if not rest:
            continue
        # Evenly over the lengths: what takes time is how long a prompt is.
        in_flight = shape.slots * shape.prompts_per_slot
        many = max(len(first), math.ceil(len(rest) * in_flight / sum(map(len, rest))))
        many = min(len(rest), many)
        timed = [rest[(2 * i + 1) * len(rest) // (2 * many)] for i in range(many)]
        begun = time.monotonic()
        serve(f"time {number}/{len(parts)}", part, [r.id for read in timed for r in read])
        left += (time.monotonic() - begun) / many * (len(rest) - many)
    passed = time.monotonic() - started
    return Estimate(passed + left, passed)
