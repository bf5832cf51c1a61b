"""Finds pairs that are labelled twice, with different labels.

Neither case, white space nor the composition of characters makes another pair: copies of a file often differ
in them.
"""

import unicodedata
from collections.abc import Hashable, Sequence

from ste_jax.errors import SteError
from ste_jax.records import Comparison


def pair_key(comparison: Comparison) -> tuple[tuple[str, ...], frozenset[str]]:
    """Returns what is the same for all rows about one pair, in either order of its responses."""
    responses = (comparison.response_a, comparison.response_b)
    shown = (comparison.instruction, *comparison.texts.values())
    return tuple(map(_plain, shown)), frozenset(map(_plain, responses))


def refuse_contradictions(
    comparisons: Sequence[Comparison], places: Sequence[str], voters: Sequence[Hashable] = ()
) -> None:
    """Refuses a pair of responses to one instruction with two different labels, in either order.

    Pairs whose responses differ at most in case and white space are not compared.

    Args:
      comparisons: the comparisons.
      places: their positions, as errors name them.
      voters: who labelled each comparison. Only the labels of one voter may not differ.

    Raises:
      SteError: "data_invalid" with both positions.
    """
    seen: dict[Hashable, tuple[str, str]] = {}
    for number, (comparison, where) in enumerate(zip(comparisons, places, strict=True)):
        key = pair_key(comparison)
        if comparison.label is None or len(key[1]) < 2:
            continue
        better = "" if comparison.label == "tie" else _plain(comparison.chosen)
        voter = voters[number] if voters else None
        first, place = seen.setdefault((key, voter), (better, where))
        if first != better:
            remedy = "remove one of them"
            if not voters:
                remedy += ", or add a column annotator if both are votes"
            raise SteError(
                "data_invalid", f"{where}: the label contradicts that of the same pair in {place}; {remedy}"
            )


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())
