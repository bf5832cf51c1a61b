"""How a benchmark's records become comparisons: who is shown as A, and how a conversation is written."""

import hashlib
from collections.abc import Sequence

from ste_jax.data.messages import flatten_messages
from ste_jax.records import Comparison, Label

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
    """Returns the comparison of a better and a worse response; a hash of the id says which is A."""
    label: Label = "A" if hashlib.sha256(f"place {id_}".encode()).digest()[0] % 2 else "B"
    response_a, response_b = (chosen, rejected) if label == "A" else (rejected, chosen)
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
    """Returns a short name of a prompt that has none of its own."""
    return hashlib.sha256(instruction.encode()).hexdigest()[:16]


def users_side(turns: Turns) -> str:
    """Returns what the user said: the text of a single turn, or all turns numbered."""
    return _numbered([content for role, content in turns if role == "user"], "Turn")


def assistants_side(turns: Turns) -> str:
    """Returns what the assistant said, likewise."""
    return _numbered([content for role, content in turns if role == "assistant"], "Answer to turn")


def _numbered(texts: Sequence[str], name: str) -> str:
    if len(texts) == 1:
        return texts[0]
    return "\n\n".join(f"{name} {number}:\n{text}" for number, text in enumerate(texts, 1))


def conversation(turns: Turns) -> str:
    """Returns a conversation up to the response as one text (see `flatten_messages`)."""
    return flatten_messages([{"role": role, "content": content} for role, content in turns])
