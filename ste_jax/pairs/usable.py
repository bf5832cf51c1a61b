"""Checks of a single answer: which answers the kinds of pairs without a model start from.

An answer that is itself broken decides nothing: whether a copy of it is worse is a matter of opinion.
"""

import collections
from collections.abc import Iterable, Sequence

from ste_jax.pairs.candidate import Answered
from ste_jax.pairs.construction import is_refusal
from ste_jax.pairs.wording import sentences, spaced_words, subjects

MIN_WORDS = 8
# Share of the triples of words that occurred before in the same answer.
MAX_REPEATED = 0.2


def flaw(answered: Answered) -> str | None:
    """Returns the reason not to make pairs from an answer, or None.

    The reasons are "answer_short" (fewer than 8 words), "answer_broken" (undecodable bytes),
    "answer_repetitive" (a fifth of its triples of words, or a whole sentence, occurred before), "answer_echo"
    (it begins with the instruction), "answer_refusal", and "instruction_open" (the instruction names no
    subject).
    """
    text = answered.answer.strip()
    words = [text[start:end].casefold() for start, end in spaced_words(text)]
    if not subjects(answered.instruction):
        return "instruction_open"
    if len(words) < MIN_WORDS:
        return "answer_short"
    if "\ufffd" in text:
        return "answer_broken"
    if _is_repetitive(text, words):
        return "answer_repetitive"
    opening = answered.instruction.split()[:MIN_WORDS]
    if [word.casefold() for word in opening] == words[: len(opening)]:
        return "answer_echo"
    return "answer_refusal" if is_refusal(text) else None


def _is_repetitive(text: str, words: Sequence[str]) -> bool:
    triples = list(zip(words, words[1:], words[2:], strict=False))
    pieces = [text[start:end].casefold() for start, end in sentences(text)]
    long_pieces = [piece for piece in pieces if len(piece.split()) > 2]
    return len(triples) - len(set(triples)) > MAX_REPEATED * len(triples) or len(set(long_pieces)) < len(
        long_pieces
    )


def usable(answers: Iterable[Answered]) -> list[Answered]:
    """Returns the answers without flaws in the order of their ids, without white space around them."""
    return split_usable(answers)[0]


def split_usable(answers: Iterable[Answered]) -> tuple[list[Answered], collections.Counter[str]]:
    """Returns what `usable` returns, and how many answers are left out, by the reason of `flaw`."""
    kept: list[Answered] = []
    left_out: collections.Counter[str] = collections.Counter()
    for answered in sorted(answers, key=lambda a: a.id):
        reason = flaw(answered)
        if reason:
            left_out[reason] += 1
        else:
            kept.append(_stripped_answer(answered))
    return kept, left_out


def _stripped_answer(answered: Answered) -> Answered:
    return Answered(
        id=answered.id,
        instruction=answered.instruction.strip(),
        answer=answered.answer.strip(),
        other=answered.other,
    )
