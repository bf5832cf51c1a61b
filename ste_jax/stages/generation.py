"""Sampling for a stage: requests in, records on disk, a live progress line; skips what an earlier start
finished.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

from etils import epath

from ste_jax import connection, stopping
from ste_jax.checkpoint.source import ModelSource
from ste_jax.decode.protocol import Backend, Completion, Group, Request, Sampling, Tail
from ste_jax.progress import Progress
from ste_jax.records import Generation, Record
from ste_jax.stages.context import Context
from ste_jax.store import Journal, RecordSet, read_records, read_success
from ste_jax.text.chat import Message, encode_chat


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
      Stopped: it was asked to stop; finished requests are on disk, those in flight are served anew.
    """
    mine = {request.id for request in requests if backend.team.owns(request.id)}
    done = {id_ for id_ in mine if id_ + first in records.found}
    waiting = mine - done
    waiting = waiting if only is None else waiting.intersection(only)
    lengths = {r.id: len(r.prompt) for r in requests}
    records.work.total, records.work.done = len(mine), len(done)
    total = len(mine) if only is None else len(waiting)
    with Progress(label, total, total - len(waiting)) as progress:

        def count(made: int) -> None:
            progress.advance(tokens=made)
            if connection.any_asked(backend.team.mesh):
                raise stopping.Stopped

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
                if not backend.team.leads:
                    continue
                made = sum(len(completion.tokens) for completion in group.completions)
                records.add(make(group), prompt_tokens=lengths[group.id], generated_tokens=made)
                progress.advance(records=1)
        finally:
            records.flush()
    if failure is not None:
        raise failure


def generate_texts(
    context: Context,
    source: ModelSource,
    folder: epath.Path,
    conversations: Mapping[str, Sequence[Message]],
    *,
    sampling: Sampling,
    max_new_tokens: int,
    fingerprint: dict,
) -> tuple[dict[str, Generation], list[str]]:
    """Answers one conversation an id, as a record set in `folder`.

    Returns:
      the answers by id, and the ids whose prompt is too long for the model or the engine (left out, never
      cropped).
    """
    success = read_success(folder)
    records = RecordSet(folder, Generation, fingerprint, divided=True)
    if success is not None:
        return {g.id: g for g in read_records(folder, Generation)}, success.summary["too_long"]
    engine, tokenizer = context.engine(source), source.tokenizer
    stage = f"{folder.parent.name}/{folder.name}"
    requests, too_long = [], []
    for id_, messages in conversations.items():
        prompt = tuple(encode_chat(tokenizer, messages))
        if engine.refusal(len(prompt), max_new_tokens):
            too_long.append(id_)
        else:
            requests.append(Request(id_, prompt, context.keys(stage, id_, 1), max_new_tokens))

    def make(group: Group) -> list[Generation]:
        done = group.completions[0]
        text = tokenizer.decode(done.tokens)
        return [Generation(id=group.id, text=text, tokens=list(done.tokens), finish=done.finish)]

    serve(engine, requests, sampling, records, make, label=folder.name.replace("_", " "))
    records.gather()
    records.finish([request.id for request in requests], {"too_long": too_long})
    return records.found, too_long
