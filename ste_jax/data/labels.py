"""Labels of comparisons in the forms in which data sets publish them."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from ste_jax.data.fields import is_absent, optional_name
from ste_jax.errors import SteError
from ste_jax.records import Outcome

Fields = Mapping[str, Any]
# Whole numbers of which the sign says which response is better: negative the first one.
SIGNED_COLUMNS = ("overall_preference", "preference_strength")
_STRONGEST = 3
ONE_HOT_COLUMNS = ("winner_model_a", "winner_model_b", "winner_tie")
LABEL_COLUMNS = ("label", "winner", *SIGNED_COLUMNS, *ONE_HOT_COLUMNS)
_ONE_HOT: tuple[Outcome, ...] = ("A", "B", "tie")
_VOTE_COLUMN = re.compile(r"annotator_?\d+")
_NUMBERED: dict[str, Outcome] = {"0": "tie", "1": "A", "2": "B"}
_NAMED: dict[str, Outcome] = {
    **dict.fromkeys(("a", "model_a", "response_a", "a>b", "a>>b", "b<a", "b<<a"), "A"),
    **dict.fromkeys(("b", "model_b", "response_b", "b>a", "b>>a", "a<b", "a<<b"), "B"),
    **dict.fromkeys(("tie", "a=b", "b=a", "a==b", "b==a", "[[c]]", "both_bad", "bothbad"), "tie"),
}
Majority = Outcome | Literal["split"]
_SIGNS = str.maketrans({"≻": ">", "≺": "<", "≫": ">>", "≪": "<<"})
EXPECTED = "'A', 'B' or 'tie'"
_UNCLEAR = (
    "; a number or a bool does not say which response it means: write A for the first, B for the second"
)


def label_of(fields: Fields, column: str, where: str, *, numbered: bool = False) -> Outcome | None:
    """Returns the label in a text column; None where there is no value.

    Case and blanks do not count: "A", "model_a", "[[A]]", "A>B", "tie" and "tie (bothbad)" are labels.

    Args:
      fields: the row.
      column: name of the column.
      where: position of the row.
      numbered: the responses are numbered from 1, so that the labels 1 and 2 are clear.

    Raises:
      SteError: "data_invalid", if the value names neither response; also for 0 and 1, of which nothing says
        which response they mean.
    """
    if isinstance(value := fields.get(column), bool):
        raise SteError("data_invalid", f"{where}: the {_titled(column)} is {value}, a bool{_UNCLEAR}")
    text = optional_name(fields, column, where)
    if text is None:
        return None
    plain = re.sub(r"\s+", "", unicodedata.normalize("NFKC", text).casefold()).translate(_SIGNS)
    if plain.startswith("[[") and plain.endswith("]]") and plain != "[[c]]":
        plain = plain[2:-2]
    if re.fullmatch(r"tie\(.*\)", plain):
        plain = "tie"
    number = plain.removesuffix(".0")
    if numbered and number in ("1", "2"):
        return _NUMBERED[number]
    if plain in _NAMED:
        return _NAMED[plain]
    unclear = ""
    if number in ("0", "1", "2", "-1", "true", "false"):
        unclear = _UNCLEAR
    raise SteError(
        "data_invalid", f"{where}: the {_titled(column)} is {text!r}, expected {EXPECTED}{unclear}"
    )


def signed_label(fields: Fields, column: str, where: str) -> Outcome | None:
    """Returns the label that a whole number from -3 to 3 means: the first response if it is negative."""
    value = _whole_number(fields, column, where)
    if value is None:
        return None
    if abs(value) > _STRONGEST:
        raise SteError(
            "data_invalid",
            f"{where}: the {column} is {fields[column]}, expected a number from -{_STRONGEST} (the first "
            f"response is better) to {_STRONGEST}; write labels A, B or tie for another scale",
        )
    return "A" if value < 0 else "B" if value > 0 else "tie"


def refuse_unsigned(rows: Iterable[tuple[str, Fields]], columns: Iterable[str]) -> None:
    """Refuses a scale that begins at 1, on which 1 would be the first response and is read as the second.

    A single number does not show its scale.

    Args:
      rows: positions and fields of all rows of a table.
      columns: columns of labels.

    Raises:
      SteError: "data_invalid" with the position of the first number.
    """
    rows = list(rows)
    for column in SIGNED_COLUMNS:
        found = [
            (where, value)
            for where, fields in (rows if column in columns else ())
            if (value := _whole_number(fields, column, where)) is not None
        ]
        if len({value for _, value in found}) > 1 and min(value for _, value in found) >= 1:
            raise SteError(
                "data_invalid",
                f"{found[0][0]}: the {column} is 1 or more in all rows, as on a scale that begins at 1; "
                "negative numbers prefer the first response, so write labels A, B or tie",
            )


def one_hot_label(fields: Fields, where: str) -> Outcome | None:
    """Returns the label of columns of 0 and 1, one for each outcome; None where all are without a value."""
    values = {name: _number(fields, name, where) for name in ONE_HOT_COLUMNS if name in fields}
    given = {name: value for name, value in values.items() if value is not None}
    if not given:
        return None
    outcomes = zip(ONE_HOT_COLUMNS, _ONE_HOT, strict=True)
    found: list[Outcome] = [outcome for name, outcome in outcomes if given.get(name) == 1]
    if len(found) != 1 or any(value not in (0, 1) for value in given.values()):
        raise SteError(
            "data_invalid", f"{where}: exactly one of the columns {', '.join(values)} must be 1, the others 0"
        )
    return found[0]


def vote_majority(fields: Fields, where: str) -> Majority | None:
    """Returns the label that most of several people gave: 1 and 2 for the responses, 0 for a tie.

    It is "split" without a majority for one of the three, and None where nobody voted.
    """
    votes: Counter[Outcome] = Counter()
    for name in vote_columns(fields):
        if (value := _whole_number(fields, name, where)) is not None:
            if value not in (0, 1, 2):
                raise SteError("data_invalid", f"{where}: the {name} is {value}, expected 0, 1 or 2")
            votes[_NUMBERED[str(value)]] += 1
    ranked = votes.most_common(2)
    if len(ranked) > 1 and ranked[0][1] == ranked[1][1]:
        return "split"
    return ranked[0][0] if ranked else None


def vote_columns(columns: Iterable[str]) -> tuple[str, ...]:
    """Returns the columns that hold one vote each, such as annotator1."""
    return tuple(name for name in columns if _VOTE_COLUMN.fullmatch(name))


def _whole_number(fields: Fields, name: str, where: str) -> int | None:
    """Returns a whole number, or None where there is no value; bools and fractions are refused."""
    value = _number(fields, name, where)
    if value is None:
        return None
    if isinstance(fields.get(name), bool) or not value.is_integer():
        raise SteError("data_invalid", f"{where}: the {name} is {fields[name]}, expected a whole number")
    return int(value)


def _number(fields: Fields, name: str, where: str) -> float | None:
    """Returns a number, also one written as text (in CSV files), or None where there is no value."""
    value = fields.get(name)
    if is_absent(value) or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool | int | float | str):
        try:
            return float(value)
        except (ValueError, OverflowError):
            pass
    raise SteError("data_invalid", f"{where}: the {name} is not a number")


def _titled(column: str) -> str:
    return "label" if column == "label" else f"label, column {column},"
