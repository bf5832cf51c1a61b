"""Modes `nearest` and `random`: y_l is the answer to another instruction of the run."""

from collections.abc import Sequence

from ste_jax.pairs.rejected import Candidates, PairInputs, RejectedCandidate
from ste_jax.pairs.similarity import nearest as nearest_texts
from ste_jax.randomness import generator


def nearest(inputs: PairInputs) -> Candidates:
    """Returns the answers to the most similar of the other instructions."""
    return _answers_of(inputs, nearest_texts([i.text for i in inputs.instructions]))


def random(inputs: PairInputs) -> Candidates:
    """Returns the answers to other instructions drawn at random."""
    count = len(inputs.instructions)
    if count < 2:
        return {}
    # From 1, so that no instruction draws itself.
    steps = [generator(inputs.seed, "other", i.id).integers(1, count) for i in inputs.instructions]
    return _answers_of(inputs, [(index + int(step)) % count for index, step in enumerate(steps)])


def _answers_of(inputs: PairInputs, others: Sequence[int | None]) -> Candidates:
    """Returns the answer to instruction `others[i]` as the candidate of instruction i."""
    candidates: Candidates = {}
    for instruction, index in zip(inputs.instructions, others, strict=True):
        if index is not None:
            other = inputs.instructions[index]
            answer = inputs.answers[other.id]
            candidates[instruction.id] = RejectedCandidate(other.text, answer.text, answer.tokens)
    return candidates
