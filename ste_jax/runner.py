"""Requests in, records on disk, a live progress line; what an earlier start finished is skipped."""

from collections.abc import Callable, Collection, Sequence

from ste_jax.decode.protocol import Backend, Completion, Group, Request, Sampling, Tail
from ste_jax.distributed import monitor, preemption
from ste_jax.progress import Progress
from ste_jax.records import Record
from ste_jax.storage.record_set import Journal


def serve(
    backend: Backend,
    requests: Sequence[Request],
    sampling: Sampling,
    records: Journal,
    make: Callable[[Group], Sequence[Record]],
    *,
    label: str,
    first: str = "",
    only: Collection[str] | None = None,
    tail: Tail | None = None,
    enough: Callable[[str, tuple[Completion, ...]], bool] | None = None,
) -> None:
    """Serves the requests that have no records yet; all records of a request are stored together.

    Of many hosts each serves its own share. A request is done if there is a record with its id and `first`
    appended. With `only`, all others wait for another call; they belong to `requests` all the same, because
    shapes follow from all of them.

    Raises:
      Exception: the error of the first request that failed, after all others were served.
      StopRequested: it was asked to stop; finished requests are on disk, those in flight are served anew.
    """
    mine = {request.id for request in requests if backend.replica_group.is_assigned(request.id)}
    done = {id_ for id_ in mine if id_ + first in records.found}
    waiting = mine - done
    waiting = waiting if only is None else waiting.intersection(only)
    lengths = {r.id: len(r.prompt) for r in requests}
    records.work.total, records.work.done = len(mine), len(done)
    total = len(mine) if only is None else len(waiting)
    with Progress(label, total, total - len(waiting)) as progress:

        def count(made: int) -> None:
            progress.advance(tokens=made)
            if monitor.stop_requested_anywhere(backend.replica_group.mesh):
                raise preemption.StopRequested

        groups = backend.generate(
            requests,
            sampling,
            done={request.id for request in requests} - waiting,
            tail=tail,
            enough=enough,
            on_tokens=count,
        )
        failure = None
        try:
            for group in groups:
                if group.error is not None:
                    failure = failure or group.error
                    continue
                if not backend.replica_group.is_leader:
                    continue
                made = sum(len(completion.tokens) for completion in group.completions)
                records.add(make(group), prompt_tokens=lengths[group.id], generated_tokens=made)
                progress.advance(records=1)
        finally:
            records.flush()
    if failure is not None:
        raise failure
