"""Overview of a file for `ste data`: its kind, columns, counts and first records, as the readers see it."""

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

from ste_jax.data.cells import begins_conversation
from ste_jax.data.comparisons import pairs_in, rankings_in, scorings_in, without_identical
from ste_jax.data.contradictions import pair_key
from ste_jax.data.files import other_parts, stem
from ste_jax.data.header import likely_columns
from ste_jax.data.instruction_text import JOINED_COLUMNS
from ste_jax.data.meant_columns import meant_responses
from ste_jax.data.named_columns import NamedColumns
from ste_jax.data.pair_shapes import RESPONSE_COLUMNS, find_shape, known_columns, pair_shape
from ste_jax.data.prompt_columns import PROMPT_COLUMNS
from ste_jax.data.repeated_prompts import repeats_prompt
from ste_jax.data.rows import Table, read_table
from ste_jax.data.sources import InstructionColumns, columns_left_out, instructions_of
from ste_jax.records import Comparison

_SHOWN = 3
_OPTIONAL = ("id", "prompt_id", "reference", "subset", "category", *JOINED_COLUMNS)


class Overview(NamedTuple):
    """Contents of a file, as they are read.

    Attributes:
      kind: what the rows are, and the columns of their parts.
      others: columns without a meaning.
      fate: what becomes of the other columns.
      used: columns with a meaning.
      counts: numbers of rows and of what they are.
      first: the first records, as names and texts.
    """

    kind: str
    others: list[str]
    fate: str
    used: list[str]
    counts: dict[str, int]
    first: list[dict[str, str]]


def overview(path: str, column: str = "") -> Overview:
    """Returns what is read from a file or folder.

    Args:
      path: the file or folder.
      column: column of the prompt; "": the first one with a known name.

    Raises:
      SteError: as the reader of the kind of rows that it holds.
    """
    named = InstructionColumns(prompt=column)
    found = _overview(named.checked(read_table(path, text_lines=True)), named)
    more = {"other parts of the data set, which are not read,": other_parts(path)}
    return found._replace(counts={**found.counts, **more})


def _overview(table: Table, named: InstructionColumns) -> Overview:
    # A name that is almost a known one counts for it, so that the reader of its kind refuses it.
    known = known_columns() | {"response", "responses", "baseline", named.prompt}
    columns = likely_columns(table.columns, known)
    if find_shape(columns) or meant_responses(table.columns, known):
        return _pairs(table, named)
    if "responses" in columns:
        return _rankings(table, named)
    if _is_scored(table, columns, named):
        return _scorings(table, named)
    # One response of a pair: the reader of pairs names the other one. A chosen response alone is an answer.
    is_half = any(name in columns for pair in RESPONSE_COLUMNS for name in pair if name != "chosen")
    return _pairs(table, named) if is_half else _instructions(table, named)


def _is_scored(table: Table, columns: Sequence[str], named: NamedColumns) -> bool:
    """Returns True for a response in every row, or a column `baseline`: some instructions have responses."""
    has_all = all(isinstance(row.fields.get("response"), str) for row in table.rows)
    is_near = "response" in columns and "response" not in table.columns
    return bool({*PROMPT_COLUMNS, named.prompt} & set(columns)) and (
        has_all or is_near or "baseline" in columns
    )


def _pairs(table: Table, named: NamedColumns) -> Overview:
    shape = pair_shape(table, "optional", named.prompt)
    pairs, cut = pairs_in(table, labels="optional", named=named)
    if all(pair.label for pair in pairs):
        pairs_in(table, labels="required", named=named)
    labels = Counter(pair.label for pair in pairs)
    texts = {text for pair in pairs for text in (pair.instruction, pair.response_a, pair.response_b)}
    prompt = shape.prompt or "what both begin with"
    label = "that of the chosen response" if shape.by_choice else ", ".join(shape.label) or "missing"
    known = {*shape.used, *_OPTIONAL}
    return Overview(
        kind=f"pairs (prompt: {prompt}; responses: {', '.join(shape.responses)}; label: {label})",
        used=[name for name in table.columns if name in known],
        others=[name for name in table.columns if name not in known],
        fate="passed through to results",
        counts={
            "rows": len(pairs),
            "prompts": len({pair.prompt_id for pair in pairs}),
            **{f"labelled {name}": labels[name] for name in ("A", "B", "tie")},
            "without a label": labels[None],
            "repeated": _repeated(pairs),
            "labelled A or B with equal responses": without_identical(pairs)[1],
            **_responses_counted(cut, [text for p in pairs for text in (p.response_a, p.response_b)]),
            "whose responses repeat the prompt": sum(
                repeats_prompt(pair.instruction, (pair.response_a, pair.response_b)) for pair in pairs
            ),
            **_texts_kept(table, (shape.prompt, *shape.responses), texts),
        },
        first=[
            {
                "id": p.id,
                "instruction": p.instruction,
                "A": p.response_a,
                "B": p.response_b,
                "label": p.label or "",
            }
            for p in pairs[:_SHOWN]
        ],
    )


def _repeated(pairs: Sequence[Comparison]) -> int:
    return len(pairs) - len(set(map(pair_key, pairs)))


def _responses_counted(cut: int, responses: Sequence[str]) -> dict[str, int]:
    return {
        "with the prompt taken off the responses": cut,
        "empty responses": sum(not response.strip() for response in responses),
    }


def _rankings(table: Table, named: NamedColumns) -> Overview:
    rankings, cut = rankings_in(table, named=named)
    known = {*_prompts(named), "responses", *_OPTIONAL}
    return Overview(
        kind="rankings",
        used=[name for name in table.columns if name in known],
        others=[name for name in table.columns if name not in known],
        fate="passed through to results",
        counts={
            "rows": len(rankings),
            "responses": sum(len(row.responses) for row in rankings),
            **_responses_counted(cut, [text for row in rankings for text in row.responses]),
        },
        first=[
            {"id": row.id, "instruction": row.instruction}
            | {f"response {number}": text for number, text in enumerate(row.responses, 1)}
            for row in rankings[:_SHOWN]
        ],
    )


def _texts_kept(table: Table, columns: Sequence[str], read: Collection[str]) -> dict[str, int]:
    """Returns the count of cells that begin like conversations and are read as the texts that they are."""
    cells = (row.fields.get(name) for row in table.rows for name in columns)
    kept = sum(
        isinstance(cell, str) and (cell in read or cell.strip() in read) and begins_conversation(cell)
        for cell in cells
    )
    return {"texts that begin like conversations": kept}


def _scorings(table: Table, named: NamedColumns) -> Overview:
    scorings, cut = scorings_in(table, named=named)
    known = {*_prompts(named), "response", "baseline", "anchors", *_OPTIONAL}
    return Overview(
        kind="responses to score (or instructions, of which the responses are not read)",
        used=[name for name in table.columns if name in known],
        others=[name for name in table.columns if name not in known],
        fate="passed through to results",
        counts={
            "rows": len(scorings),
            "with a baseline": sum(row.baseline is not None for row in scorings),
            "with anchors": sum(bool(row.anchors) for row in scorings),
            **_responses_counted(cut, [text for row in scorings for text in (row.response, *row.opponents)]),
            **_texts_kept(
                table,
                (*_prompts(named), "response", "baseline"),
                {text for row in scorings for text in (row.instruction, row.response, row.baseline) if text},
            ),
        },
        first=[
            {"id": row.id, "instruction": row.instruction, "response": row.response}
            | ({} if row.baseline is None else {"baseline": row.baseline})
            | ({"anchors": repr(list(row.anchors))} if row.anchors else {})
            for row in scorings[:_SHOWN]
        ],
    )


def _prompts(named: NamedColumns) -> tuple[str, ...]:
    return (named.prompt,) if named.prompt else PROMPT_COLUMNS


def _instructions(table: Table, columns: InstructionColumns) -> Overview:
    instructions = instructions_of(table, stem(table.path), columns)
    left_out = columns_left_out(table, columns)
    return Overview(
        kind="instructions",
        used=[name for name in table.columns if name not in left_out],
        others=left_out,
        fate="not read",
        counts={
            "rows": len(instructions),
            "different texts": len({one.text for one in instructions}),
            **_texts_kept(table, table.columns, {one.text for one in instructions}),
        },
        first=[
            {"id": one.id, "source": one.source, "instruction": one.text} for one in instructions[:_SHOWN]
        ],
    )
