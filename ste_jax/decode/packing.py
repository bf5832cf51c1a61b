"""What one prefill reads: prompts side by side in rows, without padding between them.

What a prompt begins with is not read again if another one of its row begins so: the two orders of a pair
have their instruction in common, and all judge prompts of a call their opening.
Axes: b rows, R positions of a row, n prompts of a row, P positions of a prompt.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Packed:
    """Prompts in rows; all int32.

    Attributes:
      tokens: [b, R].
      positions: [b, R], of each token in its prompts.
      at: [b, n, P], where in the row each position of each prompt lies.
      back: [b, R], a prompt and position that lies there, as a number below n * P.
      length: [b, n], of the prompts; what lies `at` later positions is anything.
      slots: [b, n], where the prompts go; one that no slot has: nowhere.
      places: [b, n], in the place of which of the slot's prompts.
    """

    tokens: Any
    positions: Any
    at: Any
    back: Any
    length: Any
    slots: Any
    places: Any


class Packing:
    """Rows that are being filled.

    Args:
      rows: their number.
      positions: of a row.
      prompts: the most of a row.
      longest: positions of a prompt, at most.
      slots: how many there are.
    """

    def __init__(self, *, rows: int, positions: int, prompts: int, longest: int, slots: int):
        def zeros(*shape: int) -> np.ndarray:
            return np.zeros(shape, np.int32)

        self.packed = Packed(
            tokens=zeros(rows, positions),
            positions=zeros(rows, positions),
            at=zeros(rows, prompts, longest),
            back=zeros(rows, positions),
            length=zeros(rows, prompts),
            slots=np.full((rows, prompts), slots, np.int32),
            places=zeros(rows, prompts),
        )
        self._prompts: list[list[np.ndarray]] = [[] for _ in range(rows)]
        self._filled = [0] * rows

    def add(self, prompt: Sequence[int]) -> tuple[int, int] | None:
        """Puts a prompt into the row that has most of it already.

        Returns:
          the row and the number of the prompt in it, or None: no row has room.
        """
        ids, best = np.asarray(prompt, np.int32), None
        for row, others in enumerate(self._prompts):
            head, other = max(((_common(ids, ids_), i) for i, ids_ in enumerate(others)), default=(0, 0))
            fits = self._filled[row] + len(ids) - head <= self.packed.tokens.shape[1]
            if fits and len(others) < self.packed.at.shape[1] and (best is None or head > best[1]):
                best = row, head, other
        return self._put(ids, *best) if best else None

    def send(self, seat: tuple[int, int], slot: int, place: int) -> None:
        """Says where the prompt of a row and number goes."""
        self.packed.slots[seat], self.packed.places[seat] = slot, place

    def _put(self, ids: np.ndarray, row: int, head: int, other: int) -> tuple[int, int]:
        packed, number = self.packed, len(self._prompts[row])
        start, its_own = self._filled[row], np.arange(head, len(ids))
        end = start + len(its_own)
        packed.tokens[row, start:end] = ids[head:]
        packed.positions[row, start:end] = its_own
        packed.at[row, number, :head] = packed.at[row, other, :head]
        packed.at[row, number, head : len(ids)] = np.arange(start, end)
        packed.back[row, start:end] = number * packed.at.shape[2] + its_own
        packed.length[row, number] = len(ids)
        self._prompts[row].append(ids)
        self._filled[row] = end
        return row, number


def _common(a: np.ndarray, b: np.ndarray) -> int:
    """Returns how many ids two prompts begin with alike."""
    size = min(len(a), len(b))
    different = np.flatnonzero(a[:size] != b[:size])
    return int(different[0]) if len(different) else size
