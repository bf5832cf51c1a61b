"""Published shapes of pairs of responses, and their rows in the columns of this package.

A shape is found by the columns of the whole table: one for the prompt, two for the responses, and those of
the label. A chosen and a rejected response are placed as A and B by a hash of the texts.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ste_jax.data.fields import is_absent, required_text, written_list
from ste_jax.data.header import shown
from ste_jax.data.instruction_text import JOINED_COLUMNS
from ste_jax.data.labels import (
    ONE_HOT_COLUMNS,
    SIGNED_COLUMNS,
    VOTE_COLUMN,
    label_of,
    one_hot_label,
    signed_label,
    voted_label,
)
from ste_jax.data.messages import (
    Turn,
    divided,
    flat_turns,
    joined_turns,
    listed_messages,
    transcript_turns,
)
from ste_jax.errors import SteError
from ste_jax.records import Label, Outcome

Fields = Mapping[str, Any]
PROMPT_COLUMNS = ("instruction", "prompt", "question", "context", "input")
CHOSEN = ("chosen", "rejected")
_NUMBERED = (("response1", "response2"), ("response_1", "response_2"), ("output_1", "output_2"))
_CONVERSATIONS = ("conversation_a", "conversation_b")
RESPONSE_COLUMNS = (
    ("response_a", "response_b"),
    ("response_A", "response_B"),
    *_NUMBERED,
    _CONVERSATIONS,
    CHOSEN,
)
# Columns of a label that name a response.
SIDE_COLUMNS = ("label", "winner", *ONE_HOT_COLUMNS)
LABEL_COLUMNS = ("label", "winner", *SIGNED_COLUMNS, *ONE_HOT_COLUMNS)
# The beginning of a list of texts.
_TEXTS = re.compile(r"""\s*\[\s*(["']|null\b|None\b)""")
# Columns that say who gave a label: several rows of one pair are then votes, which may differ.
VOTER_COLUMNS = frozenset(("judge", "judge_id", "annotator", "annotator_id", "voter", "worker_id", "user_id"))


@dataclasses.dataclass(frozen=True)
class PairShape:
    """The columns that hold the parts of a pair.

    Attributes:
      prompt: column of the prompt; "": there is none. Conversations hold it as their common beginning, too.
      responses: columns of the first and the second, or the chosen and the rejected response.
      label: columns of the label; none for a chosen and a rejected response.
      has_votes: True if the rows are votes of several people on the same pairs.
    """

    prompt: str
    responses: tuple[str, str]
    label: tuple[str, ...]
    has_votes: bool

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


def find_shape(columns: Sequence[str]) -> PairShape | None:
    """Returns the shape of a table with these columns, or None if they hold no two responses."""
    responses = next((pair for pair in RESPONSE_COLUMNS if set(pair) <= set(columns)), None)
    if responses is None:
        return None
    prompt = next((name for name in PROMPT_COLUMNS if name in columns), "")
    return PairShape(
        prompt, responses, _label_columns(columns, responses), bool(VOTER_COLUMNS & set(columns))
    )


def native_row(row: Fields, shape: PairShape, where: str) -> dict[str, Any]:
    """Returns a row with the columns `instruction`, `response_a`, `response_b` and `label`.

    Columns of the label other than `label` stay, as all other columns do.

    Raises:
      SteError: "data_invalid", if the row is not of the shape.
    """
    label: Outcome | None = _label(row, shape, where)
    consumed = {shape.prompt, *shape.responses, "label"}
    others = {name: value for name, value in row.items() if name not in consumed}
    prompt, first, second = _texts(row, shape, where)
    if shape.by_choice:
        key = json.dumps([prompt, first, second], default=str)
        first, second, label = placed(key, first, second)
    return {**others, "instruction": prompt, "response_a": first, "response_b": second, "label": label}


def placed(key: str, chosen: str, rejected: str) -> tuple[str, str, Label]:
    """Returns the responses as A and B, and the label of the chosen one, by a hash of the key."""
    if hashlib.sha256(f"place {key}".encode(errors="surrogatepass")).digest()[0] % 2:
        return chosen, rejected, "A"
    return rejected, chosen, "B"


def _label_columns(columns: Sequence[str], responses: tuple[str, str]) -> tuple[str, ...]:
    """Returns the columns of the label in all its published forms; votes count where there is no other."""
    if responses == CHOSEN:
        return ()
    found = tuple(name for name in LABEL_COLUMNS if name in columns)
    return found or tuple(name for name in columns if VOTE_COLUMN.fullmatch(name))


def _label(row: Fields, shape: PairShape, where: str) -> Outcome | None:
    """Returns the label of a row: the first that is there, which no other one may contradict."""
    if shape.by_choice:
        given = [name for name in SIDE_COLUMNS if not is_absent(row.get(name)) and row.get(name) != ""]
        if given:
            raise SteError(
                "data_invalid",
                f"{where}: both {' and '.join(CHOSEN)} and {given[0]}; remove what is not meant",
            )
        return None
    found: Outcome | None = None
    first = ""
    for name in shape.label:
        try:
            label = _label_in(row, name, shape, where)
        except SteError:
            if found is None:
                raise
            continue  # such as the name of a model in `winner`
        if found and label not in (None, found):
            raise SteError(
                "data_invalid",
                f"{where}: the labels of {first} and {name} are different ({found}, {label}); "
                "remove what is not meant",
            )
        found, first = found or label, first if found else name
    return found


def _label_in(row: Fields, name: str, shape: PairShape, where: str) -> Outcome | None:
    if name in SIGNED_COLUMNS:
        return signed_label(row, name, where)
    if name in ONE_HOT_COLUMNS:
        return one_hot_label(row, where)
    if VOTE_COLUMN.fullmatch(name):
        return voted_label(row, shape.label, where)
    return label_of(row, name, where, numbered=shape.responses in _NUMBERED)


def _texts(row: Fields, shape: PairShape, where: str) -> tuple[Any, str, str]:
    """Returns the prompt (text or messages) and both responses of a row."""
    if turns := _arena_turns(row, shape, where):
        return _parted(*turns, where)
    first, second = shape.responses
    sides = [_side(row, name, where) for name in shape.responses]
    whole = [isinstance(side, list) and side[0][0] != "assistant" for side in sides]
    if all(whole):
        prompt, *responses = _parted(sides[0], sides[1], where)
        _check_prompt(row, shape.prompt, prompt, where)
        return prompt, responses[0], responses[1]
    if any(whole) or not shape.prompt:
        raise SteError(
            "data_invalid",
            f"{where}: {first} and {second} must both be conversations that begin with the prompt, or "
            f"responses to a column {', '.join(PROMPT_COLUMNS[:3])}; found the columns: {shown(row)}",
        )
    a, b = (joined_turns(side) if isinstance(side, list) else side for side in sides)
    value, turns = row.get(shape.prompt), _prompt(row, shape.prompt, where)
    # Messages stay as they are: the hash that places the responses is of the text of the file.
    return (_messages(turns) if isinstance(value, str) and isinstance(turns, list) else value), a, b


def _prompt(row: Fields, column: str, where: str) -> Any:
    """Returns the turns of a prompt that is a conversation, any other value as it is."""
    value, named = row.get(column), f"{where}, column {column}"
    if (messages := listed_messages(value, named)) is not None:
        return flat_turns(messages, named)
    turns = transcript_turns(value) if isinstance(value, str) else None
    # A transcript ends with the name of who answers.
    return turns[:-1] if turns and not turns[-1][1].strip() else turns or value


def _side(row: Fields, name: str, where: str) -> str | list[Turn]:
    """Returns a response as text, or a conversation as turns."""
    messages = listed_messages(row.get(name), f"{where}, column {name}")
    if messages is not None:
        return flat_turns(messages, f"{where}, column {name}")
    text = required_text(row, name, where)
    return transcript_turns(text) or text


def _parted(a: Any, b: Any, where: str) -> tuple[list[dict[str, str]], str, str]:
    prompt, first, second = divided(a, b, where)
    return _messages(prompt), joined_turns(first), joined_turns(second)


def _messages(turns: Sequence[Turn]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def _check_prompt(row: Fields, column: str, found: list[dict[str, str]], where: str) -> None:
    """Refuses a row whose prompt is not part of what its conversations begin with."""
    value = _prompt(row, column, where) if column else None
    if is_absent(value) or value == "":
        return
    texts = [text for _, text in value] if isinstance(value, list) else [value]
    contents = {message["content"].strip() for message in found}
    if not all(isinstance(text, str) and text.strip() in contents for text in texts):
        raise SteError(
            "data_invalid",
            f"{where}: the {column} is not what the conversations begin with; remove one of them",
        )


def _arena_turns(row: Fields, shape: PairShape, where: str) -> tuple[list[Turn], list[Turn]] | None:
    """Returns the conversations of a row of the arena's table, if its prompt is a list of texts."""
    if not shape.prompt or shape.from_conversations or not set(shape.label) & set(ONE_HOT_COLUMNS):
        return None
    prompt = row.get(shape.prompt)
    is_list = isinstance(prompt, list) and all(item is None or isinstance(item, str) for item in prompt)
    if not is_list and not (isinstance(prompt, str) and _TEXTS.match(prompt)):
        return None
    prompts, first, second = (_turn_texts(row, name, where) for name in (shape.prompt, *shape.responses))
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


def _turn_texts(row: Fields, name: str, where: str) -> list[str | None]:
    """Returns the texts of a column by turn; a missing one is empty."""
    value = row.get(name)
    value = written_list(value, f"{where}, column {name}") if isinstance(value, str) else value
    if isinstance(value, list) and value and all(item is None or isinstance(item, str) for item in value):
        return value
    raise SteError("data_invalid", f"{where}: the column {name} must be a list of texts, as the prompt is")


def known_columns() -> frozenset[str]:
    """Returns the names of all columns with a meaning in a table of pairs."""
    pairs = {name for pair in RESPONSE_COLUMNS for name in pair}
    return frozenset((*PROMPT_COLUMNS, *pairs, *LABEL_COLUMNS, *JOINED_COLUMNS))
