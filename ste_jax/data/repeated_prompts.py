"""Responses that begin with their prompt, as files of whole texts have them: the prompt is taken off."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from ste_jax.data.cell_texts import cell_texts, with_texts
from ste_jax.data.rows import Row
from ste_jax.errors import SteError

_log = logging.getLogger(__name__)


def without_prompts(path: str, rows: list[Row], columns: Sequence[str]) -> tuple[list[Row], int]:
    """Returns rows whose responses do not begin with the `instruction`, and the number of changed rows.

    Where at least half of the rows repeat it at the beginning of all responses, it is taken off. Where fewer
    do, these answers may quote it, and stay. So do answers that go on with its last sentence.

    Args:
      path: the source, for the warning about changed rows.
      rows: rows with the column `instruction`.
      columns: columns of the responses: texts or lists of them.

    Raises:
      SteError: "data_invalid" with the first row whose responses begin with other text and then the prompt,
        if at least half repeat it.
    """
    prompts = [_prompt(row.fields.get("instruction")) for row in rows]
    found = [
        _place(prompt, [text for name in columns for text in cell_texts(row.fields.get(name))])
        for prompt, row in zip(prompts, rows, strict=True)
    ]
    repeated = sum(place is not None for place in found)
    if not repeated or 2 * repeated < len(rows):
        return rows, 0
    for row, place in zip(rows, found, strict=True):
        if place:
            raise SteError(
                "data_invalid",
                f"{row.where}: {', '.join(columns)} begin with the same text, which holds the prompt; keep "
                "only the text of the responses",
            )
    changed = [
        row if place is None else with_texts(row, columns, partial(_without_prompt, prompt))
        for row, prompt, place in zip(rows, prompts, found, strict=True)
    ]
    _log.warning(
        "%s: the prompt is taken off the responses of %d of %d rows, which begin with it",
        *(path, repeated, len(rows)),
    )
    return changed, repeated


def repeats_prompt(instruction: str, responses: Sequence[str]) -> bool:
    """Returns True if all responses begin with the prompt, or with the same mark and the prompt."""
    return _place(instruction, responses) is not None


def _place(prompt: str, responses: Sequence[str]) -> int | None:
    """Returns where the prompt stands in the common beginning of the responses; None if it does not.

    A single word is no prompt that a response would not begin with by chance.
    """
    if not responses or not prompt or (len(prompt.split()) < 2 and prompt[-1].isalnum()):
        return None
    texts = [response.lstrip() for response in responses]
    place = texts[0].find(prompt)
    end = place + len(prompt)
    if place < 0 or any(text[:end] != texts[0][:end] for text in texts):
        return None
    if not all(_is_parted(prompt, text[end:]) for text in texts):
        return None
    before = texts[0][:place]
    return place if not before or before[-1] == "\n" or _is_mark(before.rstrip()[-1]) else None


def _is_parted(prompt: str, rest: str) -> bool:
    """Returns True if what follows a prompt is an answer of its own, not the end of its last sentence.

    "The sky is" and " blue" are one sentence, of which no part is cut off.
    """
    space = rest[: len(rest) - len(rest.lstrip())]
    if not rest or "\n" in space or _is_mark(prompt[-1]):
        return True
    return bool(space) and not prompt[-1].isalnum()


def _is_mark(character: str) -> bool:
    return character in ":>]"


def _without_prompt(prompt: str, text: str) -> str:
    """Returns text behind the prompt that it begins with, from the first line that is not blank.

    The indentation of that line stays.
    """
    text = text.lstrip()[len(prompt) :]
    space = text[: len(text) - len(text.lstrip())]
    return text[space.rfind("\n") + 1 :] if "\n" in space else text.lstrip()


def _prompt(value: Any) -> str:
    """Returns the text of the prompt, or of its last turn."""
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content") or value[-1].get("value")
    return value.strip() if isinstance(value, str) else ""
