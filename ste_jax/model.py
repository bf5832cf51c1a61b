"""The public `Model`: a language model that generates n samples of every prompt."""

import dataclasses
import os
import threading
from collections.abc import Sequence
from typing import Any, Self, cast

from ste_jax.checkpoint.source import ModelSource, open_model
from ste_jax.checks import as_list, check_number, check_whole
from ste_jax.data.messages import flat_turns
from ste_jax.decode.engine import Engine
from ste_jax.decode.protocol import Group, Request, Sampling
from ste_jax.decode.settings import DecodeSettings, EngineLimits
from ste_jax.errors import SteError
from ste_jax.randomness import sample_keys
from ste_jax.sharding import DECODE, decode_mesh, is_mesh
from ste_jax.storage.files import digest
from ste_jax.text.chat import Message, Role, encode_chat
from ste_jax.text.template import ChatSettings

_BUCKETS = (
    *(128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192),
    *(12288, 16384, 24576, 32768, 65536),
)


def buckets_below(context_length: int) -> tuple[int, ...]:
    """Returns the prompt lengths to compile for: up to all that a model of this context can read."""
    return (*(size for size in _BUCKETS if size < context_length - 1), context_length - 1)


@dataclasses.dataclass(frozen=True)
class Sample:
    """A generated text.

    Attributes:
      text: the text; `str(sample)` returns it.
      tokens: its token ids, without the stop id.
      finish_reason: "stop", "length" if the token budget ended it, or "error".
      error: why nothing could be generated, or None.
    """

    text: str
    tokens: tuple[int, ...] = ()
    finish_reason: str = "stop"
    error: str | None = None

    def __str__(self) -> str:
        return self.text


class Model:
    """A language model on the devices of this process. Calls from several threads run one after another.

    Use `Model.load`. The weights are loaded at the first call.

    Attributes:
      source: the opened model: architecture, tokenizer, card and digest.
      settings: sizes of the decoding engine.
      mesh_shape: sizes of the mesh axes data, fsdp and tensor.
    """

    def __init__(self, source: ModelSource, settings: DecodeSettings, mesh_shape: tuple[int, int, int]):
        self.source = source
        self.settings = settings
        self.mesh_shape = mesh_shape
        self.lock = threading.RLock()
        self._engine: Engine | None = None

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        *,
        dtype: str | None = None,
        mesh: tuple[int, int, int] = (1, -1, 1),
        sequences: int = 32,
        prefill_tokens: int = 512,
        chat_template: str | os.PathLike[str] = "",
        chat_date: str = "",
    ) -> Self:
        """Opens a model.

        Args:
          model: a model folder of a run, a Hugging Face folder or hub name, or a GGUF file.
          dtype: "float32" or "bfloat16", of weights and caches. Default: that of the model's training if it
            was trained by ste_jax, else float32 below one billion parameters and bfloat16 above.
          mesh: sizes of the mesh axes data, fsdp and tensor; -1 takes the remaining devices.
          sequences: samples in flight.
          prefill_tokens: prompt positions of one prefill call.
          chat_template: file of a chat template that replaces that of the model.
          chat_date: date, as YYYY-MM-DD, that a chat template prints as today's. Default: that of the model's
            training if it was trained by ste_jax, else 2024-07-26.

        Raises:
          SteError: the model cannot be opened.
        """
        check_whole("sequences", sequences, least=1)
        if not (isinstance(mesh, tuple | list) and all(type(size) is int for size in mesh) and is_mesh(mesh)):
            raise SteError(
                "argument_invalid", f"mesh must be three sizes, one of them -1 at most, not {mesh!r}"
            )
        source = open_model(os.fspath(model), ChatSettings(os.fspath(chat_template), chat_date))
        trained = source.card.dtype if source.card else None
        dtype = dtype or trained or ("float32" if source.is_small else "bfloat16")
        if dtype not in ("float32", "bfloat16"):
            raise SteError("argument_invalid", f"dtype must be float32 or bfloat16, not {dtype}")
        settings = DecodeSettings(
            sequences=sequences,
            prefill_tokens=prefill_tokens,
            samples_per_slot=min(16, sequences),
            buckets=buckets_below(source.architecture.context_length),
            dtype=dtype,
        )
        return cls(source, settings, mesh)

    @property
    def engine(self) -> Engine:
        """The decoding engine; it is made, and the weights are loaded, at the first use."""
        with self.lock:
            if self._engine is None:
                mesh, dtype = decode_mesh(self.mesh_shape), self.settings.dtype
                model = self.source.load(DECODE, mesh, param_dtype=dtype, dtype=dtype)
                self._engine = Engine(model, mesh, self.settings, self.source.tokenizer.stop_ids)
            return self._engine

    @property
    def limits(self) -> EngineLimits:
        """Limits of what the engine serves, which need no engine."""
        return self.settings.limits(self.source.architecture.context_length)

    def generate(
        self,
        prompts: Sequence[str | Sequence[dict[str, Any]]],
        *,
        n: int = 1,
        temperature: float = 0.7,
        top_p: float = 0.9,
        max_new_tokens: int = 256,
        seed: int = 0,
    ) -> list[list[Sample]]:
        """Returns n samples of every prompt, in order.

        A sample depends on the seed, the prompt and its number only, not on the other prompts of the call.

        Args:
          prompts: texts, each a user turn, or conversations as lists of {"role", "content"}.
          n: samples of each prompt.
          temperature: 0 takes the most likely token.
          top_p: nucleus to sample from.
          max_new_tokens: token budget of a sample.
          seed: seed of the draws.

        Raises:
          SteError: an argument is invalid. A prompt that does not fit the model is no exception: its samples
            have an `error`.
        """
        for name, value in (("n", n), ("max_new_tokens", max_new_tokens)):
            check_whole(name, value, least=1)
        check_whole("seed", seed)
        for name, value in (("temperature", temperature), ("top_p", top_p)):
            check_number(name, value)
        try:
            sampling = Sampling(temperature, top_p)
        except SteError as error:
            raise SteError("argument_invalid", str(error)) from error
        texts = as_list("prompts", prompts)
        conversations = [_messages(prompt, f"prompts[{i}]") for i, prompt in enumerate(texts)]
        requests = []
        for index, messages in enumerate(conversations):
            ids = tuple(encode_chat(self.source.tokenizer, messages))
            name = digest([[message.role, message.content] for message in messages])
            requests.append(Request(str(index), ids, sample_keys(seed, "generate", name, n), max_new_tokens))
        with self.lock:
            groups = {group.id: group for group in self.engine.generate(requests, sampling)}
        return [self._samples(groups[request.id], n) for request in requests]

    def _samples(self, group: Group, n: int) -> list[Sample]:
        if group.error is not None:
            return [Sample("", finish_reason="error", error=str(group.error))] * n
        decode = self.source.tokenizer.decode
        return [Sample(decode(c.tokens), c.tokens, c.finish) for c in group.completions]


def _messages(prompt: str | Sequence[dict[str, Any]], where: str) -> list[Message]:
    if isinstance(prompt, str):
        return [Message("user", prompt)]
    if not isinstance(prompt, list | tuple):
        raise SteError(
            "argument_invalid", f"{where} must be text or a list of messages, not {type(prompt).__name__}"
        )
    return [Message(cast(Role, role), content) for role, content in flat_turns(prompt, where)]
