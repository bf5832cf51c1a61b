"""Interface of decoding backends: `generate(requests)` yields groups.

A request is a prompt with the keys of its samples. A group holds all samples of one request and is yielded
when the last of them has ended. Groups are yielded in any order.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Literal, Protocol

import numpy as np

from ste_jax.config_field import INHERITED, config_field
from ste_jax.distributed.process import ReplicaGroup
from ste_jax.errors import SteError


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Sampling settings of a call.

    Attributes:
      temperature: Divisor of the logits, applied before top-p; 0 is greedy decoding.
      top_p: Probability of the nucleus that tokens are drawn from, in (0, 1].
    """

    temperature: float = config_field(0.7, affects=INHERITED)
    top_p: float = config_field(0.9, affects=INHERITED)

    def __post_init__(self):
        if not self.temperature >= 0.0:
            raise SteError(
                "config_invalid", f"sampling: temperature must be 0 or more, not {self.temperature}"
            )
        if not 0.0 < self.top_p <= 1.0:
            raise SteError(
                "config_invalid", f"sampling: top_p must be above 0 and at most 1, not {self.top_p}"
            )


GREEDY = Sampling(temperature=0.0, top_p=1.0)


@dataclasses.dataclass(frozen=True)
class ForcedSuffix:
    """Tokens appended to a sample that ended without an answer.

    Attributes:
      prefix_ids: Ids appended first, at least one.
      allowed_ids: Ids of which the model then draws one, the last token of the sample.
      should_force: Returns True if a sample with these tokens gets the suffix.
    """

    prefix_ids: tuple[int, ...]
    allowed_ids: tuple[int, ...]
    should_force: Callable[[tuple[int, ...]], bool]

    @property
    def num_tokens(self) -> int:
        """The number of tokens of the suffix."""
        return len(self.prefix_ids) + 1


@dataclasses.dataclass(frozen=True)
class Request:
    """A prompt and the keys of its samples.

    Attributes:
      id: Unique id.
      prompt: Token ids, at least one.
      keys: Raw threefry keys of the n samples, uint32 [n, 2].
      max_new_tokens: Largest number of tokens of a sample, a forced suffix not counted.
    """

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
    """A generated sample.

    Attributes:
      sample: Number of the sample in its request.
      tokens: Generated ids without the stop id, those of a forced suffix included.
      finish: "stop" after a stop id or a forced suffix, "length" where the budget ran out.
      forced: True if the forced suffix was appended.
      choice_logprobs: float32 [len(tokens), C], log-probabilities of the C ids in `choices` at the position
        of every token, under the full softmax of the model's logits before temperature, top-p and the mask of
        a forced suffix; None without `choices`. Two completions compare equal whatever stands here.
    """

    sample: int
    tokens: tuple[int, ...]
    finish: Literal["stop", "length"]
    forced: bool = False
    choice_logprobs: np.ndarray | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True)
class Group:
    """The samples of a request.

    Attributes:
      id: Id of the request.
      completions: Samples 0, 1, ...; fewer than `Request.n` if `stop_request_when` ended the request or if it
        failed.
      error: The exception of a request that failed.
    """

    id: str
    completions: tuple[Completion, ...]
    error: Exception | None = None


class RequestLimits(Protocol):
    """An object that knows which requests can be served; it need not have a model."""

    def refusal(self, prompt_length: int, max_new_tokens: int) -> str | None:
        """Returns why a request of this size cannot be served, or None."""
        ...


class Backend(RequestLimits, Protocol):
    """A local engine or a remote server that samples from a model.

    Attributes:
      replica_group: Processes that share this backend; a stage gives it the requests assigned to them.
    """

    replica_group: ReplicaGroup

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
        """Yields a group for every request that is not in `done`.

        A request that cannot be served, or for which `stop_request_when` or `suffix.should_force` raises,
        gives a group with an error; the other requests go on.

        Args:
          requests: All requests, those in `done` included: the shapes of compiled programs follow from all of
            them, so that a restart computes the same bits.
          sampling: Temperature and top-p.
          done: Ids of requests that an earlier start has finished.
          suffix: Tokens forced onto samples that end without an answer.
          choices: Ids whose log-probabilities are recorded in `Completion.choice_logprobs`.
          stop_request_when: Called with (request id, the first m samples) as soon as they have ended, for
            m = 1, 2, ...; True ends the request with these m samples, whatever others are in flight.
          on_tokens: Called with the number of new tokens after every synchronization; an exception ends the
            call.
        """
        ...
