"""Continuous batching: prompts in the places of slots, samples in the columns of slots, both refilled as they
end.

The host looks at the samples after some steps. A column that is free goes to the next sample of a
prompt of its slot. A slot has places for several prompts: when the samples of one have all begun, those of
the next take the columns that its last ones leave. Longer prompts are served first, so that the pages that
only they fill are not read for the others.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import jax
import numpy as np

from ste_jax.decode.cache import Prefix, Segment, empty_prefix, empty_segment
from ste_jax.decode.packing import Packing
from ste_jax.decode.protocol import Completion, ForcedSuffix, Group, Request
from ste_jax.decode.steps import (
    CHOSEN,
    EXHAUSTED,
    NOT_FORCED,
    RUNNING,
    STOPPED,
    Controls,
    Samples,
    decode,
    prefill,
)
from ste_jax.models.llama import Llama
from ste_jax.sharding import place


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of the programs of a call.

    Attributes:
      buckets: prompt lengths, rising, that programs are compiled for; pages of the prefix end there.
      slots: of prompts and samples.
      prompts: places of a slot, each for one prompt at a time.
      wave: columns of a slot, each for one sample at a time.
      steps: between two looks of the host.
      segments: columns for the own tokens of a sample.
      prefill_tokens: prompt positions of one prefill, if one prompt has no more.
      multiple: of which slots and the rows of a prefill are one, for the mesh to share them out.
    """

    buckets: tuple[int, ...]
    slots: int
    prompts: int
    wave: int
    steps: int
    segments: tuple[int, ...]
    prefill_tokens: int
    multiple: int = 1

    @property
    def pages(self) -> tuple[int, ...]:
        """The lengths of the pages of a prefix."""
        return tuple(end - start for start, end in zip((0, *self.buckets), self.buckets, strict=False))

    def rows(self, bucket: int) -> int:
        """Returns how many prompts as long as a bucket fill a prefill."""
        rows = min(max(1, self.prefill_tokens // bucket), self.slots)
        return -(-rows // self.multiple) * self.multiple

    def packing(self, bucket: int) -> Packing:
        """Returns the empty rows of a prefill, one for each device that has rows of its own."""
        rows = self.rows(bucket) // self.multiple
        # Shorter than their bucket, and alike at their beginnings: twice as many have room, or nearly.
        prompts = min(2 * rows, self.slots * self.prompts // self.multiple) if rows > 1 else 1
        return Packing(
            rows=self.multiple,
            positions=rows * bucket,
            prompts=prompts,
            longest=bucket,
            slots=self.slots,
        )

    def bucket(self, request: Request) -> int:
        """Returns the bucket of a request: the last token of its prompt is not part of the prefix."""
        return next(b for b in self.buckets if len(request.prompt) - 1 <= b)


@dataclasses.dataclass
class Usage:
    """What an engine has done.

    Attributes:
      prompts: prompts read, of `prompt_tokens` tokens; `prompt_positions` were computed: what several begin
        with once, and what stood empty.
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
    logprobs: list[np.ndarray]
    forced: bool = False

    def completion(self, finish: Literal["stop", "length"], choices: int) -> Completion:
        """Returns the ended sample; the log-probabilities at its stop id are dropped."""
        logprobs = None
        if choices:
            logprobs = np.concatenate([np.zeros((0, choices), np.float32), *self.logprobs])
            logprobs = logprobs[: len(self.tokens)]
        return Completion(self.number, tuple(self.tokens), finish, self.forced, logprobs)


@dataclasses.dataclass
class _Flight:
    """A request in its place: its samples by column, those that have ended, and how many began and count."""

    request: Request
    slot: int
    place: int
    columns: dict[int, _Sample]
    ended: dict[int, Completion]
    begun: int = 0
    counted: int = 0

    @property
    def waiting(self) -> int:
        """The number of samples that have not begun."""
        return self.request.n - self.begun

    def completions(self) -> tuple[Completion, ...]:
        """The ended samples up to the first that has not."""
        return tuple(self.ended[i] for i in range(self.counted))


def reads(shape: Shape, requests: Sequence[Request]) -> list[list[Request]]:
    """Returns the requests by the prefills that would read them, if there were a place for each."""
    waiting, taken = _in_order(shape, requests), []
    while waiting:
        taken.append([request for request, _ in _take(shape, waiting, len(waiting))[1]])
    return taken


def _in_order(shape: Shape, requests: Iterable[Request]) -> deque[Request]:
    return deque(sorted(requests, key=shape.bucket, reverse=True))


def _take(
    shape: Shape, waiting: deque[Request], most: int
) -> tuple[Packing, list[tuple[Request, tuple[int, int]]]]:
    """Takes the next requests of one bucket for a prefill: with their seats, at most so many."""
    bucket = shape.bucket(waiting[0])
    packing, taken, left_out = shape.packing(bucket), [], []
    # A shorter one may have room where another had none, but the search has an end.
    for _ in range(min(len(waiting), 2 * packing.packed.length.size)):
        if len(taken) == most or shape.bucket(waiting[0]) != bucket:
            break
        request = waiting.popleft()
        # The last token of the prompt is fed by every sample as its first step.
        if seat := packing.add(request.prompt[:-1]):
            taken.append((request, seat))
        else:
            left_out.append(request)
    waiting.extendleft(reversed(left_out))
    return packing, taken


class Run:
    """Serves the requests of a call: caches on the devices, slots and samples on the host."""

    def __init__(
        self,
        model: Llama,
        mesh: jax.sharding.Mesh,
        shape: Shape,
        controls: Controls,
        usage: Usage,
        suffix: ForcedSuffix | None,
        stop_request_when: Callable[[str, tuple[Completion, ...]], bool] | None,
        on_tokens: Callable[[int], None] | None,
    ):
        self._model, self._mesh, self._shape, self._controls = model, mesh, shape, controls
        self._usage, self._forced_suffix, self._on_tokens = usage, suffix, on_tokens
        self._stop_request_when = stop_request_when
        # Of each slot, its requests in the order in which they came.
        self._slots: list[list[_Flight]] = [[] for _ in range(shape.slots)]
        columns = (shape.slots, shape.wave)
        self._samples = Samples(
            token=np.zeros(columns, np.int32),
            position=np.zeros(columns, np.int32),
            budget=np.zeros(columns, np.int32),
            forced=np.full(columns, NOT_FORCED, np.int32),
            status=np.full(columns, STOPPED, np.int32),
            keys=np.zeros((*columns, 2), np.uint32),
            own=np.zeros(columns, np.int32),
            place=np.zeros(columns, np.int32),
        )

    def serve(self, requests: list[Request]) -> Iterator[Group]:
        """Runs until every request has been yielded."""
        shape = self._shape
        waiting = _in_order(shape, requests)
        suffix: tuple[Segment, ...] = ()
        with jax.set_mesh(self._mesh):
            prefix = empty_prefix(self._model, shape.slots, shape.prompts, shape.pages)
        while waiting or any(self._slots):
            with jax.set_mesh(self._mesh):
                while waiting and (packing := self._next(waiting)):
                    prefix = self._read(prefix, packing)
                self._assign()
                suffix, made = self._decode(prefix, self._grow(suffix))
            yield from self._collect()
            if self._on_tokens and made:
                self._on_tokens(made)

    def _place(self, array: np.ndarray) -> jax.Array:
        spec = self._model.rules.spec("batch", *[None] * (array.ndim - 1))
        return place(array, self._mesh, spec)

    def _next(self, waiting: deque[Request]) -> Packing | None:
        """Takes the next requests to read, each for a place; None unless a column stands free.

        A prefill takes as many requests as it has room for, even if only one column waits for them.
        """
        shape = self._shape
        wants = [shape.wave - sum(len(f.columns) + f.waiting for f in flights) for flights in self._slots]
        free = [sorted(set(range(shape.prompts)) - {f.place for f in flights}) for flights in self._slots]
        if not any(want > 0 and left for want, left in zip(wants, free, strict=True)):
            return None
        packing, taken = _take(shape, waiting, sum(map(len, free)))
        for request, seat in taken:
            slot = max((slot for slot, left in enumerate(free) if left), key=lambda slot: wants[slot])
            place = free[slot].pop(0)
            packing.send(seat, slot, place)
            wants[slot] -= request.n
            self._slots[slot].append(_Flight(request, slot, place, {}, {}))
        return packing

    def _read(self, prefix: Prefix, packing: Packing) -> Prefix:
        """Prefills requests into their places."""
        packed, usage = packing.packed, self._usage
        usage.prompts += int((packed.slots < self._shape.slots).sum())
        usage.prompt_tokens += int(packed.length.sum())
        usage.prompt_positions += packed.tokens.size
        return prefill(self._model, prefix, jax.tree.map(self._place, packed))

    def _assign(self) -> None:
        """Gives the free columns of every slot to the next samples of its requests."""
        for flights in self._slots:
            taken = {column for flight in flights for column in flight.columns}
            free = [column for column in range(self._shape.wave) if column not in taken]
            for flight in flights:
                for _ in range(min(len(free), flight.waiting)):
                    self._begin(flight, free.pop(0))

    def _begin(self, flight: _Flight, column: int) -> None:
        samples, at, request = self._samples, (flight.slot, column), flight.request
        # Without a budget the sample is the forced suffix alone.
        forced = request.max_new_tokens == 0
        flight.columns[column] = _Sample(flight.begun, [], [], forced)
        samples.token[at] = request.prompt[-1]
        samples.position[at] = len(request.prompt) - 1
        samples.budget[at] = request.max_new_tokens
        samples.forced[at], samples.status[at] = 0 if forced else NOT_FORCED, RUNNING
        samples.own[at] = 0
        samples.keys[at] = request.keys[flight.begun]
        samples.place[at] = flight.place
        flight.begun += 1

    def _grow(self, suffix: tuple[Segment, ...]) -> tuple[Segment, ...]:
        """Adds segments when a sample may need more: few programs, no memory held in advance."""
        shape, running = self._shape, self._samples.status == RUNNING
        needed = min(int(self._samples.own[running].max()) + shape.steps, sum(shape.segments))
        while sum(shape.segments[: len(suffix)]) < needed:
            columns = shape.segments[len(suffix)]
            suffix = (*suffix, empty_segment(self._model, shape.slots, shape.wave, columns))
        return suffix

    def _decode(self, prefix: Prefix, suffix: tuple[Segment, ...]) -> tuple[tuple[Segment, ...], int]:
        """Takes the steps up to the next look; returns the suffix and the number of tokens that were made."""
        flights = [flight for flights in self._slots for flight in flights]
        suffix, samples, generated = decode(
            self._model,
            prefix.upto(max(self._shape.bucket(flight.request) for flight in flights)),
            suffix,
            jax.tree.map(self._place, self._samples),
            self._controls,
            self._shape.steps,
        )
        samples, generated = jax.device_get((samples, generated))
        self._samples = jax.tree.map(np.array, samples)
        for flight in flights:
            for column, sample in flight.columns.items():
                at = flight.slot, column
                row, ran = generated.tokens[at], generated.running[at]
                sample.tokens += row[row >= 0].tolist()
                if generated.logprobs is not None:
                    sample.logprobs.append(generated.logprobs[at][:ran].copy())
        self._usage.steps += int(generated.steps)
        self._usage.slot_steps += int(generated.steps) * generated.running.size
        self._usage.used_steps += int(generated.running.sum())
        return suffix, int((generated.tokens >= 0).sum())

    def _collect(self) -> Iterator[Group]:
        for flight in [flight for flights in self._slots for flight in flights]:
            error = None
            try:
                ended = self._advance(flight)
            except Exception as failure:  # the caller's own functions: only this request is theirs to end
                ended, error = True, failure
            if ended:
                yield self._close(flight, error)

    def _advance(self, flight: _Flight) -> bool:
        """Takes up what the samples of a request have made; says whether it has ended."""
        for column, sample in list(flight.columns.items()):
            status = self._samples.status[flight.slot, column]
            if status == RUNNING:
                continue
            suffix = self._forced_suffix
            if status != CHOSEN and suffix and suffix.should_force(tuple(sample.tokens)):
                self._begin_suffix((flight.slot, column), sample, suffix)
                continue
            finish = "length" if status == EXHAUSTED else "stop"
            flight.ended[sample.number] = sample.completion(finish, len(self._controls.choices))
            del flight.columns[column]
        while flight.counted in flight.ended:
            flight.counted += 1
            stop = self._stop_request_when
            if stop and stop(flight.request.id, flight.completions()):
                return True
        return flight.counted == flight.request.n

    def _begin_suffix(self, at: tuple[int, int], sample: _Sample, suffix: ForcedSuffix) -> None:
        samples = self._samples
        stopped = samples.status[at] == STOPPED
        sample.forced = True
        samples.status[at], samples.forced[at] = RUNNING, 0
        if stopped:
            # The last token was fed already and the stop id drawn after it. The first id of the suffix stands
            # in its place, and the log-probabilities recorded there are those of this position.
            sample.tokens.append(suffix.prefix_ids[0])
            samples.token[at] = suffix.prefix_ids[0]
            samples.forced[at] = 1

    def _close(self, flight: _Flight, error: Exception | None) -> Group:
        """Frees the place of a request; returns its group."""
        completions, usage = flight.completions(), self._usage
        made = sum(len(completion.tokens) for completion in completions)
        begun = sum(len(done.tokens) for done in flight.ended.values())
        begun += sum(len(sample.tokens) for sample in flight.columns.values())
        usage.samples += len(completions)
        usage.tokens += made
        usage.saved_samples += flight.request.n - len(completions)
        usage.dropped_tokens += begun - made
        self._samples.status[flight.slot, list(flight.columns)] = STOPPED
        self._slots[flight.slot].remove(flight)
        return Group(flight.request.id, completions, error)
