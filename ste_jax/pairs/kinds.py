"""The kinds of pairs by the name of their mode in `pairs.mode`."""

from collections.abc import Callable

from ste_jax.pairs.degraded import degraded
from ste_jax.pairs.high_temperature import high_temperature
from ste_jax.pairs.modified import modified, modified_one_call
from ste_jax.pairs.other_instruction import nearest, random
from ste_jax.pairs.rejected import Candidates, PairInputs
from ste_jax.pairs.truncated import truncated

KINDS: dict[str, Callable[[PairInputs], Candidates]] = {
    "modified": modified,
    "modified_one_call": modified_one_call,
    "degraded": degraded,
    "high_temperature": high_temperature,
    "nearest": nearest,
    "random": random,
    "truncated": truncated,
}
# Kinds whose worse response was made by a model, and may be no worse.
UNCERTAIN = frozenset(("modified", "modified_one_call", "degraded", "high_temperature"))
# Kinds whose worse response answers another instruction of the run.
ACROSS_INSTRUCTIONS = frozenset(("nearest", "random"))
