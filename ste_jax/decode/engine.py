"""The local decoding engine: groups in slots, refilled as they end (continuous batching).

Requests are served bucket by bucket of prompt length. Inside a bucket every shape is fixed, and a group
meets the same
arithmetic wherever and whenever it runs: its tokens depend on its own keys and prompt alone, bit for bit.
"""

import dataclasses
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ste_jax.decode.cache import Prefix, empty_chunk, empty_prefix
from ste_jax.decode.protocol import Completion, Group, Request, Sampling, Tail
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

_FIRST_CHUNKS = 2
Enough = Callable[[str, tuple[Completion, ...]], bool]


@dataclasses.dataclass(frozen=True)
class DecodeSettings:
    """Sizes of the engine.

    Attributes:
      sequences: samples in flight; a group of n samples takes n of them.
      prefix_tokens: prompt positions in flight, all groups together: bounds the memory of the prefix cache.
      prefill_tokens: prompt positions read by one prefill.
      buckets: prompt lengths that programs are compiled for; a prompt goes to the smallest that holds it.
      columns: steps between two looks of the host, and the columns of a suffix chunk.
      wave: at most so many samples of one prompt at a time; the others follow in further waves.
      dtype: of the weights, activations and caches.
      unroll: layers unrolled in the compiled program: faster on CPU, slower to compile.
    """

    sequences: int = 64
    prefix_tokens: int = 16384
    prefill_tokens: int = 2048
    buckets: tuple[int, ...] = (128, 256, 512, 1024)
    columns: int = 32
    wave: int = 16
    dtype: str = "float32"
    unroll: bool = False

    def __post_init__(self):
        for name in ("sequences", "prefix_tokens", "prefill_tokens", "columns", "wave"):
            if getattr(self, name) < 1:
                raise ValueError(f"decode.{name} must be 1 or more, not {getattr(self, name)}")
        if not self.buckets or list(self.buckets) != sorted(set(self.buckets)) or self.buckets[0] < 1:
            raise ValueError(f"decode.buckets must be rising positive lengths, not {self.buckets}")
        if self.wave > self.sequences:
            raise ValueError(f"decode.wave ({self.wave}) is larger than decode.sequences ({self.sequences})")


@dataclasses.dataclass
class _Slot:
    """A request in flight: which samples its current wave holds and what they have made."""

    request: Request
    first: int
    tokens: list[list[int]]
    forced: list[bool]
    done: list[Completion | None]
    finished: list[Completion]


class Engine:
    """Samples from a model that lies on this process's mesh (see `protocol.Backend`)."""

    def __init__(
        self, model: Llama, mesh: jax.sharding.Mesh, settings: DecodeSettings, stop_ids: Collection[int]
    ):
        """Takes a model sharded by decoding rules over `mesh`; `stop_ids` end a sample."""
        self._model = model
        self._mesh = mesh
        self._settings = settings
        self._stop_ids = sorted(stop_ids)
        self._shards = int(np.prod([mesh.shape[a] for a in ("data", "fsdp")]))
        limit = model.cfg.context_length
        self._buckets = [b for b in settings.buckets if b < limit] or [limit - 1]

    def refusal(self, prompt_length: int, max_new_tokens: int) -> str | None:
        """Returns why a request of this size cannot be served, or None."""
        context = self._model.cfg.context_length
        if prompt_length < 1:
            return "the prompt is empty"
        if prompt_length - 1 > self._buckets[-1]:
            return f"the prompt has {prompt_length} tokens, decode.buckets end at {self._buckets[-1]}"
        if prompt_length + max_new_tokens > context:
            return f"prompt and answer take {prompt_length} + {max_new_tokens} tokens, the context {context}"
        return None

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        *,
        done: Collection[str] = (),
        tail: Tail | None = None,
        enough: Enough | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> Iterator[Group]:
        """Yields a group for every request that is not `done`; see `protocol.Backend`.

        Raises:
          ValueError: a request that cannot be served, before any work is done.
        """
        room = len(tail.opening) + 1 if tail else 0
        for request in requests:
            if request.n < 1:
                raise ValueError(f"request {request.id}: n must be 1 or more")
            if why := self.refusal(len(request.prompt), request.max_new_tokens + room):
                raise ValueError(f"request {request.id}: {why}")
        wave = min(self._settings.wave, max((r.n for r in requests), default=1))
        for bucket in self._buckets:
            inside = [r for r in requests if self._bucket(r) == bucket]
            waiting = deque(r for r in inside if r.id not in set(done))
            if waiting:
                # The shape follows from all requests, done or not, so that a restart computes the same bits.
                run = _BucketRun(self, bucket, wave, len(inside), sampling, tail, enough, on_tokens)
                yield from run.serve(waiting)

    def _bucket(self, request: Request) -> int:
        return next(b for b in self._buckets if len(request.prompt) - 1 <= b)

    def slots(self, bucket: int, wave: int, requests: int) -> int:
        """Returns the number of groups in flight for prompts of `bucket` and `wave` samples each."""
        settings = self._settings
        most = min(settings.sequences // wave, max(1, settings.prefix_tokens // bucket), requests)
        return max(1, -(-most // self._shards)) * self._shards

    def prefill_rows(self, bucket: int, slots: int) -> int:
        """Returns the number of prompts that one prefill reads."""
        rows = min(max(1, self._settings.prefill_tokens // bucket), slots)
        return -(-rows // self._shards) * self._shards

    def place(self, array: np.ndarray) -> jax.Array:
        """Puts a host array with a leading group axis on the mesh."""
        spec = self._model.rules.spec("batch", *[None] * (array.ndim - 1))
        return jax.device_put(array, jax.NamedSharding(self._mesh, spec))


class _BucketRun:
    """Serves the requests of one bucket: caches on the devices, slots and samples on the host."""

    def __init__(self, engine, bucket, wave, requests, sampling, tail, enough, on_tokens):
        self._engine = engine
        self._model, self._settings = engine._model, engine._settings
        self._bucket, self._wave = bucket, wave
        self._tail, self._enough, self._on_tokens = tail, enough, on_tokens
        self._groups = engine.slots(bucket, wave, requests)
        self._rows = engine.prefill_rows(bucket, self._groups)
        self._slots: list[_Slot | None] = [None] * self._groups
        shape = (self._groups, wave)
        self._samples = Samples(
            token=np.zeros(shape, np.int32),
            position=np.zeros(shape, np.int32),
            budget=np.zeros(shape, np.int32),
            tail=np.full(shape, NO_TAIL, np.int32),
            status=np.full(shape, STOPPED, np.int32),
            keys=np.zeros((*shape, 2), np.uint32),
            used=np.zeros(shape[:1], np.int32),
        )
        vocab = self._model.cfg.vocab_size
        choices = tail.choices if tail else ()
        self._controls = Controls(
            temperature=jnp.float32(sampling.temperature),
            top_p=jnp.float32(sampling.top_p),
            is_stop=jnp.zeros(vocab, bool).at[np.array(engine._stop_ids, np.int32)].set(True),
            is_choice=jnp.zeros(vocab, bool).at[np.array(choices, np.int32)].set(True),
            opening=jnp.array(tail.opening if tail else (), jnp.int32),
        )

    def serve(self, waiting: deque[Request]) -> Iterator[Group]:
        """Runs until every waiting request has been yielded."""
        with jax.set_mesh(self._engine._mesh):
            prefix = empty_prefix(
                self._model.cfg, self._model.rules, self._settings.dtype, self._groups, self._bucket
            )
            chunks = ()
        while waiting or any(self._slots):
            with jax.set_mesh(self._engine._mesh):
                while waiting and self._should_refill(len(waiting)):
                    prefix = self._refill(prefix, waiting)
                chunks = self._grow(chunks)
                chunks = self._run_chunk(prefix, chunks)
            yield from self._collect()

    def _should_refill(self, waiting: int) -> bool:
        free = self._slots.count(None)
        return free >= min(self._rows, waiting) or (free > 0 and free == self._groups)

    def _refill(self, prefix: Prefix, waiting: deque[Request]) -> Prefix:
        free = [i for i, slot in enumerate(self._slots) if slot is None][: self._rows]
        tokens = np.zeros((self._rows, self._bucket), np.int32)
        length = np.zeros(self._rows, np.int32)
        source = np.full(self._groups, -1, np.int32)
        for row, index in enumerate(free[: len(waiting)]):
            request = waiting.popleft()
            # The last token of the prompt is fed by every sample as its first step.
            length[row] = len(request.prompt) - 1
            tokens[row, : length[row]] = request.prompt[:-1]
            source[index] = row
            self._slots[index] = slot = _Slot(request, 0, [], [], [], [])
            self._start_wave(index, slot)
        place = self._engine.place
        return prefill(
            self._model, prefix, place(tokens), place(length), place(source), unroll=self._settings.unroll
        )

    def _start_wave(self, index: int, slot: _Slot) -> None:
        samples = self._samples
        slot.first = len(slot.finished)
        n = min(self._wave, slot.request.n - slot.first)
        slot.tokens, slot.forced, slot.done = [[] for _ in range(n)], [False] * n, [None] * n
        samples.token[index, :n] = slot.request.prompt[-1]
        samples.position[index, :n] = len(slot.request.prompt) - 1
        samples.budget[index, :n] = slot.request.max_new_tokens
        samples.tail[index] = NO_TAIL
        samples.status[index] = STOPPED
        samples.status[index, :n] = RUNNING
        samples.keys[index, :n] = slot.request.keys[slot.first : slot.first + n]
        samples.used[index] = 0

    def _grow(self, chunks: tuple) -> tuple:
        """Doubles the number of chunks when a group needs more: few shapes to compile, no memory held in
        advance.
        """
        needed = 1 + max(int(self._samples.used[i]) for i, slot in enumerate(self._slots) if slot)
        size = _FIRST_CHUNKS
        while size < needed:
            size *= 2
        sizes = (self._settings.dtype, self._groups, self._wave, self._settings.columns)
        model = self._model
        new = [empty_chunk(model.cfg, model.rules, *sizes) for _ in range(size - len(chunks))]
        return (*chunks, *new)

    def _run_chunk(self, prefix: Prefix, chunks: tuple) -> tuple:
        samples = jax.tree.map(self._engine.place, self._samples)
        chunks, samples, made, _ = decode_chunk(
            self._model,
            prefix,
            chunks,
            samples,
            self._controls,
            columns=self._settings.columns,
            unroll=self._settings.unroll,
        )
        samples, made = jax.device_get((samples, made))
        self._samples = jax.tree.map(np.array, samples)
        count = 0
        for slot, rows in zip(self._slots, made, strict=True):
            for tokens, row in zip(slot.tokens if slot else [], rows, strict=False):
                new = row[row >= 0].tolist()
                tokens.extend(new)
                count += len(new)
        if self._on_tokens and count:
            self._on_tokens(count)
        return chunks

    def _collect(self) -> Iterator[Group]:
        for index, slot in enumerate(self._slots):
            if slot is None:
                continue
            for i, done in enumerate(slot.done):
                if done is None and self._samples.status[index, i] != RUNNING:
                    slot.done[i] = self._finish(index, slot, i)
            if any(done is None for done in slot.done):
                continue
            slot.finished += [done for done in slot.done if done is not None]
            finished = tuple(slot.finished)
            ended = self._enough is not None and self._enough(slot.request.id, finished)
            if ended or len(finished) == slot.request.n:
                self._slots[index] = None
                yield Group(slot.request.id, finished)
            else:
                self._start_wave(index, slot)

    def _finish(self, index: int, slot: _Slot, i: int) -> Completion | None:
        """Returns the completion of an ended sample, or None after starting the tail that it needs."""
        samples = self._samples
        status = samples.status[index, i]
        tokens = tuple(slot.tokens[i])
        if status != CHOSEN and self._tail and self._tail.needed(tokens):
            slot.forced[i] = True
            samples.status[index, i] = RUNNING
            samples.tail[index, i] = 0
            if status == STOPPED:
                # Its last token was fed already (its successor was the stop id): go on with the opening
                # itself.
                slot.tokens[i].append(self._tail.opening[0])
                samples.token[index, i] = self._tail.opening[0]
                samples.tail[index, i] = 1
            return None
        finish = "length" if status == EXHAUSTED else "stop"
        return Completion(slot.first + i, tokens, finish, slot.forced[i])
