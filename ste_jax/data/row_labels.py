"""The label of a row, from all columns that hold one: they must agree."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ste_jax.data.fields import is_absent
from ste_jax.data.labels import (
    LABEL_COLUMNS,
    ONE_HOT_COLUMNS,
    SIGNED_COLUMNS,
    Majority,
    label_of,
    one_hot_label,
    signed_label,
    vote_columns,
    vote_majority,
)
from ste_jax.errors import SteError
from ste_jax.records import Outcome

Fields = Mapping[str, Any]
CHOSEN = ("chosen", "rejected")
_MODELS: tuple[tuple[str, Outcome], ...] = (("model_a", "A"), ("model_b", "B"))
# Labels that the first and the second response have as the chosen and as the rejected one.
_BY_CHOICE: tuple[tuple[Outcome, Outcome], ...] = (("A", "B"), ("B", "A"))
# Words and numbers of a `winner` that is no name of a model.
_SIDE = re.compile(
    r"[-\d.]+|true|false|.*(?<![a-z0-9])(a|b|first|second|left|right|tie|draw|both|neither)(?![a-z0-9]).*",
    re.DOTALL,
)


def row_label(
    row: Fields, columns: Sequence[str], responses: tuple[str, str], where: str, *, numbered: bool
) -> Outcome | None:
    """Returns the label of a row: the first that is there, which no other one may contradict.

    Args:
      row: the row.
      columns: the columns of labels, in the order in which they count.
      responses: columns of the responses.
      where: position of the row.
      numbered: see `label_of`.

    Raises:
      SteError: "data_invalid", if two labels differ or one is malformed. Two things are no labels: the name
        of a model in `winner`, and ids of annotators, if there is another label.
    """
    found: tuple[str, Outcome] | None = None
    for name, label in _labels(row, columns, responses, where, numbered):
        if found and label != found[1]:
            raise SteError(
                "data_invalid",
                f"{where}: the labels of {found[0]} and {name} are different ({found[1]}, {label}); "
                "remove what is not meant",
            )
        found = found or (name, label)
    if found:
        return found[1]
    if not is_absent(row.get("winner")):
        return label_of(row, "winner", where)  # raises: a name of a model is the only label
    return None


def refuse_labels(row: Fields, where: str):
    """Refuses a row with a chosen and a rejected response that has a label, too.

    Raises:
      SteError: "data_invalid" with the column of the label.
    """
    named = [name for name in LABEL_COLUMNS if not is_absent(row.get(name)) and row.get(name) != ""]
    if not named and _votes(row, where):
        named = list(vote_columns(row))
    if named:
        raise SteError(
            "data_invalid", f"{where}: both {' and '.join(CHOSEN)} and {named[0]}; remove what is not meant"
        )


def _labels(
    row: Fields, columns: Sequence[str], responses: tuple[str, str], where: str, numbered: bool
) -> Iterator[tuple[str, Outcome]]:
    """Yields the labels of a row with the columns that hold them."""
    one_hot = [name for name in columns if name in ONE_HOT_COLUMNS][:1]
    for name in columns:
        if name in SIGNED_COLUMNS:
            label = signed_label(row, name, where)
        elif name in ONE_HOT_COLUMNS:
            label = one_hot_label(row, where) if name in one_hot else None
        elif name in LABEL_COLUMNS:
            label = _named(row, name, where, numbered)
        else:
            continue
        if label:
            yield name, label
    voters = vote_columns(columns)
    is_only = len(voters) == len(columns)
    votes = vote_majority(row, where) if is_only else _votes(row, where)
    if votes and (votes != "split" or is_only):
        yield voters[0], "tie" if votes == "split" else votes
    yield from _chosen(row, responses)


def _named(row: Fields, name: str, where: str, numbered: bool) -> Outcome | None:
    """Returns the label of a text column; None for the name of a model in `winner` that is not in the row."""
    value = row.get(name)
    if name == "winner" and isinstance(value, str) and value.strip():
        found: list[Outcome] = [label for column, label in _MODELS if row.get(column) == value]
        if len(found) == 1:
            return found[0]
        try:
            return label_of(row, name, where, numbered=numbered)
        except SteError:
            if _SIDE.fullmatch(value.strip().casefold()):
                raise
            return None
    return label_of(row, name, where, numbered=numbered)


def _votes(row: Fields, where: str) -> Majority | None:
    """Returns the majority of the votes; None if the columns hold something else, such as ids."""
    try:
        return vote_majority(row, where)
    except SteError:
        return None


def _chosen(row: Fields, responses: tuple[str, str]) -> Iterator[tuple[str, Outcome]]:
    """Yields what columns of a chosen and a rejected response say that repeat the texts of the responses."""
    texts = [row.get(name) for name in responses]
    if texts[0] == texts[1]:
        return
    for name, labels in zip(CHOSEN, _BY_CHOICE, strict=True):
        if isinstance(value := row.get(name), str | list) and value in texts:
            yield name, labels[texts.index(value)]
