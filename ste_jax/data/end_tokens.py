"""Responses that end with a token of a chat template, as logs of models have them: the token is taken off."""

import logging
from collections.abc import Sequence

from ste_jax.data.cell_texts import cell_texts, with_texts
from ste_jax.data.rows import Row
from ste_jax.data.transcripts import end_token

_log = logging.getLogger(__name__)


def without_end_tokens(path: str, rows: list[Row], columns: Sequence[str]) -> list[Row]:
    """Returns rows whose responses do not end with a token that ends turns, such as <|im_end|>.

    It is taken off where at least half of the responses end with one. Where fewer do, they may be about it.

    Args:
      path: the source, for the warning about changed rows.
      rows: the rows.
      columns: columns of the responses: texts or lists of them.
    """
    cells = [row.fields.get(name) for row in rows for name in columns]
    texts = [text for cell in cells for text in cell_texts(cell)]
    changed = sum(bool(end_token(text)) for text in texts)
    if not changed or 2 * changed < len(texts):
        return rows
    _log.warning(
        "%s: the token of a chat template is taken off the end of %d of %d responses",
        *(path, changed, len(texts)),
    )
    return [with_texts(row, columns, _without) for row in rows]


def _without(text: str) -> str:
    token = end_token(text)
    return text.rstrip().removesuffix(token).rstrip("\n") if token else text
