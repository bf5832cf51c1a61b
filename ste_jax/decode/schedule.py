"""Continuous batching inside one bucket: groups in slots, samples in columns, both refilled as they end.

The host looks at the samples after every chunk of steps. A sample that has ended leaves its column to the
next sample of its group; a group that has ended leaves its slot to the next request.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator

import jax
import numpy as np

from ste_jax.decode.cache import Chunk, Prefix, empty_chunk, empty_prefix
from ste_jax.decode.protocol import Completion, Group, Request, Tail
from ste_jax.decode.steps import (
    CHOSEN,
    EXHAUSTED,
    NO_TAIL,
    RUNNING,
    STOPPED,
    Controls,
    Samples,
    decode_chunk,
    prefill,
)
from ste_jax.models.llama import Llama


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of the programs of a bucket.

    Attributes:
      prompt: positions of a prefix.
      groups: slots.
      wave: columns of a slot, each for one sample at a time.
      columns: steps of a chunk.
      rows: prompts of one prefill.
      chunks: that the longest sample can fill.
    """

    prompt: int
    groups: int
    wave: int
    columns: int
    rows: int
    chunks: int


@dataclasses.dataclass
class Usage:
    """What an engine has done.

    Attributes:
      prompts: prompts read, of `prompt_tokens` tokens in `prompt_positions` positions with padding.
      steps: decoding steps; each feeds one token to every column, used or not: `slot_steps`.
      used_steps: those of the slot steps that fed a running sample.
      samples: samples delivered, of `tokens` tokens.
      saved_samples: samples of ended requests that were not wanted any more.
      dropped_tokens: what those of them that had begun had made.
    """

    prompts: int = 0
    prompt_tokens: int = 0
    prompt_positions: int = 0
    steps: int = 0
    slot_steps: int = 0
    used_steps: int = 0
    samples: int = 0
    tokens: int = 0
    saved_samples: int = 0
    dropped_tokens: int = 0

    @property
    def occupancy(self) -> float:
        """The share of slot steps that fed a running sample."""
        return self.used_steps / max(1, self.slot_steps)


@dataclasses.dataclass
class _Sample:
    """A sample in its column."""

    number: int
    tokens: list[int]
    forced: bool = False


@dataclasses.dataclass
class _Slot:
    """A request in flight: its samples by column, those that have ended, and how many began and count."""

    request: Request
    columns: list[_Sample | None]
    ended: dict[int, Completion]
    begun: int = 0
    counted: int = 0

    def completions(self) -> tuple[Completion, ...]:
        """The ended samples up to the first that has not."""
        return tuple(self.ended[i] for i in range(self.counted))


class BucketRun:
    """Serves the requests of one bucket: caches on the devices, slots and samples on the host."""

    def __init__(
        self,
        model: Llama,
        mesh: jax.sharding.Mesh,
        shape: Shape,
        controls: Controls,
        usage: Usage,
        tail: Tail | None,
        enough: Callable[[str, tuple[Completion, ...]], bool] | None,
        on_tokens: Callable[[int], None] | None,
    ):
        self._model, self._mesh, self._shape, self._controls, self._usage = (
            model,
            mesh,
            shape,
            controls,
            usage,
        )
        self._tail, self._enough, self._on_tokens = tail, enough, on_tokens
        self._slots: list[_Slot | None] = [None] * shape.groups
        columns = (shape.groups, shape.wave)
        self._samples = Samples(
            token=np.zeros(columns, np.int32),
            position=np.zeros(columns, np.int32),
            budget=np.zeros(columns, np.int32),
            tail=np.full(columns, NO_TAIL, np.int32),
            status=np.full(columns, STOPPED, np.int32),
            keys=np.zeros((*columns, 2), np.uint32),
            used=np.zeros(columns, np.int32),
        )

    def serve(self, waiting: deque[Request]) -> Iterator[Group]:
        """Runs until every waiting request has been yielded."""
        chunks: list[Chunk] = []
        with jax.set_mesh(self._mesh):
            prefix = empty_prefix(self._model, self._shape.groups, self._shape.prompt)
        while waiting or any(self._slots):
            with jax.set_mesh(self._mesh):
                while waiting and self._slots.count(None) >= min(self._shape.rows, len(waiting)):
                    prefix = self._refill(prefix, waiting)
                self._grow(chunks)
                made = self._run_chunk(prefix, chunks)
            yield from self._collect()
            if self._on_tokens and made:
                self._on_tokens(made)

    def _place(self, array: np.ndarray) -> jax.Array:
        spec = self._model.rules.spec("batch", *[None] * (array.ndim - 1))
        return jax.device_put(array, jax.NamedSharding(self._mesh, spec))

    def _refill(self, prefix: Prefix, waiting: deque[Request]) -> Prefix:
        rows, usage = self._shape.rows, self._usage
        free = [i for i, slot in enumerate(self._slots) if slot is None][:rows]
        tokens = np.zeros((rows, self._shape.prompt), np.int32)
        length = np.zeros(rows, np.int32)
        groups = np.full(rows, self._shape.groups, np.int32)
        for row, index in enumerate(free[: len(waiting)]):
            request = waiting.popleft()
            # The last token of the prompt is fed by every sample as its first step.
            length[row] = len(request.prompt) - 1
            tokens[row, : length[row]] = request.prompt[:-1]
            groups[row] = index
            self._slots[index] = slot = _Slot(request, [None] * self._shape.wave, {})
            for column in range(self._shape.wave):
                self._begin(index, slot, column)
            usage.prompts += 1
        usage.prompt_tokens += int(length.sum())
        usage.prompt_positions += tokens.size
        place = self._place
        return prefill(self._model, prefix, place(tokens), place(length), place(groups))

    def _begin(self, index: int, slot: _Slot, column: int) -> None:
        """Gives a column to the next sample of its group, if there is one."""
        samples, at = self._samples, (index, column)
        samples.status[at], slot.columns[column] = STOPPED, None
        if slot.begun == slot.request.n:
            return
        slot.columns[column] = _Sample(slot.begun, [])
        samples.token[at] = slot.request.prompt[-1]
        samples.position[at] = len(slot.request.prompt) - 1
        samples.budget[at] = slot.request.max_new_tokens
        samples.tail[at], samples.status[at], samples.used[at] = NO_TAIL, RUNNING, 0
        samples.keys[at] = slot.request.keys[slot.begun]
        slot.begun += 1

    def _grow(self, chunks: list[Chunk]) -> None:
        """Doubles the number of chunks when a sample needs more: few programs, no memory held in advance."""
        running = self._samples.status == RUNNING
        needed = 1 + int(self._samples.used[running].max(initial=0))
        size = max(1, len(chunks))
        while size < needed:
            size = min(2 * size, self._shape.chunks)
        shape = self._shape
        new = size - len(chunks)
        chunks[:0] = [empty_chunk(self._model, shape.groups, shape.wave, shape.columns) for _ in range(new)]

    def _run_chunk(self, prefix: Prefix, chunks: list[Chunk]) -> int:
        """Runs the steps of a chunk; returns the number of tokens that were made."""
        samples = jax.tree.map(self._place, self._samples)
        # No running sample has filled as many chunks as there are: nobody sees the oldest any more.
        oldest = chunks.pop(0)
        newest, samples, made, steps, ran = decode_chunk(
            self._model, prefix, tuple(chunks), oldest, samples, self._controls
        )
        chunks.append(newest)
        samples, made, steps, ran = jax.device_get((samples, made, steps, ran))
        self._samples = jax.tree.map(np.array, samples)
        count = 0
        for slot, rows in zip(self._slots, made, strict=True):
            for sample, row in zip(slot.columns if slot else [], rows, strict=False):
                if sample:
                    new = row[row >= 0].tolist()
                    sample.tokens += new
                    count += len(new)
        self._usage.steps += int(steps)
        self._usage.slot_steps += int(steps) * ran.size
        self._usage.used_steps += int(ran.sum())
        return count

    def _collect(self) -> Iterator[Group]:
        for index, slot in enumerate(self._slots):
            if slot is None:
                continue
            error = None
            try:
                ended = self._advance(index, slot)
            except Exception as failure:  # the caller's own functions: only this request is theirs to end
                ended, error = True, failure
            if ended:
                yield self._close(index, slot, error)

    def _advance(self, index: int, slot: _Slot) -> bool:
        """Takes up what the samples of a slot have made; says whether its request has ended."""
        for column, sample in enumerate(slot.columns):
            if sample is None or self._samples.status[index, column] == RUNNING:
                continue
            if self._needs_tail(index, column, sample):
                self._begin_tail(index, column, sample)
                continue
            finish = "length" if self._samples.status[index, column] == EXHAUSTED else "stop"
            slot.ended[sample.number] = Completion(sample.number, tuple(sample.tokens), finish, sample.forced)
            self._begin(index, slot, column)
        while slot.counted in slot.ended:
            slot.counted += 1
            if self._enough and self._enough(slot.request.id, slot.completions()):
                return True
        return slot.counted == slot.request.n

    def _close(self, index: int, slot: _Slot, error: Exception | None) -> Group:
        """Frees a slot; returns its group."""
        completions, usage = slot.completions(), self._usage
        made = sum(len(completion.tokens) for completion in completions)
        begun = sum(len(done.tokens) for done in slot.ended.values())
        begun += sum(len(sample.tokens) for sample in slot.columns if sample)
        usage.samples += len(completions)
        usage.tokens += made
        usage.saved_samples += slot.request.n - len(completions)
        usage.dropped_tokens += begun - made
        self._samples.status[index] = STOPPED
        self._slots[index] = None
        return Group(slot.request.id, completions, error)

    def _needs_tail(self, index: int, column: int, sample: _Sample) -> bool:
        status = self._samples.status[index, column]
        return status != CHOSEN and self._tail is not None and self._tail.needed(tuple(sample.tokens))

    def _begin_tail(self, index: int, column: int, sample: _Sample) -> None:
        samples, at = self._samples, (index, column)
        stopped = samples.status[at] == STOPPED
        sample.forced = True
        samples.status[at], samples.tail[at] = RUNNING, 0
        if stopped and self._tail:
            # Its last token was fed already (its successor was the stop id): go on with the opening itself.
            sample.tokens.append(self._tail.opening[0])
            samples.token[at] = self._tail.opening[0]
            samples.tail[at] = 1
