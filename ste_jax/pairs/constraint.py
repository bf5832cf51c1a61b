"""Kind `constraint`: a checkable requirement, added to the instruction, decides between two answers to it."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ste_jax.pairs.candidate import Answered, Candidate
from ste_jax.pairs.predicate import Predicate, PredicateType
from ste_jax.pairs.reading import normal
from ste_jax.randomness import generator


def constraint(answers: Sequence[Answered], *, seed: int, types: Sequence[PredicateType]) -> list[Candidate]:
    """Returns two candidates for each instruction whose two answers can be distinguished in both directions.

    In one the first answer meets a requirement that the second fails, in the other it is the reverse. Each
    answer is better once and worse once, so that only the instruction decides. An instruction with one
    answer, with equal or blank answers, or without a certain requirement in a direction has no candidates.

    Types are drawn evenly: instructions are taken in an order of hashes, and each direction gets, among the
    types that have a requirement for it, one that was used least so far. The result therefore depends on
    which answers there are, but not on their order.

    Args:
      answers: instructions with two answers; their ids are unique.
      seed: seed of the random choices.
      types: types of requirements to draw from.
    """
    used: Counter[str] = Counter({type_.name: 0 for type_ in types})
    candidates = []
    for answered in sorted(answers, key=lambda a: (int(_random(seed, a, "order").integers(2**62)), a.id)):
        if answered.other is None or normal(answered.answer) == normal(answered.other):
            continue
        sides = (answered.answer, answered.other), (answered.other, answered.answer)
        draws = [_random(seed, answered, index) for index in range(2)]
        found = [_separating(answered, *side, types, rng) for side, rng in zip(sides, draws, strict=True)]
        if not all(found):
            continue
        for index, rng in enumerate(draws):
            predicate = _least_used(found[index], used, rng)
            candidates.append(_candidate(answered, *sides[index], predicate, index, rng))
    return sorted(candidates, key=lambda candidate: candidate.key)


def with_requirement(instruction: str, sentence: str) -> str:
    """Returns an instruction after a sentence that ends with a colon, or before any other sentence."""
    instruction = instruction.strip()
    if not instruction:
        return sentence
    one_line = "\n" not in instruction
    if sentence.endswith(":"):
        return (" " if one_line else "\n\n").join([sentence, instruction])
    # On a line of its own it is not taken for a part of a passage, of code or of an unfinished sentence.
    ended = one_line and instruction[-1] in ".!?"
    return (" " if ended else "\n\n").join([instruction, sentence])


def _random(seed: int, answered: Answered, *names: str | int) -> np.random.Generator:
    return generator(seed, "constraint", answered.id, *names)


def _separating(
    answered: Answered, meets: str, fails: str, types: Sequence[PredicateType], rng: np.random.Generator
) -> list[Predicate]:
    """Returns, for each type that has one, a predicate that the first text meets and the second fails."""
    found = (type_.separating(answered.instruction, meets, fails, rng) for type_ in types)
    return [predicate for predicate in found if predicate]


def _least_used(predicates: list[Predicate], used: Counter[str], rng: np.random.Generator) -> Predicate:
    """Returns a predicate of a least used type, by chance among several, and counts its use."""
    least = min(used[predicate.type.name] for predicate in predicates)
    rarest = [predicate for predicate in predicates if used[predicate.type.name] == least]
    chosen = rarest[rng.integers(len(rarest))]
    used[chosen.type.name] += 1
    return chosen


def _candidate(
    answered: Answered, better: str, worse: str, predicate: Predicate, index: int, rng: np.random.Generator
) -> Candidate:
    wordings = predicate.wordings()
    return Candidate(
        key=f"{answered.id}/{index}",
        sources=(answered.id,),
        instruction=with_requirement(answered.instruction, wordings[rng.integers(len(wordings))]),
        better=better,
        worse=worse,
        details={"type": predicate.type.name, "pair": answered.id},
    )
