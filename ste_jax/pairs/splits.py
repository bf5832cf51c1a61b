"""Divides instructions, and with them pairs, into those to train on and those that are held out.

Held-out pairs choose checkpoints (validation) and evaluate every model (test). The worse response of some
kinds of pairs is the answer to another instruction. Instructions are therefore divided before such pairs are
made, and the other instruction is one of the same part: no response of a held-out pair occurs in a training
pair.
"""

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar, get_args

from ste_jax.data.comparisons import is_identical, read_labelled_pairs
from ste_jax.data.named_columns import BY_NAME, NamedColumns
from ste_jax.errors import SteError
from ste_jax.randomness import generator
from ste_jax.records import Comparison, Part
from ste_jax.storage.readers import pick

# Key of `Comparison.metadata` with the part of a pair, where it was made from the instructions of that part.
PART = "split"
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Splits:
    """The pairs of a run by use, each part sorted by id.

    Attributes:
      train: pairs to annotate and train on; on disk if the pairs were given as records on disk.
      validation: pairs that choose checkpoints.
      test: pairs that every model is evaluated on.
      labelled: pairs of the user that every model is evaluated on.
    """

    train: Sequence[Comparison]
    validation: list[Comparison]
    test: list[Comparison]
    labelled: list[Comparison]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Minimum numbers of pairs to hold out."""

    test: int
    validation: int


def split_pairs(
    seed: int,
    pairs: Sequence[Comparison],
    held_out: HeldOut,
    labelled_path: str,
    named: NamedColumns = BY_NAME,
) -> Splits:
    """Returns the pairs by use. All pairs of an instruction are in the same part.

    Pairs that were made within the parts of their instructions stay there. Otherwise the parts follow from
    the seed and the ids of the instructions.

    Args:
      seed: seed of the run.
      pairs: the constructed pairs.
      held_out: minimum numbers of test and validation pairs.
      labelled_path: file of labelled pairs, half of which replace the validation pairs; "" for none.
      named: columns of that file that the judge prompt shows.

    Raises:
      SteError: "no_training_pairs" if all pairs are held out, "data_invalid" as `check_labelled_ids`.
    """
    validation, labelled = labelled_halves(seed, labelled_path, named)
    check_labelled_ids(labelled_path, [*validation, *labelled], (pair.id for pair in pairs))
    outlines = [_Outline(p.id, p.prompt_id, p.metadata.get(PART), i) for i, p in enumerate(pairs)]
    if any(outline.part for outline in outlines):
        parts = {part: [o for o in outlines if o.part == part] for part in get_args(Part)}
    else:
        parts = _by_rank(seed, outlines, held_out)
    if not parts["train"]:
        raise SteError(
            "no_training_pairs",
            f"pairs: all {len(pairs)} pairs are held out (pairs.test {held_out.test}, pairs.validation "
            f"{held_out.validation}); raise select.size or lower these",
        )
    train, made_validation, test = (
        pick(pairs, [outline.index for outline in sorted(parts[part])]) for part in get_args(Part)
    )
    return Splits(
        train=train,
        validation=sorted(validation, key=lambda p: p.id) if labelled_path else _decided(made_validation),
        test=list(test),
        labelled=sorted(labelled, key=lambda p: p.id),
    )


def _decided(pairs: Iterable[Comparison]) -> list[Comparison]:
    """Returns the pairs in which one response is better: ties measure no accuracy."""
    return [pair for pair in pairs if pair.label != "tie"]


class _Outline(NamedTuple):
    """Fields of a pair that the split depends on, and its index."""

    id: str
    prompt_id: str
    part: str | None
    index: int


P = TypeVar("P", Comparison, _Outline)


def build_within_parts(
    seed: int,
    ids: Iterable[str],
    held_out: HeldOut,
    build: Callable[[Part, Sequence[str]], Sequence[Comparison]],
    *,
    pairs_per_instruction: int,
) -> dict[Part, list[Comparison]]:
    """Divides instructions into parts and makes the pairs of each part from its instructions alone.

    A part gets as many instructions as its minimum number of pairs needs, and at least two, so that each has
    another one. If too few of the pairs made from them pass the checks, the part gets more instructions.

    Args:
      seed: seed of the run.
      ids: ids of the instructions.
      held_out: minimum numbers of test and validation pairs.
      build: returns the pairs of a part made from the instructions with the given ids.
      pairs_per_instruction: maximum number of pairs per instruction.

    Returns:
      The pairs by part, in the order of `build`, with their part in `metadata`.
    """
    ranked = sorted(ids, key=lambda id_: _rank(seed, id_))
    parts: dict[Part, list[Comparison]] = {}
    minimums: tuple[tuple[Part, int], ...] = (("test", held_out.test), ("validation", held_out.validation))
    for part, minimum in minimums:
        count = max(2, math.ceil(minimum / pairs_per_instruction)) if minimum else 0
        made = build(part, ranked[:count])
        while len(made) < minimum and count < len(ranked):
            count += math.ceil((minimum - len(made)) / pairs_per_instruction)
            made = build(part, ranked[:count])
        parts[part] = list(made)
        ranked = ranked[count:]
    parts["train"] = list(build("train", ranked))
    return {
        part: [dataclasses.replace(pair, metadata={**pair.metadata, PART: part}) for pair in made]
        for part, made in parts.items()
    }


def labelled_halves(
    seed: int, path: str, named: NamedColumns = BY_NAME
) -> tuple[list[Comparison], list[Comparison]]:
    """Returns the labelled pairs that choose checkpoints, and those that every model is evaluated on.

    The halves depend on the texts and not on the labels: a pair that is labelled anew stays in its half. Ties
    choose no checkpoints; in the other half they are judged but enter no accuracy.

    Args:
      seed: seed of the run.
      path: file of labelled pairs; "" for none.
      named: columns of that file that the judge prompt shows.
    """
    if not path:
        return [], []
    decided, ties, identical = read_labelled_pairs(path, named=named)
    for count, what in (
        (len(ties), "labelled tie choose no checkpoint and enter no accuracy"),
        (identical, "with equal responses are left out"),
    ):
        if count:
            _log.warning("%s: %d labelled pairs %s", path, count, what)
    pairs = _ranked(seed, [*decided, *(tie for tie in ties if not is_identical(tie))])
    prompts = list(dict.fromkeys(pair.prompt_id for pair in pairs))
    first = set(prompts[: -(-len(prompts) // 2)])
    validation = [pair for pair in pairs if pair.prompt_id in first]
    return _decided(validation), [pair for pair in pairs if pair.prompt_id not in first]


def check_labelled_ids(path: str, labelled: Sequence[Comparison], ids: Iterable[str]) -> None:
    """Raises SteError "data_invalid" if a labelled pair has the id of a constructed pair."""
    if common := {pair.id for pair in labelled}.intersection(ids):
        raise SteError("data_invalid", f"{path}: the id {min(common)!r} is also the id of a constructed pair")


def _by_rank(seed: int, pairs: Sequence[_Outline], held_out: HeldOut) -> dict[Part, list[_Outline]]:
    rest = _ranked(seed, pairs)
    test, rest = _cut(rest, held_out.test)
    validation, rest = _cut(rest, held_out.validation)
    return {"train": rest, "validation": validation, "test": test}


def _rank(seed: int, prompt_id: str) -> tuple[float, str]:
    """Returns the sort key of an instruction, which does not depend on the other instructions."""
    return generator(seed, "split", prompt_id).random(), prompt_id


def _ranked(seed: int, pairs: Sequence[P]) -> list[P]:
    return sorted(pairs, key=lambda pair: (_rank(seed, pair.prompt_id), pair.id))


def _cut(pairs: list[P], size: int) -> tuple[list[P], list[P]]:
    """Returns the first `size` pairs, with all pairs of the instruction of the last of them, and the rest."""
    last = {pair.prompt_id for pair in pairs[max(0, size - 1) : size]}
    while size < len(pairs) and pairs[size].prompt_id in last:
        size += 1
    return pairs[:size], pairs[size:]
