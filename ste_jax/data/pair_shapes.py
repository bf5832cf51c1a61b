"""Published shapes of pairs of responses, and their rows in the columns of this package.

A shape is found by the columns of the whole table: one for the prompt, two for the responses, and those of
the label. A chosen and a rejected response are placed as A and B by a hash of the texts.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ste_jax.data.cells import (
    as_prompt,
    begins_texts,
    hold_conversations,
    read_conversation,
    read_texts,
    readable_conversation,
)
from ste_jax.data.fields import is_absent, required_text
from ste_jax.data.header import check_header, likely_columns, shown
from ste_jax.data.instruction_text import JOINED_COLUMNS, check_instruction
from ste_jax.data.labels import LABEL_COLUMNS, ONE_HOT_COLUMNS, vote_columns
from ste_jax.data.meant_columns import meant_responses
from ste_jax.data.messages import Turn, divided, flat_turns, joined_turns
from ste_jax.data.prompt_columns import PROMPT_COLUMNS, WHOLE_COLUMNS, prompt_column
from ste_jax.data.row_labels import CHOSEN, refuse_labels, row_label
from ste_jax.data.rows import Table
from ste_jax.data.transcripts import transcript_turns
from ste_jax.errors import SteError
from ste_jax.records import Label, Outcome

Labels = Literal["required", "optional"]
Fields = Mapping[str, Any]
_NUMBERED = (("response1", "response2"), ("response_1", "response_2"), ("output_1", "output_2"))
_CONVERSATIONS = ("conversation_a", "conversation_b")
RESPONSE_COLUMNS = (
    ("response_a", "response_b"),
    ("response_A", "response_B"),
    *_NUMBERED,
    _CONVERSATIONS,
    CHOSEN,
)
_EXPECTED = (
    "pairs: instruction (or prompt, question), response_a, response_b and label (A, B or tie); or a "
    "published form, such as prompt, chosen, rejected"
)
OPTIONAL_COLUMNS = ("label", "prompt_id", "reference", "subset", "category")
# Columns that say who gave a label: several rows of one pair are then votes, which may differ.
VOTER_COLUMNS = ("judge", "judge_id", "annotator", "annotator_id", "voter", "worker_id", "user_id")


@dataclasses.dataclass(frozen=True)
class PairShape:
    """The columns that hold the parts of a pair.

    Attributes:
      prompt: column of the prompt; "": there is none. Conversations hold it as their common beginning, too.
      responses: columns of the first and the second, or the chosen and the rejected response.
      label: columns of the label; none for a chosen and a rejected response.
      voters: columns that say who gave the label.
      has_conversations: True if at least half of the responses begin like conversations.
      has_turns: True if at least half of the rows are lists of texts by turn, as in the table of the arena.
    """

    prompt: str
    responses: tuple[str, str]
    label: tuple[str, ...]
    voters: tuple[str, ...] = ()
    has_conversations: bool = False
    has_turns: bool = False

    @property
    def by_choice(self) -> bool:
        """True if the responses are a chosen and a rejected one."""
        return self.responses == CHOSEN

    @property
    def from_conversations(self) -> bool:
        """True if the columns of the responses may be conversations that begin with the prompt."""
        return self.responses in (CHOSEN, _CONVERSATIONS)

    @property
    def used(self) -> tuple[str, ...]:
        """The columns that become the instruction, the responses and the label."""
        return tuple(filter(None, (self.prompt, *self.responses, *self.label)))


def find_shape(columns: Sequence[str], prompt: str = "") -> PairShape | None:
    """Returns the shape of a table with these columns, or None if they hold no two responses.

    Args:
      columns: names of the columns.
      prompt: column of the prompt; "": the first one with a known name.
    """
    responses = next((pair for pair in RESPONSE_COLUMNS if set(pair) <= set(columns)), None)
    if responses is None:
        return None
    voters = tuple(name for name in VOTER_COLUMNS if name in columns)
    return PairShape(prompt or prompt_column(columns), responses, _label_columns(columns, responses), voters)


def with_forms(shape: PairShape, table: Table) -> PairShape:
    """Returns a shape with the forms in which the cells of the table hold the responses."""
    rows = [row.fields for row in table.rows]
    turns = [_has_turns(row, shape) for row in rows]
    return dataclasses.replace(
        shape,
        has_conversations=hold_conversations(row.get(name) for row in rows for name in shape.responses),
        has_turns=2 * sum(turns) >= len(rows),
    )


def pair_shape(table: Table, labels: Labels, prompt: str = "") -> PairShape:
    """Returns the shape of a table of pairs.

    Args:
      table: the table.
      labels: "required" refuses a table without labels.
      prompt: column of the prompt; "": the first one with a known name.

    Raises:
      SteError: "data_invalid" with the columns that were found and those expected.
    """
    known = known_columns() | {*filter(None, [prompt])}
    shape = find_shape(likely_columns(table.columns, known), prompt)
    meant = {} if shape else meant_responses(table.columns, known)
    required: list[tuple[str, Sequence[str]]] = []
    if not shape:
        named = {*table.columns, *meant.values()}
        # The responses of which there is one, or the usual ones.
        pair = max(RESPONSE_COLUMNS, key=lambda pair: len(named & {*pair}))
        required += [(name, [name]) for name in pair]
    if not (shape and (shape.prompt or shape.from_conversations)):
        required.append(("instruction", PROMPT_COLUMNS))
    if labels == "required" and not (shape and (shape.label or shape.by_choice)):
        required.append(("label", LABEL_COLUMNS))
    check_header(table, known, required, _EXPECTED, meant)
    assert shape, "check_header refuses a table without responses"
    return shape


def native_row(row: Fields, shape: PairShape, where: str) -> dict[str, Any]:
    """Returns a row with the columns `instruction`, `response_a`, `response_b` and `label`.

    Columns of the label other than `label` stay, as all other columns do.

    Raises:
      SteError: "data_invalid", if the row is not of the shape.
    """
    label: Outcome | None = None
    if shape.by_choice:
        refuse_labels(row, where)
    else:
        numbered = shape.responses in _NUMBERED
        label = row_label(row, shape.label, shape.responses, where, numbered=numbered)
    consumed = {shape.prompt, *shape.responses, "label"}
    others = {name: value for name, value in row.items() if name not in consumed}
    prompt, first, second = _texts(row, shape, where)
    if shape.by_choice:
        chosen = first
        # By the texts, whichever was chosen: a row that is labelled anew stays the same pair.
        one, other = sorted((first, second))
        first, second, _ = placed(json.dumps([prompt, one, other], default=str), one, other)
        label = "A" if first == chosen else "B"
    return {**others, "instruction": prompt, "response_a": first, "response_b": second, "label": label}


def placed(key: str, chosen: str, rejected: str) -> tuple[str, str, Label]:
    """Returns the responses as A and B, and the label of the chosen one, by a hash of the key."""
    if hashlib.sha256(f"place {key}".encode(errors="surrogatepass")).digest()[0] % 2:
        return chosen, rejected, "A"
    return rejected, chosen, "B"


def _label_columns(columns: Sequence[str], responses: tuple[str, str]) -> tuple[str, ...]:
    """Returns the columns of the label in all its published forms."""
    if responses == CHOSEN:
        return ()
    return (*(name for name in LABEL_COLUMNS if name in columns), *vote_columns(columns))


def _texts(row: Fields, shape: PairShape, where: str) -> tuple[Any, str, str]:
    """Returns the prompt (text or messages) and both responses of a row."""
    if turns := _turns_by_text(row, shape, where):
        return _parted(*turns, where)
    if shape.has_conversations or not all(isinstance(row.get(name), str) for name in shape.responses):
        return _answered(row, shape, [_side(row, name, where) for name in shape.responses], where)
    texts = [required_text(row, name, where) for name in shape.responses]
    # In a table of texts, both responses of a row are conversations with the same prompt, or none is one.
    sides = [readable_conversation(text, where) for text in texts]
    if all(sides):
        try:
            return _answered(row, shape, sides, where)
        except SteError:
            pass
    return _answered(row, shape, texts, where)


def _answered(row: Fields, shape: PairShape, sides: Sequence[Any], where: str) -> tuple[Any, str, str]:
    """Returns the prompt and the responses, which are texts, or turns with or without the prompt."""
    first, second = shape.responses
    if shape.responses == _CONVERSATIONS:
        _refuse_earlier_turn(row, sides, where)
    whole = [isinstance(side, list) and side[0][0] != "assistant" for side in sides]
    if all(whole):
        prompt, *responses = _parted(sides[0], sides[1], where)
        _check_prompt(row, shape.prompt, prompt, where)
        return prompt, responses[0], responses[1]
    if any(whole) or not shape.prompt:
        raise SteError(
            "data_invalid",
            f"{where}: {first} and {second} must both be conversations that begin with the prompt, or "
            f"responses to a column {', '.join(WHOLE_COLUMNS)}; found the columns: {shown(row)}",
        )
    a, b = (joined_turns(side) if isinstance(side, list) else side for side in sides)
    check_instruction(row, shape.prompt, where)
    return row.get(shape.prompt), a, b


def _side(row: Fields, name: str, where: str) -> str | list[Turn]:
    """Returns a response as text, or a conversation as turns."""
    value = row.get(name)
    if value and isinstance(value, list) and begins_texts(value):
        raise SteError(
            "data_invalid",
            f"{where}: the column {name} is a list of {len(value)} texts; write one response a row, or give "
            "the files of RewardBench 2 and RM-Bench as --benchmark",
        )
    turns = read_conversation(value, f"{where}, column {name}")
    return turns or required_text(row, name, where)


def _refuse_earlier_turn(row: Fields, sides: Sequence[Any], where: str) -> None:
    """Refuses a row whose label is about the first turns of its conversations, as votes of MT-Bench are.

    In the table of the arena `turn` is the number of turns.
    """
    turn = row.get("turn")
    turn = int(turn) if isinstance(turn, str) and turn.strip().isdecimal() else turn
    users = [sum(role == "user" for role, _ in side) for side in sides if isinstance(side, list)]
    if isinstance(turn, int | float) and users and turn < max(users):
        raise SteError(
            "data_invalid",
            f"{where}: the label is about turn {turn:g} of {max(users)}; use --benchmark=mt_bench for the "
            "votes of MT-Bench, or cut the conversations after the turn that was judged",
        )


def _parted(a: Any, b: Any, where: str) -> tuple[list[dict[str, str]], str, str]:
    prompt, first, second = divided(a, b, where)
    return as_prompt(prompt), joined_turns(first), joined_turns(second)


def _check_prompt(row: Fields, column: str, found: list[dict[str, str]], where: str) -> None:
    """Refuses a row whose prompt is not part of what its conversations begin with."""
    value = row.get(column) if column else None
    if is_absent(value) or value == "":
        return
    turns = flat_turns(value, where) if isinstance(value, list) else transcript_turns(str(value))
    texts = [message["content"] for message in as_prompt(turns)] if turns else [value]
    contents = {message["content"].strip() for message in found}
    if not all(isinstance(text, str) and text.strip() in contents for text in texts):
        raise SteError(
            "data_invalid",
            f"{where}: the {column} is not what the conversations begin with; remove one of them",
        )


def _has_turns(row: Fields, shape: PairShape) -> bool:
    """Returns True if the prompt and both responses begin like lists of texts.

    In the table of the arena, which has the columns `ONE_HOT_COLUMNS`, the responses suffice.
    """
    if not shape.prompt or shape.responses == _CONVERSATIONS:
        return False
    found = [begins_texts(row.get(name)) for name in (shape.prompt, *shape.responses)]
    return all(found) or (all(found[1:]) and bool(set(shape.label) & set(ONE_HOT_COLUMNS)))


def _turns_by_text(row: Fields, shape: PairShape, where: str) -> tuple[list[Turn], list[Turn]] | None:
    """Returns the conversations of a row whose prompt and responses are lists of texts by turn.

    In a table of other rows, such a row may also be texts that are lists.
    """
    names = (shape.prompt, *shape.responses)
    found = [begins_texts(row.get(name)) for name in names]
    if not shape.has_turns:
        if not all(found) or not _has_turns(row, shape):
            return None
        try:
            return _exchanges(row, shape, where)
        except SteError:
            if all(isinstance(row.get(name), str) for name in names):
                return None
            raise
    return _exchanges(row, shape, where) if any(found) else None


def _exchanges(row: Fields, shape: PairShape, where: str) -> tuple[list[Turn], list[Turn]]:
    prompts, first, second = (read_texts(row.get(n), n, where) for n in (shape.prompt, *shape.responses))
    if not len(prompts) == len(first) == len(second):
        raise SteError(
            "data_invalid", f"{where}: the prompt and the responses have different numbers of turns"
        )
    a, b = (
        [turn for prompt, answer in zip(prompts, side, strict=True) for turn in _exchange(prompt, answer)]
        for side in (first, second)
    )
    return a, b


def _exchange(prompt: str | None, answer: str | None) -> list[Turn]:
    return [("user", prompt or ""), ("assistant", answer or "")]


def known_columns() -> frozenset[str]:
    """Returns the names of all columns with a meaning in a table of pairs."""
    pairs = {name for pair in RESPONSE_COLUMNS for name in pair}
    return frozenset(("id", *OPTIONAL_COLUMNS, *PROMPT_COLUMNS, *pairs, *LABEL_COLUMNS, *JOINED_COLUMNS))
