"""Reads comparisons, rankings and scorings, from files and from dicts in memory.

Responses keep their outer white space, because the indentation of a first line of code means something;
instructions lose theirs. Columns without a meaning here pass through: in `metadata` or `extra`.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, cast

from etils import epath

from ste_jax.data.fields import (
    conversation_text,
    extra_columns,
    optional_name,
    optional_text,
    required_text,
    text_list,
    unique_id,
)
from ste_jax.data.rows import Row, read_rows
from ste_jax.errors import SteError
from ste_jax.records import SURFACE_KEY, Comparison, Outcome

Labels = Literal["required", "optional"]
Fields = Mapping[str, Any]
T = TypeVar("T")

_OPTIONAL = ("label", "prompt_id", "reference", "subset", "category")
_COMPARISON = frozenset(("id", "instruction", "response_a", "response_b", *_OPTIONAL))
_RANKING = frozenset(("id", "instruction", "responses", "reference"))
_SCORING = frozenset(("id", "instruction", "response", "baseline", "reference"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranking:
    """Responses to one instruction that are to be ranked.

    Attributes:
      id: unique in its file.
      instruction: the text that all responses answer.
      responses: at least one.
      reference: a correct answer shown to the judge, if there is one.
      extra: the other columns of the row, as JSON values.
    """

    id: str
    instruction: str
    responses: tuple[str, ...]
    reference: str | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoring:
    """One response that is to be scored.

    Attributes:
      id: unique in its file.
      instruction: the text that the response answers.
      response: the response to score.
      baseline: the opponent that it is compared with, if there is one.
      reference: a correct answer shown to the judge, if there is one.
      extra: the other columns of the row, as JSON values.
    """

    id: str
    instruction: str
    response: str
    baseline: str | None = None
    reference: str | None = None
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)


def comparison_from_row(
    row: Fields,
    where: str,
    *,
    default_id: str = "",
    labels: Labels = "optional",
    reference_column: str | None = None,
) -> Comparison:
    """Returns the comparison that a row or dict describes.

    Args:
      row: `instruction` (text or a list of chat messages), `response_a`, `response_b`; optionally `label`
        ("A", "B" or "tie"), `id`, `prompt_id`, `reference`, `subset` and `category`. All other columns are
        kept in `metadata`.
      where: the file and line, or the argument, to name in errors.
      default_id: the id of a row without one.
      labels: "required" refuses a row without a label.
      reference_column: the column that holds the reference, in place of `reference`.

    Raises:
      SteError: "data_invalid", if a column is missing or has the wrong type, the instruction is empty or the
        label is not one of the three.
    """
    _require_mapping(row, where)
    label = optional_name(row, "label", where)
    if label not in ("A", "B", "tie") and (label is not None or labels == "required"):
        found = "missing" if label is None else repr(label)
        raise SteError("data_invalid", f"{where}: the label is {found}, expected 'A', 'B' or 'tie'")
    if SURFACE_KEY in row:
        raise SteError("data_invalid", f"{where}: the column name {SURFACE_KEY} is reserved; rename it")
    optional = {name: optional_name(row, name, where) for name in ("prompt_id", "subset", "category")}
    reference = _reference(row, where, reference_column)
    columns = {"label": label, **optional, reference_column or "reference": reference}
    return Comparison(
        id=optional_name(row, "id", where) or default_id,
        prompt_id=optional["prompt_id"] or "",
        instruction=conversation_text(row, "instruction", where).strip(),
        response_a=required_text(row, "response_a", where),
        response_b=required_text(row, "response_b", where),
        label=cast(Outcome | None, label),
        reference=reference,
        subset=optional["subset"] or "",
        category=optional["category"],
        metadata=extra_columns(row, _known(_COMPARISON, reference_column)),
        columns={name: value for name, value in columns.items() if value},
    )


def ranking_from_row(
    row: Fields, where: str, *, default_id: str = "", reference_column: str | None = None
) -> Ranking:
    """Returns the ranking that a row describes: `instruction`, `responses`, optionally `id`, `reference`.

    `responses` is a list of texts, or in a CSV file such a list as JSON. See `comparison_from_row`.
    """
    _require_mapping(row, where)
    return Ranking(
        id=optional_name(row, "id", where) or default_id,
        instruction=conversation_text(row, "instruction", where).strip(),
        responses=tuple(text_list(row, "responses", where)),
        reference=_reference(row, where, reference_column),
        extra=extra_columns(row, _known(_RANKING, reference_column)),
    )


def scoring_from_row(
    row: Fields, where: str, *, default_id: str = "", reference_column: str | None = None
) -> Scoring:
    """Returns the scoring that a row describes: `instruction`, `response`, optionally `id`, `baseline`,
    `reference`.

    An empty `baseline` is an empty response. See `comparison_from_row`.
    """
    _require_mapping(row, where)
    return Scoring(
        id=optional_name(row, "id", where) or default_id,
        instruction=conversation_text(row, "instruction", where).strip(),
        response=required_text(row, "response", where),
        baseline=optional_text(row, "baseline", where),
        reference=_reference(row, where, reference_column),
        extra=extra_columns(row, _known(_SCORING, reference_column)),
    )


def comparisons_from_rows(
    rows: Iterable[Fields],
    *,
    name: str = "pairs",
    labels: Labels = "optional",
    reference_column: str | None = None,
) -> Iterator[Comparison]:
    """Yields the comparisons of dicts in memory, in their order, checked one by one as they are consumed.

    Args:
      rows: see `comparison_from_row`. A row without an id is named `pair-NAME-NUMBER`, counted from 1.
      name: name of the argument in errors, such as "pairs[3]", and in default ids.
      labels: "required" refuses rows without a label.
      reference_column: the column that holds the reference, in place of `reference`.

    Raises:
      SteError: "data_invalid", as `comparison_from_row`, or an id occurs twice.
    """
    numbered = (Row(index + 1, f"{name}[{index}]", row) for index, row in enumerate(rows))
    return _comparisons(numbered, name, labels, reference_column)


def read_comparisons(path: str, *, labels: Labels, reference_column: str | None = None) -> list[Comparison]:
    """Returns the comparisons of a .jsonl, .csv or .parquet file, in file order; the whole file is checked.

    A row without an id is named `pair-STEM-NUMBER` after the file and the line. A row without `prompt_id`
    shares the id of the first row with the same instruction.

    Args:
      path: the file; for its columns see `comparison_from_row`.
      labels: "required" refuses rows without a label.
      reference_column: the column that holds the reference, in place of `reference`.

    Raises:
      SteError: "file_not_found", "file_unreadable", or "data_invalid" with the file and line.
    """
    return list(_comparisons(read_rows(path), _stem(path), labels, reference_column))


def read_labelled_pairs(path: str) -> tuple[list[Comparison], int]:
    """Returns the comparisons of a file that are labelled A or B, and the number of ties left out.

    Raises:
      SteError: as `read_comparisons`, or "data_invalid" if all are ties.
    """
    comparisons = read_comparisons(path, labels="required")
    pairs = [comparison for comparison in comparisons if comparison.label != "tie"]
    if not pairs:
        raise SteError("data_invalid", f"{path}: all {len(comparisons)} comparisons are labelled tie")
    return pairs, len(comparisons) - len(pairs)


def load_pairs(path: str) -> list[dict[str, Any]]:
    """Returns the checked rows of a file of pairs as dicts, ready for `Judge.compare_many`.

    Every dict has `id`, `instruction`, `response_a` and `response_b`, those of `label`, `prompt_id`,
    `reference`, `subset` and `category` that have a value, and the other columns of the file as JSON values.

    Raises:
      SteError: as `read_comparisons`; labels are optional.
    """
    return [row_from_comparison(comparison) for comparison in read_comparisons(path, labels="optional")]


def row_from_comparison(comparison: Comparison) -> dict[str, Any]:
    """Returns the dict from which `comparison_from_row` builds an equal comparison."""
    fields: dict[str, Any] = {
        name: getattr(comparison, name) for name in ("id", "instruction", "response_a", "response_b")
    }
    optional = {name: getattr(comparison, name) for name in _OPTIONAL}
    return comparison.metadata | fields | {name: value for name, value in optional.items() if value}


def read_rankings(path: str, *, reference_column: str | None = None) -> list[Ranking]:
    """Returns the rankings of a .jsonl, .csv or .parquet file, in file order (see `ranking_from_row`).

    Raises:
      SteError: as `read_comparisons`.
    """
    return _read(path, "rank", ranking_from_row, reference_column)


def read_scorings(path: str, *, reference_column: str | None = None) -> list[Scoring]:
    """Returns the scorings of a .jsonl, .csv or .parquet file, in file order (see `scoring_from_row`).

    Raises:
      SteError: as `read_comparisons`.
    """
    return _read(path, "score", scoring_from_row, reference_column)


def _read(path: str, kind: str, build: Callable[..., T], reference_column: str | None) -> list[T]:
    """Returns one record per row of a file; rows without an id are named `KIND-STEM-NUMBER`."""
    stem, seen, records = _stem(path), {}, []
    for row in read_rows(path):
        id_ = unique_id(row.fields, f"{kind}-{stem}-{row.number}", row.where, seen)
        records.append(build(row.fields, row.where, default_id=id_, reference_column=reference_column))
    return records


def _comparisons(
    rows: Iterable[Row], stem: str, labels: Labels, reference_column: str | None
) -> Iterator[Comparison]:
    seen: dict[str, str] = {}
    first_id: dict[str, str] = {}
    for row in rows:
        _require_mapping(row.fields, row.where)
        id_ = unique_id(row.fields, f"pair-{stem}-{row.number}", row.where, seen)
        comparison = comparison_from_row(
            row.fields, row.where, default_id=id_, labels=labels, reference_column=reference_column
        )
        prompt_id = comparison.prompt_id or first_id.setdefault(comparison.instruction, id_)
        yield dataclasses.replace(comparison, prompt_id=prompt_id)


def _reference(row: Fields, where: str, column: str | None) -> str | None:
    """Returns the reference; a named column must exist, though single cells may be empty."""
    if column is not None and column not in row:
        raise SteError("data_invalid", f"{where}: the reference column {column} is missing")
    reference = optional_text(row, column or "reference", where)
    return reference if reference and reference.strip() else None


def _known(columns: frozenset[str], reference_column: str | None) -> frozenset[str]:
    """Returns the columns with a meaning; a `reference` column passes through if another one is named."""
    return columns if reference_column is None else columns - {"reference"} | {reference_column}


def _require_mapping(row: Any, where: str):
    if not isinstance(row, Mapping):
        raise SteError("data_invalid", f"{where}: expected a dict, not a {type(row).__name__}")


def _stem(path: str) -> str:
    return epath.Path(path).stem
