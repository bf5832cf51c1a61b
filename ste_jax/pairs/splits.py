"""Which pairs are trained on, and which are held out to choose checkpoints and to evaluate every model."""

import dataclasses

from ste_jax.config import RunConfig
from ste_jax.data.comparisons import read_labelled_pairs
from ste_jax.randomness import generator
from ste_jax.records import Comparison


@dataclasses.dataclass(frozen=True)
class Splits:
    """The pairs by use: to annotate, to choose checkpoints by, to evaluate on; `labelled` is the user's own
    test set.
    """

    train: list[Comparison]
    validation: list[Comparison]
    test: list[Comparison]
    labelled: list[Comparison]


def split(config: RunConfig, pairs: list[Comparison]) -> Splits:
    """Divides the pairs by a seeded draw; pairs of one instruction stay together.

    Raises:
      ValueError: nothing is left to train on, or a labelled pair has the id of an instruction.
    """
    settings = config.pairs
    validation, labelled = labelled_halves(config)
    if twice := {p.id for p in [*validation, *labelled]} & {p.id for p in pairs}:
        raise ValueError(
            f"{config.labelled_pairs}: the id {min(twice)!r} is that of an instruction too; rename it"
        )
    rest = _shuffled(config.seed, pairs)
    test, rest = _cut(rest, settings.test)
    if not config.labelled_pairs:
        validation, rest = _cut(rest, settings.validation)
    if not rest:
        raise ValueError(
            f"pairs: {len(pairs)} pairs were made, all of them held out (pairs.test {settings.test}, "
            f"pairs.validation "
            f"{settings.validation}); raise select.size, or lower these"
        )
    by_id = [sorted(part, key=lambda p: p.id) for part in (rest, validation, test, labelled)]
    return Splits(*by_id)


def labelled_halves(config: RunConfig) -> tuple[list[Comparison], list[Comparison]]:
    """Returns the labelled pairs that choose checkpoints, and those that every model is evaluated on."""
    if not config.labelled_pairs:
        return [], []
    anchors = _shuffled(config.seed, read_labelled_pairs(config.labelled_pairs)[0])
    prompts = list(dict.fromkeys(p.prompt_id for p in anchors))
    first = set(prompts[: -(-len(prompts) // 2)])
    validation = [p for p in anchors if p.prompt_id in first]
    return validation, [p for p in anchors if p.prompt_id not in first]


def _shuffled(seed: int, pairs: list[Comparison]) -> list[Comparison]:
    return sorted(pairs, key=lambda p: (generator(seed, "split", p.prompt_id).random(), p.id))


def _cut(pairs: list[Comparison], size: int) -> tuple[list[Comparison], list[Comparison]]:
    """Parts the first `size` pairs from the rest, and what belongs to the instruction of the last of them."""
    last = {pair.prompt_id for pair in pairs[max(0, size - 1) : size]}
    while size < len(pairs) and pairs[size].prompt_id in last:
        size += 1
    return pairs[:size], pairs[size:]
