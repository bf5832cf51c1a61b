"""The local decoding engine: refuses what it cannot serve, sizes the programs, serves the rest.

The shapes of a call are fixed by all its requests, done or not, and a sample meets the same arithmetic
wherever and whenever it runs: its tokens depend on its own key and prompt alone, bit for bit.
"""

import bisect
import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Literal

import jax
import numpy as np

from ste_jax.config_field import INHERITED, config_field
from ste_jax.decode.protocol import Completion, ForcedSuffix, Group, Request, Sampling
from ste_jax.decode.schedule import Run, Shape, Usage
from ste_jax.decode.steps import Controls
from ste_jax.distributed.process import ReplicaGroup
from ste_jax.models.llama import Llama
from ste_jax.sharding import place


@dataclasses.dataclass(frozen=True)
class DecodeSettings:
    """Sizes of the engine; on many hosts of all their engines together.

    Attributes:
      sequences: samples in flight.
      prefix_tokens: prompt positions in flight, all slots together: bounds the memory of the prefix cache.
      prefill_tokens: prompt positions of one prefill, which takes as long however few prompts have a place.
        Where it has room for two as long as their bucket, prompts are packed (see `packing`).
      prompts: places of a slot for prompts: with 2, the samples of the next prompt take the columns that the
        last samples of one leave.
      buckets: prompt lengths that programs are compiled for; a prompt goes to the smallest that holds it.
      steps: between two looks of the host, which gives the columns of ended samples to others.
      columns: tokens of its own that every sample has room for; longer ones double it, again and again.
      wave: samples of one slot in flight; when one ends, the next of the prompt takes its column.
      dtype: of the weights, activations and caches.
    """

    sequences: int = config_field(64, affects=INHERITED)
    prefix_tokens: int = config_field(32768, affects=INHERITED)
    prefill_tokens: int = config_field(512, affects=INHERITED)
    prompts: int = config_field(2, affects=INHERITED)
    buckets: tuple[int, ...] = config_field((128, 256, 512, 1024), affects=INHERITED)
    steps: int = config_field(16, affects=INHERITED)
    columns: int = config_field(64, affects=INHERITED)
    wave: int = config_field(16, affects=INHERITED)
    dtype: Literal["float32", "bfloat16"] = config_field("float32", affects=INHERITED)

    def __post_init__(self):
        for name in ("sequences", "prefix_tokens", "prefill_tokens", "prompts", "steps", "columns", "wave"):
            if getattr(self, name) < 1:
                raise ValueError(f"decode.{name} must be 1 or more, not {getattr(self, name)}")
        if not self.buckets or list(self.buckets) != sorted(set(self.buckets)) or self.buckets[0] < 1:
            raise ValueError(f"decode.buckets must be rising positive lengths, not {self.buckets}")
        if self.wave > self.sequences:
            raise ValueError(f"decode.wave ({self.wave}) is larger than decode.sequences ({self.sequences})")

    def share(self, parts: int) -> "DecodeSettings":
        """Returns the sizes of one of `parts` engines that have these sizes together."""
        return dataclasses.replace(
            self,
            sequences=max(self.wave, self.sequences // parts),
            prefix_tokens=max(1, self.prefix_tokens // parts),
            prefill_tokens=max(1, self.prefill_tokens // parts),
        )

    def buckets_within(self, context_length: int) -> tuple[int, ...]:
        """Returns the buckets that a model of this context can use: at least one."""
        return tuple(b for b in self.buckets if b < context_length) or (context_length - 1,)

    def limits(self, context_length: int) -> "EngineLimits":
        """Returns what an engine over a model of this context can serve."""
        return EngineLimits(self.buckets_within(context_length), context_length)


def decode_shape(
    settings: DecodeSettings,
    buckets: tuple[int, ...],
    *,
    longest: int,
    requests: int,
    samples: int,
    new_tokens: int,
    room: int = 0,
    multiple: int = 1,
) -> Shape:
    """Returns the sizes of the programs that serve a call.

    Args:
      settings: bounds.
      buckets: to choose from.
      longest: positions of the longest prefix; the last bucket holds it.
      requests: their number.
      samples: the most of one request.
      new_tokens: the most of one sample.
      room: tokens of the forced suffix.
      multiple: of which the slots must be one, for the mesh to share them out.
    """
    buckets = buckets[: bisect.bisect_left(buckets, longest) + 1]
    wave = min(settings.wave, samples)
    prompts = min(settings.prompts, wave)
    slots = min(
        settings.sequences // wave, max(1, settings.prefix_tokens // (prompts * buckets[-1])), requests
    )
    return Shape(
        buckets=buckets,
        slots=-(-slots // multiple) * multiple,
        prompts=min(prompts, -(-requests // slots)),
        wave=wave,
        steps=settings.steps,
        segments=_segments(settings.columns, new_tokens + room),
        prefill_tokens=settings.prefill_tokens,
        multiple=multiple,
    )


def _segments(columns: int, tokens: int) -> tuple[int, ...]:
    """Returns segments for a number of tokens: one of `columns`, then each as long as all before it."""
    total = -(-tokens // columns) * columns
    sizes = [columns]
    while (filled := sum(sizes)) < total:
        sizes.append(min(filled, total - filled))
    return tuple(sizes)


def _room(suffix: ForcedSuffix | None) -> int:
    """Returns the number of tokens that a forced suffix takes."""
    return len(suffix.prefix_ids) + 1 if suffix else 0


@dataclasses.dataclass(frozen=True)
class EngineLimits:
    """What an engine can serve (see `protocol.Limits`): `buckets` for a model of `context_length`."""

    buckets: tuple[int, ...]
    context_length: int

    def refusal(self, prompt_length: int, max_new_tokens: int) -> str | None:
        """Returns why a request of this size cannot be served, or None."""
        if prompt_length < 1:
            return "the prompt is empty"
        if prompt_length - 1 > self.buckets[-1]:
            return f"the prompt has {prompt_length} tokens, decode.buckets end at {self.buckets[-1]}"
        if prompt_length + max_new_tokens > self.context_length:
            return (
                f"prompt and answer take {prompt_length} + {max_new_tokens} tokens, the context "
                f"{self.context_length}"
            )
        return None


class Engine:
    """Samples from a model that lies on this process's mesh (see `protocol.Backend`).

    Attributes:
      replica_group: see `protocol.Backend`.
      usage: what the engine has done so far.
    """

    def __init__(
        self, model: Llama, mesh: jax.sharding.Mesh, settings: DecodeSettings, stop_ids: Collection[int]
    ):
        """Takes a model sharded by decoding rules over `mesh`; `stop_ids` end a sample."""
        self.replica_group = ReplicaGroup(mesh)
        self.usage = Usage()
        self._model = model
        self._mesh = mesh
        self._settings = settings.share(self.replica_group.num_groups)
        self._stop_ids = sorted(stop_ids)
        self._shards = int(np.prod([mesh.shape[a] for a in ("data", "fsdp")]))
        self._limits = settings.limits(model.cfg.context_length)

    def refusal(self, prompt_length: int, max_new_tokens: int) -> str | None:
        """See `protocol.Limits`."""
        return self._limits.refusal(prompt_length, max_new_tokens)

    def shape(self, requests: Sequence[Request], suffix: ForcedSuffix | None = None) -> Shape:
        """Returns the sizes of the programs that serve requests which it does not refuse."""
        return decode_shape(
            self._settings,
            self._limits.buckets,
            longest=max(len(request.prompt) - 1 for request in requests),
            requests=len(requests),
            samples=max(request.n for request in requests),
            new_tokens=max(request.max_new_tokens for request in requests),
            room=_room(suffix),
            multiple=self._shards,
        )

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        *,
        done: Collection[str] = (),
        suffix: ForcedSuffix | None = None,
        choices: tuple[int, ...] = (),
        stop_request_when: Callable[[str, tuple[Completion, ...]], bool] | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> Iterator[Group]:
        """Yields a group for every request that is not `done`; see `protocol.Backend`."""
        able, done = [], set(done)
        for request in requests:
            if why := self._refusal(request, suffix):
                yield Group(request.id, (), ValueError(f"request {request.id}: {why}"))
            else:
                able.append(request)
        if waiting := [r for r in able if r.id not in done]:
            # Shapes follow from all requests, done or not, so that a restart computes the same bits.
            shape, controls = self.shape(able, suffix), self._controls(sampling, suffix, choices)
            callbacks = suffix, stop_request_when, on_tokens
            run = Run(self._model, self._mesh, shape, controls, self.usage, *callbacks)
            yield from run.serve(waiting)

    def _refusal(self, request: Request, suffix: ForcedSuffix | None) -> str | None:
        if request.n < 1:
            return "n must be 1 or more"
        if request.max_new_tokens < (0 if suffix else 1):
            return "max_new_tokens must be 1 or more, or 0 with a forced suffix"
        return self.refusal(len(request.prompt), request.max_new_tokens + _room(suffix))

    def _controls(
        self, sampling: Sampling, suffix: ForcedSuffix | None, choices: tuple[int, ...]
    ) -> Controls:
        vocab_size = self._model.cfg.vocab_size
        if not all(0 <= id_ < vocab_size for id_ in choices):
            raise ValueError(f"choices {choices} are not ids of a vocabulary of {vocab_size}")
        is_allowed = np.zeros(vocab_size, bool)
        is_allowed[list(suffix.allowed_ids if suffix else ())] = True

        def put(value: Any, dtype: type, *axes: str) -> jax.Array:
            # On the engine's mesh: that of training may be the one that is set.
            return place(np.asarray(value, dtype), self._mesh, self._model.rules.spec(*axes))

        return Controls(
            temperature=put(sampling.temperature, np.float32),
            top_p=put(sampling.top_p, np.float32),
            stop_ids=put(self._stop_ids, np.int32),
            prefix_ids=put(suffix.prefix_ids if suffix else (), np.int32),
            is_allowed=put(is_allowed, bool, "vocab"),
            choices=put(choices, np.int32),
        )
