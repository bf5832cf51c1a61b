"""Converts the records of benchmarks to comparisons."""

import hashlib
from collections.abc import Sequence

from ste_jax.data.pair_shapes import placed
from ste_jax.records import Comparison

Turns = Sequence[tuple[str, str]]


def chosen_and_rejected(
    *,
    id_: str,
    prompt_id: str,
    instruction: str,
    chosen: str,
    rejected: str,
    subset: str = "",
    category: str | None = None,
) -> Comparison:
    """Returns the comparison of a better and a worse response; a hash of the id decides which is A."""
    response_a, response_b, label = placed(id_, chosen, rejected)
    return Comparison(
        id=id_,
        prompt_id=prompt_id,
        instruction=instruction,
        response_a=response_a,
        response_b=response_b,
        label=label,
        subset=subset,
        category=category,
    )


def prompt_key(instruction: str) -> str:
    """Returns a short id for a prompt without an id."""
    return hashlib.sha256(instruction.encode()).hexdigest()[:16]


def user_text(turns: Turns) -> str:
    """Returns the text of the user: a single turn as it is, several turns numbered."""
    return _numbered([content for role, content in turns if role == "user"], "Turn")


def assistant_text(turns: Turns) -> str:
    """Returns the text of the assistant: a single turn as it is, several turns numbered."""
    return _numbered([content for role, content in turns if role == "assistant"], "Answer to turn")


def _numbered(texts: Sequence[str], name: str) -> str:
    if len(texts) == 1:
        return texts[0]
    return "\n\n".join(f"{name} {number}:\n{text}" for number, text in enumerate(texts, 1))
