"""Packs training examples into rows: a step's batch follows from examples, settings, seed and step alone."""

import dataclasses
import hashlib
from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

from ste_jax.randomness import generator
from ste_jax.records import PreferenceExample, TrainingExample
from ste_jax.training.settings import TrainSettings

PackableExample = TrainingExample | PreferenceExample


@dataclasses.dataclass(frozen=True)
class PackingStats:
    """What the packing of a run came to; `padding` is the share of a pass's positions that hold no token, the
    empty rows of the last batch among them.
    """

    examples: int
    left_out: int
    tokens: int
    target_tokens: int
    rows: int
    padding: float


class Batches:
    """The batches of one run.

    Each epoch packs a fresh permutation of the examples into rows by best fit, longest first, and shuffles
    the rows. The order of lengths is the same in every epoch, so all epochs have the same number of rows.

    Attributes:
      packing: counts for the report.
      steps_per_epoch: batches of one pass; the last one is filled with empty rows.
      total_steps: batches of the run: at most `settings.epochs` passes, at least one batch.
      targets_per_row: R of `batch`: the most targets that a row holds, rounded up to whole loss chunks.
      examples_per_row: the most examples that a row holds, in any epoch.
      fingerprint: hash of the examples, their order and the seed.
    """

    def __init__(
        self, examples: Sequence[PackableExample], settings: TrainSettings, seed: int, iteration: int
    ):
        self._settings = settings
        self._seed, self._iteration = seed, iteration
        self._examples = [e for e in examples if _size(e) <= settings.row_length]
        self._refuse_unusable(len(examples))
        self._epoch, self._rows = 0, self._pack(0)
        self.steps_per_epoch = -(-len(self._rows) // settings.batch_rows)
        self.packing = self._count(len(examples))
        # Rounded before it is cut: 1.4 times 45 is 62.99999999999999.
        self.total_steps = settings.steps(self.steps_per_epoch)
        self.fingerprint = self._hash()
        longest = max(sum(map(_targets, row)) for row in self._rows)
        self.examples_per_row = max(map(len, self._rows))
        self.targets_per_row = -(-longest // settings.loss_chunk) * settings.loss_chunk

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """Returns the arrays of step 0, 1, ... .

        tokens, positions, segments: int32 [batch_rows, row_length]; segments count a row's sequences from 1,
        0 is padding; positions restart at every sequence.
        target_at, target_ids: int32 [batch_rows, R]: the id that follows the token at that index of the row.
        target_weights: float32 [batch_rows, R]: 1, and 0 where a row has fewer targets.
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
        """Returns the ids of the examples that the batch of `step` holds."""
        return [example.id for row in self.rows(step) for example in row]

    def rows(self, step: int) -> list[list[PackableExample]]:
        """Returns the examples of each row of the batch of `step`; rows that are missing are empty."""
        epoch, index = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._rows = epoch, self._pack(epoch)
        size = self._settings.batch_rows
        return self._rows[index * size : (index + 1) * size]

    def _pack(self, epoch: int) -> list[list[PackableExample]]:
        random = generator(self._seed, "train", self._iteration, epoch)
        shuffled = [self._examples[i] for i in random.permutation(len(self._examples))]
        # Stable, on both lengths: equals stay shuffled, and every epoch needs the same rows and targets.
        shuffled.sort(key=lambda e: (_size(e), _targets(e)), reverse=True)
        rows = _best_fit(shuffled, self._settings.row_length)
        return [rows[i] for i in random.permutation(len(rows))]

    def _refuse_unusable(self, given: int) -> None:
        for example in self._examples:
            if not all(prompt and target for prompt, target in example.sequences):
                raise ValueError(
                    f"training example {example.id}: prompt and target must both hold tokens; "
                    "build it again with the annotate stage"
                )
        if not self._examples:
            raise ValueError(
                f"train: none of the {given} examples fits into row_length {self._settings.row_length}; "
                "raise row_length or annotate with fewer new tokens"
            )

    def _hash(self) -> str:
        digest = hashlib.sha256(f"{self._seed} {self._iteration}".encode())
        for example in self._examples:
            for prompt, target in example.sequences:
                digest.update(f"\n{example.id} {len(prompt)} ".encode())
                digest.update(np.asarray(prompt + target, np.int32).tobytes())
        return digest.hexdigest()

    def _count(self, given: int) -> PackingStats:
        tokens = sum(map(_size, self._examples))
        positions = self.steps_per_epoch * self._settings.batch_rows * self._settings.row_length
        return PackingStats(
            examples=len(self._examples),
            left_out=given - len(self._examples),
            tokens=tokens,
            target_tokens=sum(map(_targets, self._examples)),
            rows=len(self._rows),
            padding=1.0 - tokens / positions,
        )


def _size(example: PackableExample) -> int:
    return sum(len(prompt) + len(target) for prompt, target in example.sequences)


def _targets(example: PackableExample) -> int:
    return sum(len(target) for _, target in example.sequences)


def _best_fit(examples: Sequence[PackableExample], length: int) -> list[list[PackableExample]]:
    """Puts each example into the fullest row that still holds it, or into a new one."""
    rows: list[list[PackableExample]] = []
    free: list[tuple[int, int]] = []  # (free positions, row), sorted
    for example in examples:
        size = _size(example)
        place = bisect_left(free, (size, 0))
        if place == len(free):
            left, row = length, len(rows)
            rows.append([])
        else:
            left, row = free.pop(place)
        rows[row].append(example)
        if left > size:
            insort(free, (left - size, row))
    return rows


def _fill_row(arrays: dict[str, np.ndarray], row: Sequence[PackableExample]) -> None:
    start = target = 0
    sequences = [sequence for example in row for sequence in example.sequences]
    for segment, (prompt_ids, target_ids) in enumerate(sequences, 1):
        prompt, targets = len(prompt_ids), len(target_ids)
        size = prompt + targets
        here, there = slice(start, start + size), slice(target, target + targets)
        arrays["tokens"][here] = prompt_ids + target_ids
        arrays["positions"][here] = np.arange(size)
        arrays["segments"][here] = segment
        first = start + prompt - 1  # the last prompt token predicts the first target
        arrays["target_at"][there] = np.arange(first, first + targets)
        arrays["target_ids"][there] = target_ids
        arrays["target_weights"][there] = 1.0
        start, target = start + size, target + targets
