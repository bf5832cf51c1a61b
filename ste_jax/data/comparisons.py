"""Reads comparisons, rankings and scorings, from files and from dicts in memory.

Responses keep their outer white space, because the indentation of a first line of code means something;
instructions lose theirs. Columns without a meaning here pass through: in `metadata` or `extra`.
"""

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from ste_jax.data.cells import refuse_conversations, refuse_written_lists, with_conversations
from ste_jax.data.contradictions import refuse_contradictions
from ste_jax.data.end_tokens import without_end_tokens
from ste_jax.data.fields import (
    extra_columns,
    is_absent,
    optional_group,
    optional_name,
    optional_text,
    required_text,
    text_list,
    unique_id,
)
from ste_jax.data.files import stem
from ste_jax.data.header import check_header, shown
from ste_jax.data.instruction_text import JOINED_COLUMNS, check_instruction, instruction_text
from ste_jax.data.labels import EXPECTED, label_of, refuse_unsigned
from ste_jax.data.named_columns import BY_NAME, NamedColumns
from ste_jax.data.pair_shapes import OPTIONAL_COLUMNS, Labels, native_row, pair_shape, with_forms
from ste_jax.data.prompt_columns import PROMPT_COLUMNS, prompt_column, with_one_prompt
from ste_jax.data.repeated_prompts import without_prompts
from ste_jax.data.rows import Row, Table, read_table
from ste_jax.errors import SteError
from ste_jax.records import SURFACE_KEY, Comparison

Fields = Mapping[str, Any]
T = TypeVar("T")
_log = logging.getLogger(__name__)

_COMPARISON = frozenset(("id", "instruction", "response_a", "response_b", *OPTIONAL_COLUMNS, *JOINED_COLUMNS))
_RANKING = frozenset(("id", "instruction", "responses", "reference", *JOINED_COLUMNS))
_SCORING = frozenset(("id", "instruction", "response", "baseline", "anchors", "reference", *JOINED_COLUMNS))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranking:
    """Responses to one instruction that are to be ranked.

    Attributes:
      id: unique in its file.
      instruction: the text that all responses answer.
      responses: at least one.
      reference: a correct answer shown to the judge, if there is one.
      texts: further texts that the judge prompt shows, by column.
      extra: the other columns of the row, as JSON values.
    """

    id: str
    instruction: str
    responses: tuple[str, ...]
    reference: str | None = None
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoring:
    """One response that is to be scored.

    Attributes:
      id: unique in its file.
      instruction: the text that the response answers.
      response: the response to score.
      baseline: the opponent that it is compared with, if there is one.
      anchors: the opponents that it is compared with, if there are several.
      reference: a correct answer shown to the judge, if there is one.
      texts: further texts that the judge prompt shows, by column.
      extra: the other columns of the row, as JSON values.
    """

    id: str
    instruction: str
    response: str
    baseline: str | None = None
    anchors: tuple[str, ...] = ()
    reference: str | None = None
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def opponents(self) -> tuple[str, ...]:
        """The responses that it is compared with."""
        return self.anchors if self.baseline is None else (self.baseline,)


def comparison_from_row(
    row: Fields,
    where: str,
    *,
    default_id: str = "",
    labels: Labels = "optional",
    named: NamedColumns = BY_NAME,
) -> Comparison:
    """Returns the comparison that a row or dict describes.

    Args:
      row: `instruction` (text or a list of chat messages), `response_a`, `response_b`; optionally `label`
        ("A", "B" or "tie", see `label_of`), `id`, `prompt_id`, `reference`, `subset` and `category`. The
        columns `JOINED_COLUMNS`, such as `system`, `history` and `input`, are joined with the instruction
        (see `instruction_text`). All other columns are kept in `metadata`.
      where: the file and line, or the argument, to name in errors.
      default_id: the id of a row without one.
      labels: "required" refuses a row without a label.
      named: the columns of the reference and of texts that the judge prompt shows.

    Raises:
      SteError: "data_invalid", if a column is missing or has the wrong type, the instruction is empty or the
        label is not one of the three.
    """
    _require_mapping(row, where)
    label = label_of(row, "label", where)
    if label is None and labels == "required":
        raise SteError("data_invalid", f"{where}: the label is missing, expected {EXPECTED}")
    optional = {name: optional_group(row, name, where) for name in ("subset", "category")}
    optional["prompt_id"] = optional_name(row, "prompt_id", where)
    reference = _reference(row, where, named)
    columns = {"label": label, **optional, named.reference or "reference": reference}
    own = named.without_shown(row)
    return Comparison(
        id=optional_name(row, "id", where) or default_id,
        prompt_id=optional["prompt_id"] or "",
        instruction=instruction_text(own, "instruction", where),
        response_a=required_text(row, "response_a", where),
        response_b=required_text(row, "response_b", where),
        label=label,
        reference=reference,
        subset=optional["subset"] or "",
        category=optional["category"],
        texts=named.texts(row, where),
        metadata=extra_columns(own, _known(_COMPARISON, named), where),
        columns={name: value for name, value in columns.items() if value},
    )


def ranking_from_row(
    row: Fields, where: str, *, default_id: str = "", named: NamedColumns = BY_NAME
) -> Ranking:
    """Returns the ranking that a row describes: `instruction`, `responses`, optionally `id`, `reference`.

    `responses` is a list of texts, or in a CSV file such a list as JSON. See `comparison_from_row`.
    """
    _require_mapping(row, where)
    own = named.without_shown(row)
    return Ranking(
        id=optional_name(row, "id", where) or default_id,
        instruction=instruction_text(own, "instruction", where),
        responses=tuple(text_list(row, "responses", where)),
        reference=_reference(row, where, named),
        texts=named.texts(row, where),
        extra=extra_columns(own, _known(_RANKING, named), where),
    )


def scoring_from_row(
    row: Fields, where: str, *, default_id: str = "", named: NamedColumns = BY_NAME
) -> Scoring:
    """Returns the scoring that a row describes: `instruction`, `response`, optionally `id`, `reference`, and
    `baseline` (a text) or `anchors` (a list of texts).

    An empty `baseline` is an empty response. See `comparison_from_row`.
    """
    _require_mapping(row, where)
    anchors = () if is_absent(row.get("anchors")) else tuple(text_list(row, "anchors", where))
    if anchors and not is_absent(row.get("baseline")):
        raise SteError("data_invalid", f"{where}: both baseline and anchors; leave one of them out")
    own = named.without_shown(row)
    return Scoring(
        id=optional_name(row, "id", where) or default_id,
        instruction=instruction_text(own, "instruction", where),
        response=required_text(row, "response", where),
        baseline=optional_text(row, "baseline", where),
        anchors=anchors,
        reference=_reference(row, where, named),
        texts=named.texts(row, where),
        extra=extra_columns(own, _known(_SCORING, named), where),
    )


def comparisons_from_rows(
    rows: Iterable[Fields],
    *,
    name: str = "pairs",
    labels: Labels = "optional",
    named: NamedColumns = BY_NAME,
) -> Iterator[Comparison]:
    """Yields the comparisons of dicts in memory, in their order, checked one by one as they are consumed.

    Args:
      rows: see `comparison_from_row`. A row without an id is named `pair-NAME-NUMBER`, counted from 1.
      name: name of the argument in errors, such as "pairs[3]", and in default ids.
      labels: "required" refuses rows without a label.
      named: the columns of the reference and of texts that the judge prompt shows.

    Raises:
      SteError: "data_invalid", as `comparison_from_row`, or an id occurs twice.
    """
    numbered = (Row(index + 1, f"{name}[{index}]", row) for index, row in enumerate(rows))
    return _comparisons(numbered, name, labels, named)


class Read(NamedTuple, Generic[T]):
    """The records of a table, and what the reader changed.

    Attributes:
      records: one for each row.
      cut: number of rows from whose responses the prompt was taken off (see `without_prompts`).
    """

    records: list[T]
    cut: int


def read_comparisons(path: str, *, labels: Labels, named: NamedColumns = BY_NAME) -> list[Comparison]:
    """Returns the comparisons of a file or folder, in order; all of it is checked.

    Published forms of pairs are read too (see `find_shape`). A row without an id is named `pair-STEM-NUMBER`
    after the file and the line. A row without `prompt_id` shares the id of the first row with the same
    instruction.

    Args:
      path: a file, or a folder of parts (see `read_table`); for its columns see `comparison_from_row`.
      labels: "required" refuses rows without a label.
      named: the columns of the reference and of texts that the judge prompt shows.

    Raises:
      SteError: "file_not_found", "file_unreadable", or "data_invalid" with the file and line; also if
        labels are required and one pair has two, unless a column says that different people gave them.
    """
    comparisons = pairs_in(read_table(path), labels=labels, named=named).records
    if others := columns_passed_through(comparisons):
        _log.info("%s: columns that are passed through to results: %s", path, shown(others))
    return comparisons


def columns_passed_through(comparisons: Iterable[Comparison]) -> list[str]:
    """Returns the columns without a meaning, which are kept in `metadata`."""
    return list(dict.fromkeys(name for comparison in comparisons for name in comparison.metadata))


def pairs_in(table: Table, *, labels: Labels, named: NamedColumns = BY_NAME) -> Read[Comparison]:
    """Returns the comparisons of a table; see `read_comparisons`."""
    table = named.checked(table)
    shape = pair_shape(table, labels, named.prompt)
    refuse_unsigned(((row.where, row.fields) for row in table.rows), shape.label)
    if not named.prompt:
        table = with_one_prompt(table, shape.prompt)
    shape = with_forms(shape, table)
    if shape.by_choice and not shape.has_turns:
        refuse_written_lists(table.rows, shape.responses)
    if shape.prompt and not shape.has_turns:
        table = with_conversations(table, [shape.prompt])
    rows = [row._replace(fields=native_row(row.fields, shape, row.where)) for row in table.rows]
    rows = without_end_tokens(table.path, rows, ("response_a", "response_b"))
    rows, cut = without_prompts(table.path, rows, ("response_a", "response_b"))
    read = list(_comparisons(rows, stem(table.path), labels, named))
    if labels == "required":
        voters = [tuple(str(row.fields.get(name)) for name in shape.voters) for row in rows]
        refuse_contradictions(read, [row.where for row in rows], voters if shape.voters else ())
    return Read(read, cut)


class LabelledPairs(NamedTuple):
    """Comparisons that are labelled A or B, those labelled tie, and the number that was left out.

    Attributes:
      pairs: the comparisons.
      ties: comparisons labelled tie.
      identical: number of comparisons labelled A or B whose responses are the same text.
    """

    pairs: list[Comparison]
    ties: list[Comparison]
    identical: int


def read_labelled_pairs(path: str, *, named: NamedColumns = BY_NAME) -> LabelledPairs:
    """Returns the comparisons of a file, those that are labelled A or B apart from ties.

    Args:
      path: see `read_comparisons`.
      named: columns that the user names.

    Raises:
      SteError: as `read_comparisons`, or "data_invalid" if nothing is left.
    """
    comparisons = read_comparisons(path, labels="required", named=named)
    ties = [comparison for comparison in comparisons if comparison.label == "tie"]
    pairs, identical = without_identical([one for one in comparisons if one.label != "tie"])
    if not pairs:
        raise SteError(
            "data_invalid",
            f"{path}: none of {len(comparisons)} comparisons has a better response: "
            f"{len(ties)} are labelled tie, in {identical} both responses are the same",
        )
    return LabelledPairs(pairs, ties, identical)


def without_identical(comparisons: list[Comparison]) -> tuple[list[Comparison], int]:
    """Returns the comparisons but those labelled A or B with equal responses, and the number of these."""
    kept = [c for c in comparisons if c.label in (None, "tie") or not is_identical(c)]
    return kept, len(comparisons) - len(kept)


def is_identical(comparison: Comparison) -> bool:
    """Returns True if both responses are the same text, but for white space around them."""
    return comparison.response_a.strip() == comparison.response_b.strip()


def load_pairs(path: str, *, column: str = "", shown: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Returns the checked rows of a file of pairs as dicts, ready for `Judge.compare_many`.

    Every dict has `id`, `instruction`, `response_a` and `response_b`, those of `label`, `prompt_id`,
    `reference`, `subset` and `category` that have a value, and the other columns of the file as JSON values.

    Args:
      path: a file, or a folder of parts.
      column: column of the prompt; "": the first one with a known name.
      shown: columns that the judge's prompt shows, `judge.columns`. They are not joined with the instruction.

    Raises:
      SteError: as `read_comparisons`; labels are optional.
    """
    named = NamedColumns(prompt=column, shown=tuple(shown))
    return [row_from_comparison(pair) for pair in read_comparisons(path, labels="optional", named=named)]


def row_from_comparison(comparison: Comparison) -> dict[str, Any]:
    """Returns the dict from which `comparison_from_row` builds an equal comparison."""
    fields: dict[str, Any] = {
        name: getattr(comparison, name) for name in ("id", "instruction", "response_a", "response_b")
    }
    optional = {name: getattr(comparison, name) for name in OPTIONAL_COLUMNS}
    return (
        comparison.metadata
        | comparison.texts
        | fields
        | {name: value for name, value in optional.items() if value}
    )


def read_rankings(path: str, *, named: NamedColumns = BY_NAME) -> list[Ranking]:
    """Returns the rankings of a file or folder, in order (see `ranking_from_row`).

    Raises:
      SteError: as `read_comparisons`.
    """
    return rankings_in(read_table(path), named=named).records


def read_scorings(path: str, *, named: NamedColumns = BY_NAME) -> list[Scoring]:
    """Returns the scorings of a file or folder, in order (see `scoring_from_row`).

    Raises:
      SteError: as `read_comparisons`.
    """
    return scorings_in(read_table(path), named=named).records


def rankings_in(table: Table, *, named: NamedColumns = BY_NAME) -> Read[Ranking]:
    """Returns the rankings of a table; see `read_rankings`."""
    return _read(table, "rank", ranking_from_row, _RANKING, "responses", named)


def scorings_in(table: Table, *, named: NamedColumns = BY_NAME) -> Read[Scoring]:
    """Returns the scorings of a table; see `read_scorings`."""
    return _read(table, "score", scoring_from_row, _SCORING, "response", named)


def _read(
    table: Table,
    kind: str,
    build: Callable[..., T],
    known: frozenset[str],
    response: str,
    named: NamedColumns,
) -> Read[T]:
    """Returns one record per row of a table; rows without an id are named `KIND-STEM-NUMBER`."""
    table = named.checked(table)
    name, prompt = stem(table.path), named.prompt or prompt_column(table.columns) or "instruction"
    required = [("instruction", (*PROMPT_COLUMNS, prompt)), (response, [response])]
    meant = known | {*PROMPT_COLUMNS, prompt}
    check_header(table, meant, required, f"instruction (or prompt, question), {response}")
    if not named.prompt:
        table = with_one_prompt(table, prompt)
    table = with_conversations(table, [prompt])
    rows = [row._replace(fields=_renamed(row, prompt)) for row in table.rows]
    responses = (response, "baseline")
    refuse_conversations(rows, responses)
    rows = without_end_tokens(table.path, rows, responses)
    rows, cut = without_prompts(table.path, rows, responses)
    seen, records = {}, []
    for row in rows:
        id_ = unique_id(row.fields, f"{kind}-{name}-{row.number}", row.where, seen)
        records.append(build(row.fields, row.where, default_id=id_, named=named))
    return Read(records, cut)


def _renamed(row: Row, prompt: str) -> dict[str, Any]:
    """Returns a row with its prompt in `instruction`, and with the list of responses that a text holds."""
    fields = {name: value for name, value in row.fields.items() if name != prompt}
    if isinstance(fields.get("responses"), str):
        fields["responses"] = text_list(fields, "responses", row.where)
    check_instruction(row.fields, prompt, row.where)
    return {**fields, "instruction": row.fields.get(prompt)}


def _comparisons(rows: Iterable[Row], stem: str, labels: Labels, named: NamedColumns) -> Iterator[Comparison]:
    seen: dict[str, str] = {}
    first_id: dict[str, str] = {}
    for row in rows:
        _require_mapping(row.fields, row.where)
        id_ = unique_id(row.fields, f"pair-{stem}-{row.number}", row.where, seen)
        comparison = comparison_from_row(row.fields, row.where, default_id=id_, labels=labels, named=named)
        prompt_id = comparison.prompt_id or first_id.setdefault(comparison.instruction, id_)
        yield dataclasses.replace(comparison, prompt_id=prompt_id)


def _reference(row: Fields, where: str, named: NamedColumns) -> str | None:
    """Returns the reference; a named column must exist, though single cells may be empty."""
    if named.reference and named.reference not in row:
        raise SteError("data_invalid", f"{where}: the reference column {named.reference} is missing")
    reference = optional_text(row, named.reference or "reference", where)
    return reference if reference and reference.strip() else None


def _known(columns: frozenset[str], named: NamedColumns) -> frozenset[str]:
    """Returns the columns with a meaning; a `reference` column passes through if another one is named."""
    return columns - {"reference"} | {named.reference} if named.reference else columns


def _require_mapping(row: Any, where: str):
    if not isinstance(row, Mapping):
        raise SteError("data_invalid", f"{where}: expected a dict, not a {type(row).__name__}")
    if SURFACE_KEY in row:
        raise SteError("data_invalid", f"{where}: the column name {SURFACE_KEY} is reserved; rename it")
