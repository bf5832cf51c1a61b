"""Generates texts for a stage: conversations in, answers of the model as a record set."""

import logging
from collections.abc import Mapping, Sequence

from etils import epath

from ste_jax.checkpoint.source import ModelSource
from ste_jax.decode.protocol import Group, Request, Sampling
from ste_jax.errors import SteError
from ste_jax.records import Generation
from ste_jax.runner import run_requests
from ste_jax.stages.context import Context
from ste_jax.storage.readers import read_records
from ste_jax.storage.record_set import RecordSet
from ste_jax.storage.success import read_success
from ste_jax.text.chat import Message, encode_chat

_log = logging.getLogger(__name__)


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
    """Answers one conversation per id and stores the answers as a record set in `folder`.

    Returns:
      The answers by id, and the ids whose prompt is too long for the model or the engine; those are left out,
      never cropped. Prompts that the chat template refuses or rewrites are left out too; SUCCESS.json lists
      their ids under "chat_invalid".
    """
    success = read_success(folder)
    records = RecordSet(folder, Generation, fingerprint, divided=True)
    if success is not None:
        return {g.id: g for g in read_records(folder, Generation)}, success.summary["too_long"]
    # Without conversations no weights are loaded.
    engine, tokenizer = context.engine(source) if conversations else None, source.tokenizer
    stage = f"{folder.parent.name}/{folder.name}"
    requests, too_long, invalid = [], [], []
    for id_, messages in conversations.items():
        try:
            prompt = tuple(encode_chat(tokenizer, messages))
        except SteError as error:
            _log.warning("%s: %s is left out: %s", stage, id_, error)
            invalid.append(id_)
            continue
        if engine and engine.refusal(len(prompt), max_new_tokens):
            too_long.append(id_)
        else:
            requests.append(Request(id_, prompt, context.keys(stage, id_, 1), max_new_tokens))

    def make(group: Group) -> list[Generation]:
        done = group.completions[0]
        text = tokenizer.decode(done.tokens)
        return [Generation(id=group.id, text=text, tokens=list(done.tokens), finish=done.finish)]

    if engine:
        run_requests(engine, requests, sampling, records, make, label=folder.name.replace("_", " "))
    records.finish((request.id for request in requests), {"too_long": too_long, "chat_invalid": invalid})
    return {g.id: g for g in read_records(folder, Generation)}, too_long


class ModelSampler:
    """A `pairs.rejected.ResponseSampler` that runs the seed model and stores each kind of call in a folder.

    Args:
      context: the run.
      folder: parent of the folders, which have the names of the calls.
      sampling: temperature and top-p of calls without their own.
      fingerprint: fingerprint of the record sets.

    Attributes:
      names: names of the calls made so far.
    """

    def __init__(self, context: Context, folder: epath.Path, sampling: Sampling, fingerprint: dict):
        self._context, self._folder = context, folder
        self._sampling, self._fingerprint = sampling, fingerprint
        self.names: list[str] = []

    def sample(
        self,
        name: str,
        conversations: Mapping[str, Sequence[Message]],
        *,
        max_new_tokens: int,
        sampling: Sampling | None = None,
    ) -> dict[str, Generation]:
        """Returns the responses by id, sampled now or by an earlier start of the run."""
        self.names.append(name)
        answers, _ = generate_texts(
            self._context,
            self._context.seed_model,
            self._folder / name,
            conversations,
            sampling=sampling or self._sampling,
            max_new_tokens=max_new_tokens,
            fingerprint=self._fingerprint,
        )
        return answers
