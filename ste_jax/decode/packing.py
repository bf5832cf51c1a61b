"""Packing of prompts for a prefill: prompts follow each other in rows without padding between them.

A common beginning of prompts in one row is computed once: the two orders of a pair share their instruction,
and all judge prompts share the beginning of the template.
Axes: b rows, R positions of a row, n prompts of a row, P positions of a prompt.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int32

# The host passes NumPy arrays, the programs see JAX arrays.
Ids = np.ndarray | jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Packed:
    """Prompts in rows: input of `steps.prefill`.

    Attributes:
      tokens: Token ids of the rows, int32 [b, R].
      positions: Position of each token in its prompts, int32 [b, R].
      gather_index: Index in the row of each position of each prompt, int32 [b, n, P]; positions after the
        end of a prompt hold any index.
      scatter_index: A prompt and position that each token of a row belongs to, as the flat index
        prompt * P + position, int32 [b, R].
      length: Number of positions of each prompt, int32 [b, n].
      slots: Slot that each prompt is written to, int32 [b, n]; the number of slots drops the prompt.
      prompt_index: Index of the prompt of that slot which is overwritten, int32 [b, n].
    """

    tokens: Int32[Ids, "b R"]
    positions: Int32[Ids, "b R"]
    gather_index: Int32[Ids, "b n P"]
    scatter_index: Int32[Ids, "b R"]
    length: Int32[Ids, "b n"]
    slots: Int32[Ids, "b n"]
    prompt_index: Int32[Ids, "b n"]


class Packing:
    """Rows of a prefill while they are filled.

    Args:
      rows: Number of rows.
      positions: Number of positions of a row.
      prompts: Largest number of prompts of a row.
      longest: Largest number of positions of a prompt.
      slots: Number of slots.

    Attributes:
      packed: The rows, as NumPy arrays.
    """

    def __init__(self, *, rows: int, positions: int, prompts: int, longest: int, slots: int):
        def zeros(*shape: int) -> np.ndarray:
            return np.zeros(shape, np.int32)

        self.packed = Packed(
            tokens=zeros(rows, positions),
            positions=zeros(rows, positions),
            gather_index=zeros(rows, prompts, longest),
            scatter_index=zeros(rows, positions),
            length=zeros(rows, prompts),
            slots=np.full((rows, prompts), slots, np.int32),
            prompt_index=zeros(rows, prompts),
        )
        self._prompts: list[list[np.ndarray]] = [[] for _ in range(rows)]
        self._filled = [0] * rows

    def add(self, prompt: Sequence[int]) -> tuple[int, int] | None:
        """Adds a prompt to the row that shares the longest beginning with it.

        Returns:
          The packed index of the prompt (row, number in the row), or None if no row has room.
        """
        ids, best = np.asarray(prompt, np.int32), None
        for row, others in enumerate(self._prompts):
            common, other = max(((_common_prefix(ids, o), i) for i, o in enumerate(others)), default=(0, 0))
            fits = self._filled[row] + len(ids) - common <= self.packed.tokens.shape[1]
            has_room = fits and len(others) < self.packed.gather_index.shape[1]
            if has_room and (best is None or common > best[1]):
                best = row, common, other
        return self._append(ids, *best) if best else None

    def assign(self, packed_index: tuple[int, int], slot: int, prompt_index: int) -> None:
        """Sets the slot and the prompt of that slot which a packed prompt overwrites."""
        self.packed.slots[packed_index], self.packed.prompt_index[packed_index] = slot, prompt_index

    def _append(self, ids: np.ndarray, row: int, common: int, other: int) -> tuple[int, int]:
        packed, number = self.packed, len(self._prompts[row])
        start, new = self._filled[row], np.arange(common, len(ids))
        end = start + len(new)
        packed.tokens[row, start:end] = ids[common:]
        packed.positions[row, start:end] = new
        packed.gather_index[row, number, :common] = packed.gather_index[row, other, :common]
        packed.gather_index[row, number, common : len(ids)] = np.arange(start, end)
        packed.scatter_index[row, start:end] = number * packed.gather_index.shape[2] + new
        packed.length[row, number] = len(ids)
        self._prompts[row].append(ids)
        self._filled[row] = end
        return row, number


def _common_prefix(a: np.ndarray, b: np.ndarray) -> int:
    """Returns the length of the common prefix of two prompts."""
    size = min(len(a), len(b))
    different = np.flatnonzero(a[:size] != b[:size])
    return int(different[0]) if len(different) else size
