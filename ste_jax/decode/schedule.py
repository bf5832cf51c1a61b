"""Continuous batching: prompts in slots and samples in the lanes of slots, both replaced as they end.

The host synchronizes with the devices after some decoding steps. A free lane goes to the next sample of a
prompt of its slot. A slot holds several prompts: when all samples of one have started, those of the next take
the lanes that its last samples leave. Requests with longer prompts are served first, so that the pages of the
prefix cache that only they reach are not read afterwards.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import jax
import numpy as np

from ste_jax.decode.cache import Prefix, SuffixSegment, empty_prefix, empty_segment
from ste_jax.decode.packing import Packing
from ste_jax.decode.protocol import Completion, ForcedSuffix, Group, Request
from ste_jax.decode.shape import Shape
from ste_jax.decode.steps import (
    CHOSEN,
    EXHAUSTED,
    NOT_FORCED,
    RUNNING,
    STOPPED,
    SamplingParams,
    SamplingState,
    decode,
    prefill,
)
from ste_jax.models.llama import Llama
from ste_jax.sharding import put_on_mesh


@dataclasses.dataclass
class Usage:
    """Counts of the work of an engine.

    Attributes:
      prompts: Number of prompts prefilled.
      prompt_tokens: Number of their tokens.
      prompt_positions: Number of positions computed in prefills: common beginnings once, and empty positions.
      steps: Number of decoding steps.
      slot_steps: Number of decoding steps times the number of lanes, used or not.
      used_steps: Those of `slot_steps` in which a sample was running.
      samples: Number of samples delivered.
      tokens: Number of their tokens.
      skipped_samples: Samples that were not delivered since their request had ended.
      wasted_tokens: Tokens that such samples had generated.
    """

    prompts: int = 0
    prompt_tokens: int = 0
    prompt_positions: int = 0
    steps: int = 0
    slot_steps: int = 0
    used_steps: int = 0
    samples: int = 0
    tokens: int = 0
    skipped_samples: int = 0
    wasted_tokens: int = 0

    @property
    def occupancy(self) -> float:
        """The fraction of slot steps in which a sample was running."""
        return self.used_steps / max(1, self.slot_steps)


@dataclasses.dataclass
class _Sample:
    """A sample in its lane. `logprobs` may have the row of a stop id after those of `tokens`."""

    number: int
    tokens: list[int]
    logprobs: list[np.ndarray]
    forced: bool = False

    def completion(self, finish: Literal["stop", "length"], choices: int) -> Completion:
        """Returns the ended sample; `choices` is the number of choices."""
        logprobs = None
        if choices:
            logprobs = np.concatenate([np.zeros((0, choices), np.float32), *self.logprobs])
            logprobs = logprobs[: len(self.tokens)]
        return Completion(self.number, tuple(self.tokens), finish, self.forced, logprobs)


@dataclasses.dataclass
class _ActiveRequest:
    """A request in its slot.

    Attributes:
      request: The request.
      slot: Slot of its prompt.
      prompt_index: Index of its prompt in the slot.
      lanes: Running samples by lane.
      ended: Ended samples by number.
      started: Number of samples that have started.
      counted: Number of samples before the first that has not ended.
    """

    request: Request
    slot: int
    prompt_index: int
    lanes: dict[int, _Sample]
    ended: dict[int, Completion]
    started: int = 0
    counted: int = 0

    @property
    def waiting(self) -> int:
        """The number of samples that have not started."""
        return self.request.n - self.started

    def completions(self) -> tuple[Completion, ...]:
        """Returns the ended samples before the first that has not ended."""
        return tuple(self.ended[i] for i in range(self.counted))


def plan_prefills(shape: Shape, requests: Sequence[Request]) -> list[list[Request]]:
    """Returns the requests of each prefill, if all slots were free."""
    waiting, prefills = _longest_first(shape, requests), []
    while waiting:
        prefills.append([request for request, _ in _pack(shape, waiting, len(waiting))[1]])
    return prefills


def _longest_first(shape: Shape, requests: Iterable[Request]) -> deque[Request]:
    return deque(sorted(requests, key=shape.bucket, reverse=True))


def _pack(
    shape: Shape, waiting: deque[Request], limit: int
) -> tuple[Packing, list[tuple[Request, tuple[int, int]]]]:
    """Takes the next requests of one bucket for a prefill, up to a limit, with their packed indices."""
    bucket = shape.bucket(waiting[0])
    packing, packed, left_out = shape.packing(bucket), [], []
    # A shorter prompt may fit where another did not; the number of prompts tried is bounded.
    for _ in range(min(len(waiting), 2 * packing.packed.length.size)):
        if len(packed) == limit or shape.bucket(waiting[0]) != bucket:
            break
        request = waiting.popleft()
        # The last token of the prompt is fed by every sample as its first step.
        if packed_index := packing.add(request.prompt[:-1]):
            packed.append((request, packed_index))
        else:
            left_out.append(request)
    waiting.extendleft(reversed(left_out))
    return packing, packed


class Scheduler:
    """Serves the requests of a call with caches on the devices, and slots and samples on the host."""

    def __init__(
        self,
        model: Llama,
        mesh: jax.sharding.Mesh,
        shape: Shape,
        params: SamplingParams,
        usage: Usage,
        suffix: ForcedSuffix | None,
        stop_request_when: Callable[[str, tuple[Completion, ...]], bool] | None,
        on_tokens: Callable[[int], None] | None,
    ):
        self._model, self._mesh, self._shape, self._params = model, mesh, shape, params
        self._usage, self._forced_suffix, self._on_tokens = usage, suffix, on_tokens
        self._stop_request_when = stop_request_when
        # The requests of each slot in the order in which they were prefilled.
        self._slots: list[list[_ActiveRequest]] = [[] for _ in range(shape.slots)]
        lanes = (shape.slots, shape.samples_per_slot)
        self._state = SamplingState(
            token=np.zeros(lanes, np.int32),
            position=np.zeros(lanes, np.int32),
            budget=np.zeros(lanes, np.int32),
            forced=np.full(lanes, NOT_FORCED, np.int32),
            status=np.full(lanes, STOPPED, np.int32),
            keys=np.zeros((*lanes, 2), np.uint32),
            suffix_length=np.zeros(lanes, np.int32),
            prompt_index=np.zeros(lanes, np.int32),
        )

    def run(self, requests: list[Request]) -> Iterator[Group]:
        """Yields a group for each request as soon as it has ended."""
        shape = self._shape
        waiting = _longest_first(shape, requests)
        suffix: tuple[SuffixSegment, ...] = ()
        with jax.set_mesh(self._mesh):
            prefix = empty_prefix(self._model, shape.slots, shape.prompts_per_slot, shape.pages)
        while waiting or any(self._slots):
            with jax.set_mesh(self._mesh):
                while waiting and (packing := self._next_prefill(waiting)):
                    prefix = self._prefill(prefix, packing)
                self._start_samples()
                suffix, tokens = self._decode(prefix, self._grow(suffix))
            yield from self._poll()
            if self._on_tokens and tokens:
                self._on_tokens(tokens)

    def _active(self) -> list[_ActiveRequest]:
        return [active for slot in self._slots for active in slot]

    def _put(self, array: np.ndarray) -> jax.Array:
        spec = self._model.rules.spec("batch", *[None] * (array.ndim - 1))
        return put_on_mesh(array, self._mesh, spec)

    def _next_prefill(self, waiting: deque[Request]) -> Packing | None:
        """Takes the next requests to prefill and assigns slots to them; None if no slot has a free lane.

        A prefill takes as many requests as it has room for, even if only one lane is free.
        """
        shape = self._shape
        lanes = [shape.samples_per_slot - sum(len(a.lanes) + a.waiting for a in slot) for slot in self._slots]
        free = [
            sorted(set(range(shape.prompts_per_slot)) - {a.prompt_index for a in slot})
            for slot in self._slots
        ]
        if not any(count > 0 and indices for count, indices in zip(lanes, free, strict=True)):
            return None
        packing, packed = _pack(shape, waiting, sum(map(len, free)))
        for request, packed_index in packed:
            slot = max((slot for slot, indices in enumerate(free) if indices), key=lambda slot: lanes[slot])
            prompt_index = free[slot].pop(0)
            packing.assign(packed_index, slot, prompt_index)
            lanes[slot] -= request.n
            self._slots[slot].append(_ActiveRequest(request, slot, prompt_index, {}, {}))
        return packing

    def _prefill(self, prefix: Prefix, packing: Packing) -> Prefix:
        """Computes the keys and values of packed prompts; returns the prefix cache with them."""
        packed, usage = packing.packed, self._usage
        usage.prompts += int((np.asarray(packed.slots) < self._shape.slots).sum())
        usage.prompt_tokens += int(packed.length.sum())
        usage.prompt_positions += packed.tokens.size
        return prefill(self._model, prefix, jax.tree.map(self._put, packed))

    def _start_samples(self) -> None:
        """Starts samples of the requests of each slot in its free lanes."""
        for slot in self._slots:
            used = {lane for active in slot for lane in active.lanes}
            free = [lane for lane in range(self._shape.samples_per_slot) if lane not in used]
            for active in slot:
                for _ in range(min(len(free), active.waiting)):
                    self._start_sample(active, free.pop(0))

    def _start_sample(self, active: _ActiveRequest, lane: int) -> None:
        state, at, request = self._state, (active.slot, lane), active.request
        # Without a budget the sample is the forced suffix alone.
        forced = request.max_new_tokens == 0
        active.lanes[lane] = _Sample(active.started, [], [], forced)
        state.token[at] = request.prompt[-1]
        state.position[at] = len(request.prompt) - 1
        state.budget[at] = request.max_new_tokens
        state.forced[at], state.status[at] = 0 if forced else NOT_FORCED, RUNNING
        state.suffix_length[at] = 0
        state.keys[at] = request.keys[active.started]
        state.prompt_index[at] = active.prompt_index
        active.started += 1

    def _grow(self, suffix: tuple[SuffixSegment, ...]) -> tuple[SuffixSegment, ...]:
        """Adds segments when a sample may need more: few programs, no memory reserved in advance."""
        shape, running = self._shape, self._state.status == RUNNING
        longest = int(self._state.suffix_length[running].max())
        needed = min(longest + shape.decode_steps_per_sync, sum(shape.segments))
        while sum(shape.segments[: len(suffix)]) < needed:
            positions = shape.segments[len(suffix)]
            suffix = (*suffix, empty_segment(self._model, shape.slots, shape.samples_per_slot, positions))
        return suffix

    def _decode(
        self, prefix: Prefix, suffix: tuple[SuffixSegment, ...]
    ) -> tuple[tuple[SuffixSegment, ...], int]:
        """Runs the steps up to the next synchronization; returns the suffix and the number of new tokens."""
        suffix, state, generated = decode(
            self._model,
            prefix.upto(max(self._shape.bucket(active.request) for active in self._active())),
            suffix,
            jax.tree.map(self._put, self._state),
            self._params,
            self._shape.decode_steps_per_sync,
        )
        state, generated = jax.device_get((state, generated))
        self._state = jax.tree.map(np.array, state)
        for active in self._active():
            for lane, sample in active.lanes.items():
                at = active.slot, lane
                row, ran = generated.tokens[at], generated.running[at]
                sample.tokens += row[row >= 0].tolist()
                if generated.logprobs is not None:
                    sample.logprobs.append(generated.logprobs[at][:ran].copy())
        self._usage.steps += int(generated.steps)
        self._usage.slot_steps += int(generated.steps) * generated.running.size
        self._usage.used_steps += int(generated.running.sum())
        return suffix, int((generated.tokens >= 0).sum())

    def _poll(self) -> Iterator[Group]:
        """Yields the groups of the requests that have ended."""
        for active in self._active():
            error = None
            try:
                ended = self._update(active)
            except Exception as failure:  # of a callback of the caller: it ends this request alone
                ended, error = True, failure
            if ended:
                yield self._finish(active, error)

    def _update(self, active: _ActiveRequest) -> bool:
        """Moves ended samples of a request out of their lanes; returns True if the request has ended."""
        for lane, sample in list(active.lanes.items()):
            status = self._state.status[active.slot, lane]
            if status == RUNNING:
                continue
            suffix = self._forced_suffix
            if status != CHOSEN and suffix and suffix.should_force(tuple(sample.tokens)):
                self._start_suffix((active.slot, lane), sample, suffix)
                continue
            finish = "length" if status == EXHAUSTED else "stop"
            active.ended[sample.number] = sample.completion(finish, len(self._params.choices))
            del active.lanes[lane]
        while active.counted in active.ended:
            active.counted += 1
            stop = self._stop_request_when
            if stop and stop(active.request.id, active.completions()):
                return True
        return active.counted == active.request.n

    def _start_suffix(self, at: tuple[int, int], sample: _Sample, suffix: ForcedSuffix) -> None:
        state = self._state
        stopped = state.status[at] == STOPPED
        sample.forced = True
        state.status[at], state.forced[at] = RUNNING, 0
        if stopped:
            # The last token was fed already and the stop id drawn after it. The first id of the suffix stands
            # in its place, and the log-probabilities recorded there are those of this position.
            sample.tokens.append(suffix.prefix_ids[0])
            state.token[at] = suffix.prefix_ids[0]
            state.forced[at] = 1

    def _finish(self, active: _ActiveRequest, error: Exception | None) -> Group:
        """Frees the lanes and the prompt of a request; returns its group."""
        completions, usage = active.completions(), self._usage
        delivered = sum(len(completion.tokens) for completion in completions)
        generated = sum(len(completion.tokens) for completion in active.ended.values())
        generated += sum(len(sample.tokens) for sample in active.lanes.values())
        usage.samples += len(completions)
        usage.tokens += delivered
        usage.skipped_samples += active.request.n - len(completions)
        usage.wasted_tokens += generated - delivered
        self._state.status[active.slot, list(active.lanes)] = STOPPED
        self._slots[active.slot].remove(active)
        return Group(active.request.id, completions, error)
