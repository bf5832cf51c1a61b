"""Responses that begin with their prompt, as files of whole texts have them: the prompt is taken off."""

from collections.abc import Sequence
from typing import Any

from ste_jax.data.rows import Row
from ste_jax.errors import SteError

RESPONSES = ("response_a", "response_b")


def without_prompts(rows: list[Row]) -> list[Row]:
    """Returns rows of pairs whose responses do not repeat the prompt.

    Where at least half of the rows repeat it at the beginning of both responses, it is taken off. Where fewer
    do, these answers may quote it, and stay.

    Raises:
      SteError: "data_invalid" with the first row whose responses begin with the prompt and other text before
        it, if at least half do.
    """
    found = [_place(row.fields) for row in rows]
    repeated = sum(place is not None for place in found)
    if not repeated or 2 * repeated < len(rows):
        return rows
    for row, place in zip(rows, found, strict=True):
        if place:
            raise SteError(
                "data_invalid",
                f"{row.where}: both responses begin with the same text, which holds the prompt; keep only "
                "the text of the responses",
            )
    return [
        row if place is None else row._replace(fields=_without_prompt(row.fields))
        for row, place in zip(rows, found, strict=True)
    ]


def repeats_prompt(instruction: Any, responses: Sequence[str]) -> bool:
    """Returns True if all responses begin with the prompt, alone or behind a mark."""
    return _place(dict(zip(("instruction", *RESPONSES), (instruction, *responses), strict=True))) is not None


def _place(fields: Any) -> int | None:
    """Returns where the prompt stands in the common beginning of both responses; None if it does not.

    A single word is no prompt that a response would not begin with by chance.
    """
    prompt = _prompt(fields)
    if len(prompt.split()) < 2 and (not prompt or prompt[-1].isalnum()):
        return None
    first, second = (fields[name].lstrip() for name in RESPONSES)
    place = first.find(prompt)
    end = place + len(prompt)
    if place < 0 or first[:end] != second[:end]:
        return None
    rests = (first[end:], second[end:])
    if not all(not rest or rest[0].isspace() or _is_mark(prompt[-1]) for rest in rests):
        return None
    before = first[:place]
    return place if not before or before[-1] == "\n" or _is_mark(before.rstrip()[-1]) else None


def _is_mark(character: str) -> bool:
    return character in ":>]"


def _without_prompt(fields: Any) -> dict[str, Any]:
    prompt = _prompt(fields)
    return {**fields, **{name: _rest(fields[name].lstrip()[len(prompt) :]) for name in RESPONSES}}


def _rest(text: str) -> str:
    """Returns text from its first line that is not blank; the indentation of that line stays."""
    space = text[: len(text) - len(text.lstrip())]
    return text[space.rfind("\n") + 1 :] if "\n" in space else text.lstrip()


def _prompt(fields: Any) -> str:
    """Returns the prompt, or the last turn of it."""
    value = fields.get("instruction")
    if isinstance(value, list) and value:
        value = value[-1].get("content") or value[-1].get("value") if isinstance(value[-1], dict) else None
    return value.strip() if isinstance(value, str) else ""
