"""Requests in, records out: runs requests on the engine and stores what they yield."""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ste_jax.decode.protocol import Backend, Completion, ForcedSuffix, Group, Request, Sampling
from ste_jax.distributed import monitor, preemption
from ste_jax.progress import Progress
from ste_jax.storage.sink import Sink

_log = logging.getLogger(__name__)


def run_requests(
    backend: Backend,
    requests: Sequence[Request],
    sampling: Sampling,
    sink: Sink,
    to_records: Callable[[Group], Sequence[Any]],
    *,
    label: str,
    only: Collection[str] | None = None,
    show_progress: bool = True,
    suffix: ForcedSuffix | None = None,
    stop_request_when: Callable[[str, tuple[Completion, ...]], bool] | None = None,
) -> None:
    """Runs the requests that are not in the sink yet, and adds the records of each as soon as it is done.

    On several processes each runs its own share.

    Args:
      backend: the engine.
      requests: all requests, finished ones included: compiled shapes follow from all of them.
      sampling: temperature and nucleus.
      sink: receives the records.
      to_records: returns the records of the completions of one request.
      label: name of the progress bar.
      only: ids of the requests to run; None runs all.
      show_progress: print a progress bar.
      suffix: tokens forced onto samples without an answer, see the engine.
      stop_request_when: ends a request early, see the engine.

    Raises:
      Exception: the error of the first request that failed, after all others were run.
      StopRequested: finished requests are durable, those in flight are run again by the next start.
    """
    owned = {
        request.id: len(request.prompt)
        for request in requests
        if backend.replica_group.is_assigned(request.id)
    }
    done = {request_id for request_id in owned if sink.is_done(request_id)}
    waiting = owned.keys() - done
    waiting = waiting if only is None else waiting & set(only)
    sink.work.total, sink.work.done = len(owned), len(done)
    total = len(owned) if only is None else len(waiting)
    begin, made = time.monotonic(), 0
    with Progress(label, total, total - len(waiting), disable=not show_progress) as progress:

        def on_tokens(generated: int) -> None:
            progress.advance(tokens=generated)
            if monitor.stop_requested_anywhere(backend.replica_group.mesh):
                raise preemption.StopRequested

        groups = backend.generate(
            requests,
            sampling,
            done={request.id for request in requests} - waiting,
            suffix=suffix,
            stop_request_when=stop_request_when,
            on_tokens=on_tokens,
        )
        failure = None
        try:
            for group in groups:
                if group.error is not None:
                    failure = failure or group.error
                    continue
                if not backend.replica_group.is_leader:
                    continue
                generated = sum(len(completion.tokens) for completion in group.completions)
                made += generated
                sink.add(
                    group.id,
                    to_records(group),
                    prompt_tokens=owned[group.id],
                    generated_tokens=generated,
                )
                progress.advance(records=1)
        finally:
            sink.flush()
    seconds = max(time.monotonic() - begin, 1e-9)
    speed = made / seconds
    _log.info("%s: %d requests, %d tokens in %.1f s, %.0f/s", label, len(waiting), made, seconds, speed)
    if failure is not None:
        raise failure
