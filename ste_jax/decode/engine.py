"""The local decoding engine: refuses requests that it cannot serve and runs the scheduler on the others.

The shapes of the compiled programs follow from all requests of a call, finished ones included, and every
sample runs through the same arithmetic whenever and in whichever lane it runs. Its tokens and
log-probabilities are a function of its key and its prompt, bit for bit, for calls with programs of the same
shapes. Programs of other shapes, such as those of a call with fewer requests, round differently.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ste_jax.decode.protocol import Completion, ForcedSuffix, Group, Request, Sampling
from ste_jax.decode.schedule import Scheduler, Usage
from ste_jax.decode.settings import DecodeSettings
from ste_jax.decode.shape import Shape, decode_shape
from ste_jax.decode.steps import SamplingParams
from ste_jax.distributed.process import ReplicaGroup
from ste_jax.errors import SteError
from ste_jax.models.llama import Llama
from ste_jax.sharding import put_on_mesh


class Engine:
    """Decoding engine on the devices of a mesh; implements `protocol.Backend`.

    Attributes:
      replica_group: Processes that share this engine.
      usage: Counts of the work since the engine was made.
    """

    def __init__(
        self, model: Llama, mesh: jax.sharding.Mesh, settings: DecodeSettings, stop_ids: Collection[int]
    ):
        """Builds an engine.

        Args:
          model: Model sharded over `mesh` by decoding rules.
          mesh: The `decode_mesh` of this process.
          settings: Sizes of the engines of all replica groups together.
          stop_ids: Ids that end a sample.
        """
        self.replica_group = ReplicaGroup(mesh)
        self.usage = Usage()
        self._model = model
        self._mesh = mesh
        self._settings = settings.share(self.replica_group.num_groups)
        self._stop_ids = sorted(stop_ids)
        self._batch_shards = int(np.prod([mesh.shape[axis] for axis in ("data", "fsdp")]))
        self._limits = settings.limits(model.cfg.context_length)

    def refusal(self, prompt_length: int, max_new_tokens: int) -> str | None:
        """Returns why a request of this size cannot be served, or None."""
        return self._limits.refusal(prompt_length, max_new_tokens)

    def shape(self, requests: Sequence[Request], suffix: ForcedSuffix | None = None) -> Shape:
        """Returns the sizes of the programs that serve these requests, none of which may be refused."""
        return decode_shape(
            self._settings,
            self._limits.buckets,
            longest=max(len(request.prompt) - 1 for request in requests),
            requests=len(requests),
            samples=max(request.n for request in requests),
            new_tokens=max(request.max_new_tokens for request in requests),
            suffix_tokens=suffix.num_tokens if suffix else 0,
            multiple=self._batch_shards,
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
        """Yields a group for every request that is not in `done`; see `protocol.Backend`."""
        accepted, done = [], set(done)
        for request in requests:
            if reason := self._refusal(request, suffix):
                error = SteError("request_refused", f"request {request.id}: {reason}")
                yield Group(request.id, (), error)
            else:
                accepted.append(request)
        if waiting := [request for request in accepted if request.id not in done]:
            shape, params = self.shape(accepted, suffix), self._params(sampling, suffix, choices)
            callbacks = suffix, stop_request_when, on_tokens
            yield from Scheduler(self._model, self._mesh, shape, params, self.usage, *callbacks).run(waiting)

    def _refusal(self, request: Request, suffix: ForcedSuffix | None) -> str | None:
        if request.n < 1:
            return "n must be 1 or more"
        if request.max_new_tokens < (0 if suffix else 1):
            return "max_new_tokens must be 1 or more, or 0 with a forced suffix"
        new_tokens = request.max_new_tokens + (suffix.num_tokens if suffix else 0)
        return self.refusal(len(request.prompt), new_tokens)

    def _params(
        self, sampling: Sampling, suffix: ForcedSuffix | None, choices: tuple[int, ...]
    ) -> SamplingParams:
        vocab_size = self._model.cfg.vocab_size
        if not all(0 <= id_ < vocab_size for id_ in choices):
            raise ValueError(f"choices {choices} are not ids of a vocabulary of {vocab_size}")
        is_allowed = np.zeros(vocab_size, bool)
        is_allowed[list(suffix.allowed_ids if suffix else ())] = True

        def put(value: Any, dtype: type, *axes: str) -> jax.Array:
            # The mesh is named here, since the mesh of training may be the current one.
            return put_on_mesh(np.asarray(value, dtype), self._mesh, self._model.rules.spec(*axes))

        return SamplingParams(
            temperature=put(sampling.temperature, np.float32),
            top_p=put(sampling.top_p, np.float32),
            stop_ids=put(self._stop_ids, np.int32),
            prefix_ids=put(suffix.prefix_ids if suffix else (), np.int32),
            is_allowed=put(is_allowed, bool, "vocab"),
            choices=put(choices, np.int32),
        )
