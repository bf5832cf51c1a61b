"""Texts for a stage: conversations in, the model's answers as a record set."""

from collections.abc import Mapping, Sequence

from etils import epath

from ste_jax.checkpoint.source import ModelSource
from ste_jax.decode.protocol import Group, Request, Sampling
from ste_jax.records import Generation
from ste_jax.runner import run_requests
from ste_jax.stages.context import Context
from ste_jax.storage.readers import read_records
from ste_jax.storage.record_set import RecordSet
from ste_jax.storage.success import read_success
from ste_jax.text.chat import Message, encode_chat


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

    run_requests(engine, requests, sampling, records, make, label=folder.name.replace("_", " "))
    records.finish((request.id for request in requests), {"too_long": too_long})
    return {g.id: g for g in read_records(folder, Generation)}, too_long
