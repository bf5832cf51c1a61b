"""Packs training examples into rows: a step's batch follows from examples, settings, seed and step alone."""

import dataclasses
import hashlib
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np
from jaxtyping import Int32, Int64

from ste_jax.errors import SteError
from ste_jax.randomness import generator
from ste_jax.records import PairwiseExample, PreferenceExample, TrainingExample
from ste_jax.training.settings import TrainSettings

PackableExample = TrainingExample | PreferenceExample | PairwiseExample


@dataclasses.dataclass(frozen=True)
class PackingStats:
    """Counts of a packing.

    Attributes:
      examples: Number of packed examples.
      left_out: Number of examples longer than a row.
      tokens: Number of tokens of the packed examples.
      target_tokens: Number of tokens among them that have a loss.
      rows: Number of rows of one epoch.
      padding: Share of an epoch's positions without a token, the empty rows of the last batch included.
    """

    examples: int
    left_out: int
    tokens: int
    target_tokens: int
    rows: int
    padding: float


@dataclasses.dataclass(frozen=True)
class _Packing:
    """Rows of one epoch.

    Attributes:
      members: Indices of the examples, row after row.
      starts: Index in `members` of the first example of each row, and the number of examples.
    """

    members: Int32[np.ndarray, " examples"]
    starts: Int64[np.ndarray, " boundaries"]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, number: int) -> np.ndarray:
        return self.members[self.starts[number] : self.starts[number + 1]]


class Batches:
    """Batches of one run.

    Each epoch packs a new permutation of the examples into rows by best fit, longest first, and shuffles
    the rows. The order of lengths is the same in every epoch, so all epochs have the same number of rows.

    Examples are read once at the start and then whenever a batch holds them. Only their lengths, 16 bytes an
    example, stay in memory, so that `examples` may be on disk.

    Attributes:
      packing: Counts for the report.
      steps_per_epoch: Batches of one pass; the last one is filled up with empty rows.
      total_steps: Batches of the run: at most `settings.epochs` passes, at least one batch.
      targets_per_row: R of `batch`: maximum number of targets of a row, rounded up to whole loss chunks.
      examples_per_row: Maximum number of examples of a row in any epoch.
      fingerprint: Hash of the examples, their order and the seed.
    """

    def __init__(
        self, examples: Sequence[PackableExample], settings: TrainSettings, seed: int, iteration: int
    ):
        self._settings = settings
        self._seed, self._iteration = seed, iteration
        self._examples = examples
        self._measure()
        self._epoch, self._packing = 0, self._pack(0)
        self._read_step, self._read_rows = -1, []
        self.steps_per_epoch = -(-len(self._packing) // settings.batch_rows)
        self.packing = self._count()
        # Rounded before it is cut: 1.4 times 45 is 62.99999999999999.
        self.total_steps = settings.steps(self.steps_per_epoch)
        starts = self._packing.starts
        longest = int(np.add.reduceat(self._targets[self._packing.members], starts[:-1]).max())
        self.examples_per_row = int(np.diff(starts).max())
        self.targets_per_row = -(-longest // settings.loss_chunk) * settings.loss_chunk

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Returns the arrays of step 0, 1, ... .

        tokens, positions, segments: int32 [batch_rows, row_length]; segments count a row's sequences from 1,
        0 is padding; positions restart at every sequence.
        target_at, target_ids: int32 [batch_rows, R]: the id that follows the token at that index of the row.
        target_weights: float32 [batch_rows, R]: 1, or 0 where a row has fewer targets.
        """
        size, length, targets = self._settings.batch_rows, self._settings.row_length, self.targets_per_row
        arrays: dict[str, np.ndarray] = {
            name: np.zeros((size, length), np.int32) for name in ("tokens", "positions", "segments")
        }
        arrays |= {name: np.zeros((size, targets), np.int32) for name in ("target_at", "target_ids")}
        arrays["target_weights"] = np.zeros((size, targets), np.float32)
        for index, row in enumerate(self.rows(step)):
            _fill_row({name: array[index] for name, array in arrays.items()}, row)
        return arrays

    def example_ids(self, step: int) -> list[str]:
        """Returns the ids of the examples in the batch of `step`."""
        return [example.id for row in self.rows(step) for example in row]

    def rows(self, step: int) -> list[list[PackableExample]]:
        """Returns the examples of each row of the batch of `step`, without rows that are empty."""
        if step != self._read_step:
            epoch, index = divmod(step, self.steps_per_epoch)
            if epoch != self._epoch:
                self._epoch, self._packing = epoch, self._pack(epoch)
            size = self._settings.batch_rows
            numbers = range(index * size, min((index + 1) * size, len(self._packing)))
            rows = [[self._examples[i] for i in self._packing.row(number)] for number in numbers]
            self._read_step, self._read_rows = step, rows
        return self._read_rows

    def _measure(self) -> None:
        """Computes the lengths of all examples and the fingerprint in one pass."""
        sizes, targets = (np.zeros(len(self._examples), np.int64) for _ in range(2))
        digest = hashlib.sha256(f"{self._seed} {self._iteration}".encode())
        for number, example in enumerate(self._examples):
            sizes[number] = sum(len(prompt) + len(target) for prompt, target in example.sequences)
            targets[number] = sum(len(target) for _, target in example.sequences)
            if sizes[number] <= self._settings.row_length:
                _add_to_digest(digest, example)
        self._sizes, self._targets = sizes, targets
        self._fitting = np.flatnonzero(sizes <= self._settings.row_length)
        self.fingerprint = digest.hexdigest()
        if not len(self._fitting):
            raise SteError(
                "data_unusable",
                f"train: none of the {len(sizes)} examples fits into row_length {self._settings.row_length}; "
                "raise row_length or annotate with fewer new tokens",
            )

    def _pack(self, epoch: int) -> _Packing:
        random = generator(self._seed, "train", self._iteration, epoch)
        shuffled = self._fitting[random.permutation(len(self._fitting))]
        # Stable, on both lengths: equals stay shuffled, and every epoch needs the same rows and targets.
        ordered = shuffled[np.lexsort((-self._targets[shuffled], -self._sizes[shuffled]))]
        row_of = best_fit(self._sizes[ordered], self._settings.row_length)
        counts = np.bincount(row_of)
        rank = random.permutation(len(counts))
        position = np.empty_like(rank)
        position[rank] = np.arange(len(rank))
        members = ordered[np.argsort(position[row_of], kind="stable")].astype(np.int32)
        return _Packing(members, np.concatenate([[0], np.cumsum(counts[rank])]))

    def _count(self) -> PackingStats:
        tokens = int(self._sizes[self._fitting].sum())
        positions = self.steps_per_epoch * self._settings.batch_rows * self._settings.row_length
        return PackingStats(
            examples=len(self._fitting),
            left_out=len(self._sizes) - len(self._fitting),
            tokens=tokens,
            target_tokens=int(self._targets[self._fitting].sum()),
            rows=len(self._packing),
            padding=1.0 - tokens / positions,
        )


def _add_to_digest(digest: "hashlib._Hash", example: PackableExample) -> None:
    for prompt, target in example.sequences:
        if not (prompt and target):
            raise SteError(
                "data_damaged",
                f"training example {example.id}: prompt and target must both hold tokens; run the annotate "
                "stage again",
            )
        digest.update(f"\n{example.id} {len(prompt)} ".encode())
        digest.update(np.asarray(prompt + target, np.int32).tobytes())


def best_fit(sizes: np.ndarray, length: int) -> np.ndarray:
    """Assigns each item to the fullest row that still has room for it, or to a new row.

    Takes O(log(n) + length) per item: rows are grouped by their free positions, of which there are at most
    `length` different numbers.

    Args:
      sizes: int64 [n], sizes of the items in order, each at most `length`.
      length: Size of a row.

    Returns:
      int64 [n], row number of each item.
    """
    row_of, rows = np.zeros(len(sizes), np.int64), 0
    waiting: dict[int, list[int]] = defaultdict(list)  # free positions -> heap of rows
    levels: list[int] = []  # the free positions that some row has, sorted
    for item, size in enumerate(sizes.tolist()):
        level = bisect_left(levels, size)
        if level == len(levels):
            free, row = length, rows
            rows += 1
        else:
            free = levels[level]
            row = heappop(waiting[free])
            if not waiting[free]:
                levels.pop(level)
        row_of[item] = row
        if free > size:
            if not waiting[free - size]:
                insort(levels, free - size)
            heappush(waiting[free - size], row)
    return row_of


def _fill_row(arrays: dict[str, np.ndarray], row: Sequence[PackableExample]) -> None:
    start = target = 0
    sequences = [sequence for example in row for sequence in example.sequences]
    for segment, (prompt_ids, target_ids) in enumerate(sequences, 1):
        prompt, targets = len(prompt_ids), len(target_ids)
        size = prompt + targets
        span, target_span = slice(start, start + size), slice(target, target + targets)
        arrays["tokens"][span] = prompt_ids + target_ids
        arrays["positions"][span] = np.arange(size)
        arrays["segments"][span] = segment
        first = start + prompt - 1  # the last prompt token predicts the first target
        arrays["target_at"][target_span] = np.arange(first, first + targets)
        arrays["target_ids"][target_span] = target_ids
        arrays["target_weights"][target_span] = 1.0
        start, target = start + size, target + targets
