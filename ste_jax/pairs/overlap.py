"""The audit of two instructions with their answers: could the answer to one be an answer to the other?"""

from ste_jax.pairs.candidate import Answered
from ste_jax.pairs.wording import subjects

# Share of the subjects of the instruction with fewer of them that the other one has as well.
MAX_SHARED_SUBJECTS = 0.7
# Share of the subjects of either answer that are subjects of both.
MAX_ANSWER_SIMILARITY = 0.5
# Share of the subjects of an instruction that the answer to the other one names.
MAX_COVERED = 0.7
_STEM_LETTERS = 5


def overlap(left: Answered, right: Answered) -> str | None:
    """Returns why two answers might both fit one of the instructions, or None if none of the signs is there.

    "instructions_near": the instructions are about the same, or one is a special case of the other.
    "answers_near": the answers say much the same. "answer_fits_both": an answer names nearly all that the
    other instruction is about. Instructions that mean the same in other words are not found.
    """
    mine, other = subjects(left.instruction), subjects(right.instruction)
    if _share(mine & other, min(mine, other, key=len)) > MAX_SHARED_SUBJECTS:
        return "instructions_near"
    if _covers(right.answer, mine) or _covers(left.answer, other):
        return "answer_fits_both"
    said = subjects(left.answer), subjects(right.answer)
    is_near = _share(said[0] & said[1], said[0] | said[1]) > MAX_ANSWER_SIMILARITY
    return "answers_near" if is_near else None


def crossing_reason(left: Answered, right: Answered) -> str | None:
    """Returns the reason not to cross two answers, or None: an overlap, or "fit_undecided".

    Undecided means that one of the answers names no more of what only its own instruction is about than the
    other answer does, as answers that miss their instruction do. Stories that do not name their subject are
    left out as well.
    """
    decided = names_more(left, right, left.answer, right.answer) and names_more(
        right, left, right.answer, left.answer
    )
    return overlap(left, right) or (None if decided else "fit_undecided")


def names_more(judged: Answered, other: Answered, fit: str, misfit: str) -> bool:
    """Returns True if `fit` names more than `misfit` of what only the instruction of `judged` is about."""
    own = _stems(judged.instruction) - _stems(other.instruction)
    return len(own & _stems(fit)) > len(own & _stems(misfit))


def _stems(text: str) -> frozenset[str]:
    """Returns the beginnings of the subjects of a text, so that "freezing" counts as "freeze"."""
    return frozenset(word[:_STEM_LETTERS] for word in subjects(text))


def _covers(answer: str, subject: frozenset[str]) -> bool:
    return _share(subject & subjects(answer), subject) > MAX_COVERED


def _share(part: frozenset[str], whole: frozenset[str]) -> float:
    # Whatever answers something fits an instruction that names no subject.
    return len(part) / len(whole) if whole else 1.0
