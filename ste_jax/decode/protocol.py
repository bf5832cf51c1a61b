"""What a stage asks of a decoding backend, and what it gets back: `generate(requests) -> iterator of groups`.

A request is one prompt and the number of samples wanted of it; a group is all the samples of one request,
delivered together when the last of them has ended. Groups arrive in any order.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal, Protocol

import numpy as np

from ste_jax.distributed.process import ReplicaGroup


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Temperature (0: greedy) is applied before top-p."""

    temperature: float = 0.7
    top_p: float = 0.9

    def __post_init__(self):
        if not self.temperature >= 0.0:
            raise ValueError(f"sampling: temperature must be 0 or more, not {self.temperature}")
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"sampling: top_p must be above 0 and at most 1, not {self.top_p}")


GREEDY = Sampling(temperature=0.0, top_p=1.0)


@dataclasses.dataclass(frozen=True)
class Tail:
    """What is appended to a sample that ended while `needed(tokens)`: `opening`, then one of `choices`,
    drawn by the model.
    """

    opening: tuple[int, ...]
    choices: tuple[int, ...]
    needed: Callable[[tuple[int, ...]], bool]


@dataclasses.dataclass(frozen=True)
class Request:
    """`n` samples of `prompt`; sample i draws from the raw key `keys[i]` (uint32 [n, 2])."""

    id: str
    prompt: tuple[int, ...]
    keys: np.ndarray
    max_new_tokens: int

    @property
    def n(self) -> int:
        """The number of samples."""
        return len(self.keys)


@dataclasses.dataclass(frozen=True)
class Completion:
    """One sample: its ids without the stop id, why it ended, and whether the tail was appended."""

    sample: int
    tokens: tuple[int, ...]
    finish: Literal["stop", "length"]
    forced: bool = False


@dataclasses.dataclass(frozen=True)
class Group:
    """The samples of the request `id`, by sample number.

    They are fewer than asked where `enough` ended the request, or where it failed: `error` says why.
    """

    id: str
    completions: tuple[Completion, ...]
    error: Exception | None = None


class Limits(Protocol):
    """Whoever knows what can be served, be there a model yet or not."""

    def refusal(self, prompt_length: int, max_new_tokens: int) -> str | None:
        """Returns why a request of this size cannot be served, or None."""
        ...


class Backend(Limits, Protocol):
    """A local engine or a server that can sample.

    Attributes:
      replica_group: processes that share this backend; a stage gives it the requests assigned to them.
    """

    replica_group: ReplicaGroup

    def generate(
        self,
        requests: Sequence[Request],
        sampling: Sampling,
        *,
        done: Collection[str] = (),
        tail: Tail | None = None,
        enough: Callable[[str, tuple[Completion, ...]], bool] | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ) -> Iterator[Group]:
        """Yields a group for every request that is not `done`.

        A request that cannot be served, or on which `enough` or `tail.needed` fails, gives a group with an
        error; the others go on.

        Args:
          requests: all that the stage has, so that the shapes of a restart are those of the first start.
          sampling: temperature and top-p.
          done: ids of requests that were served before a restart.
          tail: see `Tail`.
          enough: asked with (request id, the first m samples) as soon as they have ended, for m = 1, 2, ...;
            True ends the request with these m, whatever others are in flight.
          on_tokens: told the number of new tokens, as they are made; what it raises ends the call.
        """
        ...
