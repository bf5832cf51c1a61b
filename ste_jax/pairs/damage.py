"""Damages to a text that leave its length nearly as it is."""

import re
from collections.abc import Sequence

import numpy as np

from ste_jax.pairs.candidate import Answered
from ste_jax.pairs.overlap import overlap
from ste_jax.pairs.wording import is_complete, is_function_word, sentences, spaced_words, subjects

_CLAUSE = re.compile(r"[^,;:.!?\n`]+")
_CLAUSE_CHARS, _CLAUSE_SUBJECTS, _CLAUSE_DIFFERENCE = 20, 2, 0.05
_STEP = re.compile(r"\s*\d+[.)]\s")
_BULLET = re.compile(r"\s*[-*•]\s")
_MIN_SENTENCES, _MIN_STEPS = 4, 3
_DAMAGED_WORDS = 0.15
_NOUN_CHARS = 4
_ATTEMPTS = 8


def swapped_clause(
    answered: Answered, donors: Sequence[Answered], random: np.random.Generator
) -> tuple[str, tuple[str, ...]] | None:
    """Returns the answer with a clause of another answer, and the id of that; None if no two are of a length.

    The foreign clause names at least two things that neither the instruction nor the answer mentions.
    """
    text = answered.answer
    known = subjects(answered.instruction) | subjects(text)
    foreign = [
        (clause, donor.id)
        for donor in donors
        if overlap(answered, donor) is None
        for clause in (donor.answer[slice(*span)] for span in _clauses(donor.answer))
        if len(subjects(clause) - known) >= _CLAUSE_SUBJECTS
    ]
    own = _clauses(text)
    for index in random.permutation(len(own)):
        start, end = own[index]
        options = [f for f in foreign if abs(len(f[0]) - (end - start)) <= _CLAUSE_DIFFERENCE * len(text)]
        if options:
            clause, donor_id = options[random.integers(len(options))]
            return text[:start] + _cased_as(clause, text[start]) + text[end:], (donor_id,)
    return None


def _clauses(text: str) -> list[tuple[int, int]]:
    spans = []
    for match in _CLAUSE.finditer(text):
        clause = match[0]
        if len(clause.strip()) >= _CLAUSE_CHARS and not re.search(r"[(){}\[\]=<>|\"*#]", clause):
            start = match.start() + len(clause) - len(clause.lstrip())
            spans.append((start, start + len(clause.strip())))
    return spans


def _cased_as(text: str, first: str) -> str:
    return (text[0].upper() if first.isupper() else text[0].lower()) + text[1:]


def out_of_order(text: str, random: np.random.Generator) -> str | None:
    """Returns a text with its steps or sentences in another order; None if no order is the right one.

    Numbered steps are moved with their numbers. Sentences are moved if there are at least four whole ones in
    running text; none stays in its place, and what is left at the end stays there.
    """
    if "```" in text:
        return None
    lines = [(match.start(), match.end()) for match in re.finditer(r"[^\n]+", text)]
    steps = [span for span in lines if _STEP.match(text[slice(*span)])]
    if len(steps) >= _MIN_STEPS:
        return _moved(text, steps, random)
    spans = sentences(text)
    whole = [span for span in spans if is_complete(text[slice(*span)])]
    is_running = not steps and not any(_BULLET.match(text[slice(*span)]) for span in lines)
    if len(whole) < _MIN_SENTENCES or len(spans) - len(whole) > 1 or not is_running:
        return None
    return _moved(text, whole, random)


def _moved(text: str, spans: Sequence[tuple[int, int]], random: np.random.Generator) -> str:
    """Returns a text in which none of the spans is in its place: a random cycle through all of them."""
    cycle = random.permutation(len(spans))
    source = dict(zip(cycle.tolist(), np.roll(cycle, 1).tolist(), strict=True))
    parts, end = [], 0
    for index, span in enumerate(spans):
        parts += [text[end : span[0]], text[slice(*spans[source[index]])]]
        end = span[1]
    return "".join(parts) + text[end:]


def dropped_and_doubled(text: str, random: np.random.Generator) -> str | None:
    """Returns a text in which some words are left out and about as many characters of others stand twice."""
    words = spaced_words(text)
    count = max(2, round(_DAMAGED_WORDS * len(words)))
    if len(words) < 2 * count:
        return None
    # Several draws, since the characters that go and come need not be equally many in one.
    best = min(
        (_drop_and_double(text, words, count, random) for _ in range(_ATTEMPTS)),
        key=lambda damaged: abs(len(damaged) - len(text)),
    )
    return best


def _drop_and_double(
    text: str, words: Sequence[tuple[int, int]], count: int, random: np.random.Generator
) -> str:
    chosen = random.permutation(len(words))
    drop, double = set(chosen[:count].tolist()), set(chosen[count : 2 * count].tolist())
    parts, end = [], 0
    for index, (start, stop) in enumerate(words):
        gap, word = text[end:start], text[start:stop]
        if index not in drop:
            parts.append(gap + (f"{word} {word}" if index in double else word))
        elif "\n" in gap:
            parts.append(gap)
        end = stop
    return "".join(parts) + text[end:]


def swapped_noun(
    answered: Answered, donors: Sequence[Answered], random: np.random.Generator
) -> tuple[str, tuple[str, ...]] | None:
    """Returns the answer with a noun of the instruction replaced throughout by one of another instruction.

    None if no noun of the instruction occurs in the answer, or none of the others is nearly as long.
    """
    present = [noun for noun in _nouns(answered.instruction) if _whole(noun).search(answered.answer)]
    known = subjects(answered.instruction) | subjects(answered.answer)
    options = [
        (noun, other, donor.id)
        for noun in present
        for donor in donors
        for other in _nouns(donor.instruction)
        if abs(len(noun) - len(other)) <= 1
        and not subjects(other) & known
        and noun.endswith("s") == other.endswith("s")
    ]
    if not options:
        return None
    noun, other, donor_id = options[random.integers(len(options))]
    damaged = _whole(noun).sub(lambda found: _cased_as(other, found[0][0]), answered.answer)
    return damaged, (donor_id,)


def _whole(word: str) -> re.Pattern[str]:
    return re.compile(rf"\b{re.escape(word)}\b", re.I)


def _nouns(instruction: str) -> list[str]:
    """Returns words that end a noun phrase: subjects that follow a word and precede no subject."""
    found = []
    for line in instruction.splitlines():
        words = list(re.finditer(r"\w+", line))
        for index, word in enumerate(words):
            following = words[index + 1] if index + 1 < len(words) else None
            ends = (
                following is None
                or is_function_word(following[0])
                or not line[word.end() : following.start()].isspace()
            )
            if index and ends and word[0].isalpha() and len(word[0]) >= _NOUN_CHARS and subjects(word[0]):
                found.append(word[0].casefold())
    return list(dict.fromkeys(found))
