"""Kind `composite`: several instructions in one, with their answers joined, of which one is wrong, cut or
missing.

The texts are long without anything being generated, and candidates come in twos whose lengths balance:

- `replaced`: one answer is that to another instruction, and the joined responses differ by at most a tenth in
  length. Under the instructions that the second response answers, that one is the better.
- `left_out`: one answer is missing. Under the instructions without that one, the shorter response is the
better. - `cut`: of one answer there is only the beginning. Its counterpart has one answer more than was
requested.

Each instruction heads one composite of the first kind, and one of the others, so that about half of the
candidates are of nearly equal length. Of each two candidates, the better response is the longer one in
exactly one, unless the lengths are equal.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ste_jax.pairs.candidate import Answered, Candidate
from ste_jax.pairs.overlap import crossing_reason, overlap
from ste_jax.pairs.phrasing import Phrasing, draw_phrasing
from ste_jax.pairs.ring import Ring
from ste_jax.pairs.usable import usable
from ste_jax.pairs.wording import beginning
from ste_jax.randomness import generator

KIND = "composite"
# How often each number of instructions is drawn.
_COUNTS = {2: 0.35, 3: 0.25, 4: 0.2, 5: 0.2}
MAX_DIFFERENCE = 0.1
_CUT = (0.2, 0.6)
# Longer instructions are whole tasks with material, which do not read as one part of several.
_MAX_INSTRUCTION = 400
_TRIED = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Draw:
    """Ingredients of two candidates.

    Attributes:
      head: the instruction that they are named after.
      parts: the instructions.
      at: index of the part in question.
      foreign: another instruction, whose answer replaces that of the part or is added.
      cut: share of the part's answer that is kept where it is cut.
      phrasing: wording of the whole.
    """

    head: Answered
    parts: list[Answered]
    at: int
    foreign: Answered
    cut: float
    phrasing: Phrasing

    def replaced(self) -> list[Answered]:
        return [*self.parts[: self.at], self.foreign, *self.parts[self.at + 1 :]]

    def joined(self, parts: Sequence[Answered]) -> str:
        return self.phrasing.responses([part.answer for part in parts])


def composite(answers: Sequence[Answered], *, seed: int) -> list[Candidate]:
    """Returns up to four candidates for each usable answer to an instruction of at most 400 characters.

    One more instruction changes only the composites of those near it in a random circle.
    """
    kept = [answered for answered in usable(answers) if len(answered.instruction) <= _MAX_INSTRUCTION]
    ring = Ring(kept, seed=seed, kind=KIND)
    made: list[Candidate] = []
    for head in kept:
        variant = ("left_out", "cut")[generator(seed, KIND, head.id).integers(2)]
        for name in ("replaced", variant):
            draw = _draw(head, ring, generator(seed, KIND, head.id, name), is_matched=name == "replaced")
            if draw:
                made += _VARIANTS[name](draw)
    return made


def _draw(head: Answered, ring: Ring, random: np.random.Generator, *, is_matched: bool) -> _Draw | None:
    """Returns parts and a foreign instruction from those after the head, none of which overlap."""
    count = int(random.choice(list(_COUNTS), p=list(_COUNTS.values())))
    further = ring.after(head, _TRIED)
    chosen = [head]
    for other in further:
        if _is_apart(other, chosen):
            chosen.append(other)
        if len(chosen) == count:
            break
    if len(chosen) < 2:
        return None
    parts = [chosen[i] for i in random.permutation(len(chosen))]
    at, cut, phrasing = int(random.integers(len(parts))), random.uniform(*_CUT), draw_phrasing(random)
    draws = (
        _Draw(head=head, parts=parts, at=at, foreign=foreign, cut=cut, phrasing=phrasing)
        for foreign in further
        if _is_apart(foreign, parts)
    )
    return next((draw for draw in draws if not is_matched or _is_matched(draw)), None)


def _is_apart(other: Answered, chosen: Sequence[Answered]) -> bool:
    return all(overlap(part, other) is None for part in chosen)


def _is_matched(draw: _Draw) -> bool:
    """Returns True if the foreign answer can replace that of the part, and hardly changes the length."""
    if crossing_reason(draw.parts[draw.at], draw.foreign):
        return False
    lengths = [len(draw.joined(parts)) for parts in (draw.parts, draw.replaced())]
    return min(lengths) >= (1 - MAX_DIFFERENCE) * max(lengths)


def _replaced(draw: _Draw) -> list[Candidate]:
    first, second = draw.parts, draw.replaced()
    return [
        _candidate(draw, "replaced", first, draw.joined(first), draw.joined(second), [draw.foreign]),
        _candidate(draw, "replaced_back", second, draw.joined(second), draw.joined(first), [*first]),
    ]


def _left_out(draw: _Draw) -> list[Candidate]:
    whole, rest = draw.parts, draw.parts[: draw.at] + draw.parts[draw.at + 1 :]
    return [
        _candidate(draw, "left_out", whole, draw.joined(whole), draw.joined(rest), []),
        _candidate(draw, "surplus", rest, draw.joined(rest), draw.joined(whole), whole),
    ]


def _cut(draw: _Draw) -> list[Candidate]:
    parts, better = draw.parts, draw.joined(draw.parts)
    cut = [part.answer for part in parts]
    cut[draw.at] = beginning(cut[draw.at], draw.cut)
    return [
        _candidate(draw, "cut", parts, better, draw.phrasing.responses(cut), []),
        _candidate(draw, "unrequested", parts, better, draw.joined([*parts, draw.foreign]), [draw.foreign]),
    ]


_VARIANTS: dict[str, Callable[[_Draw], list[Candidate]]] = {
    "replaced": _replaced,
    "left_out": _left_out,
    "cut": _cut,
}


def _candidate(
    draw: _Draw,
    name: str,
    requested: Sequence[Answered],
    better: str,
    worse: str,
    further: Sequence[Answered],
) -> Candidate:
    return Candidate(
        key=f"{draw.head.id}.{name}",
        sources=tuple(dict.fromkeys(part.id for part in (*requested, *further))),
        instruction=draw.phrasing.instructions([part.instruction for part in requested]),
        better=better,
        worse=worse,
        details={"variant": name, "parts": len(requested)},
    )
