"""The one path from comparisons to judgments: prompts, engine and parser, in bounded memory.

Annotation, validation, evaluation, `ste judge` and the public `Judge` are callers. Comparisons are taken in
chunks; of each chunk only what this process's replica group is assigned is tokenized, and requests go to the
engine in rounds of similar prompt length, because the engine sizes its programs by the longest prompt of a
call. Chunks and rounds depend on the comparisons alone, not on what an earlier start finished, so a restart
computes the same bits.
"""

import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from ste_jax.decode.protocol import Backend, Completion, Group, Request, Sampling
from ste_jax.distributed import monitor
from ste_jax.distributed.preemption import StopRequested
from ste_jax.errors import SteError
from ste_jax.judging.protocol import JudgingProtocol
from ste_jax.progress import Progress
from ste_jax.randomness import sample_keys
from ste_jax.records import ORDERS, Comparison, Judgment, Order
from ste_jax.storage.sink import Sink

_log = logging.getLogger(__name__)

CHUNK = 4096
# Longest prompts of the rounds: longer prompts would leave the shorter ones few slots.
_ROUND_ENDS = (512, 2048, 8192)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """Settings of the judgments of a stream of comparisons.

    Attributes:
      stage: name that the random draws belong to.
      samples: judgments of each comparison and order, at most.
      sampling: temperature and top-p.
      orders: the orders to judge.
      stop_when_correct: ends a request as soon as it has this many correct judgments; 0 draws all samples.
      key_of: name of a comparison and order that its random draws belong to; the default is its request id.
        Requests of a chunk with the same name have the same prompt, and are judged once.
    """

    stage: str
    samples: int
    sampling: Sampling
    orders: tuple[Order, ...] = ORDERS
    stop_when_correct: int = 0
    key_of: Callable[[Comparison, Order], str] | None = None


@dataclasses.dataclass(frozen=True)
class Judged:
    """The judgments of a comparison in one order.

    Attributes:
      comparison: the comparison.
      order: the order.
      judgments: one judgment of each sample.
      prompt_tokens: tokens of the prompt.
      skipped: "too_long" if the comparison does not fit the model in one of its orders.
      error: the exception that the request failed with, or that its texts cannot be encoded with.
    """

    comparison: Comparison
    order: Order
    judgments: tuple[Judgment, ...] = ()
    prompt_tokens: int = 0
    skipped: Literal["too_long"] | None = None
    error: Exception | None = None

    @property
    def request_id(self) -> str:
        """The id that the judgments are stored under."""
        return request_id(self.comparison, self.order)

    @property
    def completion_tokens(self) -> int:
        """Tokens of all completions."""
        return sum(len(judgment.tokens) for judgment in self.judgments)


def request_id(comparison: Comparison, order: Order) -> str:
    """Returns the id of the request for a comparison in one order."""
    return f"{comparison.id}/{order}"


def judge_stream(
    protocol: JudgingProtocol,
    backend: Backend,
    comparisons: Iterable[Comparison],
    settings: StreamSettings,
    *,
    is_done: Callable[[str], bool] = lambda _: False,
    on_tokens: Callable[[int], None] | None = None,
) -> Iterator[Judged]:
    """Yields the judgments of every comparison and order as they end, of this process's replica group only.

    Args:
      protocol: prompt and parser.
      backend: engine.
      comparisons: the comparisons to judge.
      settings: samples, sampling and orders.
      is_done: returns True for the ids of requests that were finished before.
      on_tokens: called with the number of new tokens as they are made; an exception ends the stream.
    """
    for chunk in _chunks(comparisons, CHUNK):
        # The comparisons and orders that a request stands for, by its id and by the name of its draws.
        by_request: dict[str, list[tuple[Comparison, Order]]] = {}
        by_name: dict[str, list[tuple[Comparison, Order]]] = {}
        requests = []
        for comparison in chunk:
            # Both orders of a comparison go to one group: their prompts share a prefix.
            if not backend.replica_group.is_assigned(comparison.id):
                continue
            try:
                prompts = protocol.prompts(comparison, backend, settings.orders)
            except SteError as error:
                yield from (Judged(comparison, order, error=error) for order in settings.orders)
                continue
            if prompts is None:
                yield from (Judged(comparison, order, skipped="too_long") for order in settings.orders)
                continue
            # By content, so that exchanging the responses gives the engine the same batch.
            for order in sorted(prompts, key=prompts.__getitem__):
                name = (
                    settings.key_of(comparison, order) if settings.key_of else request_id(comparison, order)
                )
                if name in by_name:
                    by_name[name].append((comparison, order))
                    continue
                requests.append(_request(protocol, comparison, order, name, prompts[order], settings))
                by_name[name] = by_request[requests[-1].id] = [(comparison, order)]
        for part in _rounds(requests):
            done = {
                request.id
                for request in part
                if all(is_done(request_id(*judged)) for judged in by_request[request.id])
            }
            lengths = {request.id: len(request.prompt) for request in part}
            groups = backend.generate(
                part,
                settings.sampling,
                done=done,
                suffix=protocol.suffix,
                choices=protocol.choices,
                stop_request_when=_stop_rule(protocol, by_request, settings.stop_when_correct),
                on_tokens=on_tokens,
            )
            for group in groups:
                for judged in by_request[group.id]:
                    yield _judged(protocol, *judged, group, lengths[group.id])
    protocol.log_imitations()


def _request(
    protocol: JudgingProtocol,
    comparison: Comparison,
    order: Order,
    name: str,
    prompt: tuple[int, ...],
    settings: StreamSettings,
) -> Request:
    keys = sample_keys(protocol.settings.seed, settings.stage, name, settings.samples)
    return Request(request_id(comparison, order), prompt, keys, protocol.settings.max_new_tokens)


def _judged(
    protocol: JudgingProtocol, comparison: Comparison, order: Order, group: Group, prompt_tokens: int
) -> Judged:
    if group.error is not None:
        return Judged(comparison, order, prompt_tokens=prompt_tokens, error=group.error)
    judgments = tuple(protocol.judgment(comparison, order, c) for c in group.completions)
    return Judged(comparison, order, judgments, prompt_tokens)


def _stop_rule(
    protocol: JudgingProtocol, by_request: Mapping[str, Sequence[tuple[Comparison, Order]]], correct: int
) -> Callable[[str, tuple[Completion, ...]], bool] | None:
    """Returns the rule that ends a request with enough correct judgments, or None."""
    if not correct:
        return None

    def is_enough(id_: str, completions: tuple[Completion, ...]) -> bool:
        return sum(bool(protocol.judgment(*by_request[id_][0], c).correct) for c in completions) >= correct

    return is_enough


def _chunks(comparisons: Iterable[Comparison], size: int) -> Iterator[list[Comparison]]:
    iterator = iter(comparisons)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def _rounds(requests: Sequence[Request]) -> list[list[Request]]:
    """Returns the requests in rounds of similar prompt length, the short ones first."""
    rounds: list[list[Request]] = [[] for _ in range(len(_ROUND_ENDS) + 1)]
    for request in requests:
        rounds[sum(len(request.prompt) - 1 > end for end in _ROUND_ENDS)].append(request)
    return [part for part in rounds if part]


def judge_into(
    sink: Sink,
    protocol: JudgingProtocol,
    backend: Backend,
    comparisons: Sequence[Comparison],
    settings: StreamSettings,
    *,
    label: str,
) -> None:
    """Judges comparisons into a sink of judgments, with a progress line, and stops at a requested stop.

    Args:
      sink: receives the judgments of every request, none for a comparison that does not fit the model;
        requests that it has are not judged again.
      protocol, backend, comparisons, settings: see `judge_stream`.
      label: name of the progress line.

    Raises:
      Exception: the error of the first request that failed, after all others were judged.
      StopRequested: a stop was requested; finished requests are safe.
    """
    group = backend.replica_group
    owned = [comparison for comparison in comparisons if group.is_assigned(comparison.id)]
    ids = [request_id(comparison, order) for comparison in owned for order in settings.orders]
    done = sum(map(sink.is_done, ids))
    sink.work.total, sink.work.done = len(ids), done
    failure: Exception | None = None
    begin, requests, made = time.monotonic(), 0, 0
    with Progress(label, len(ids), done) as progress:

        def count(tokens: int) -> None:
            progress.advance(tokens=tokens)
            if monitor.stop_requested_anywhere(group.mesh):
                raise StopRequested

        stream = judge_stream(protocol, backend, comparisons, settings, is_done=sink.is_done, on_tokens=count)
        try:
            for item in stream:
                if item.error is not None:
                    failure = failure or item.error
                    continue
                if group.is_leader and not sink.is_done(item.request_id):
                    requests, made = requests + 1, made + item.completion_tokens
                    sink.add(
                        item.request_id,
                        item.judgments,
                        prompt_tokens=item.prompt_tokens,
                        generated_tokens=item.completion_tokens,
                    )
                    progress.advance(records=1)
        finally:
            sink.flush()
    seconds = max(time.monotonic() - begin, 1e-9)
    speed = made / seconds
    _log.info("%s: %d requests, %d tokens in %.1f s, %.0f/s", label, requests, made, seconds, speed)
    if failure is not None:
        raise failure


def not_judged(comparisons: Iterable[Comparison], judgments: Iterable[Judgment]) -> list[str]:
    """Returns the ids of the comparisons without judgments: they do not fit the model."""
    judged = {judgment.pair_id for judgment in judgments}
    return [comparison.id for comparison in comparisons if comparison.id not in judged]
