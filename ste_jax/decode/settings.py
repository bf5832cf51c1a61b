"""Settings of the decoding engine and the limits that follow from them. This module does not import JAX."""

import dataclasses
from typing import Literal

from ste_jax.config_field import INHERITED, config_field
from ste_jax.errors import SteError


@dataclasses.dataclass(frozen=True)
class DecodeSettings:
    """Sizes of the engine. With several replica groups of processes, the sizes of all their engines together.

    Attributes:
      sequences: Number of samples in flight.
      prefix_tokens: Number of prompt positions in flight over all slots, which bounds the memory of the
        prefix cache.
      prefill_tokens: Number of prompt positions of one prefill, whose time does not depend on how many of
        them are used. Where two prompts of a bucket fit into it, prompts are packed (see `packing`).
      prompts_per_slot: Number of prompts that a slot holds. With 2, samples of the next prompt start while
        the last samples of the current one are still running.
      buckets: Prompt lengths that programs are compiled for; a prompt uses the smallest that holds it.
      decode_steps_per_sync: Number of decoding steps between two synchronizations with the host, which starts
        new samples in the lanes of those that have ended.
      suffix_chunk: Number of generated tokens per sample that the suffix cache has room for at first; longer
        samples double it as often as needed.
      samples_per_slot: Number of samples of one slot in flight; a waiting sample of the slot's prompts starts
        when one of them ends.
      dtype: Dtype of weights, activations and caches.
    """

    sequences: int = config_field(64, affects=INHERITED)
    prefix_tokens: int = config_field(32768, affects=INHERITED)
    prefill_tokens: int = config_field(512, affects=INHERITED)
    prompts_per_slot: int = config_field(2, affects=INHERITED)
    buckets: tuple[int, ...] = config_field((128, 256, 512, 1024), affects=INHERITED)
    decode_steps_per_sync: int = config_field(16, affects=INHERITED)
    suffix_chunk: int = config_field(64, affects=INHERITED)
    samples_per_slot: int = config_field(16, affects=INHERITED)
    dtype: Literal["float32", "bfloat16"] = config_field("float32", affects=INHERITED)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and value < 1:
                raise SteError("config_invalid", f"decode.{field.name} must be 1 or more, not {value}")
        if not self.buckets or list(self.buckets) != sorted(set(self.buckets)) or self.buckets[0] < 1:
            raise SteError(
                "config_invalid", f"decode.buckets must be increasing positive lengths, not {self.buckets}"
            )
        if self.samples_per_slot > self.sequences:
            raise SteError(
                "config_invalid",
                f"decode.samples_per_slot ({self.samples_per_slot}) is larger than decode.sequences "
                f"({self.sequences})",
            )

    def share(self, groups: int) -> "DecodeSettings":
        """Returns the sizes of each of `groups` engines that have these sizes together."""
        return dataclasses.replace(
            self,
            sequences=max(self.samples_per_slot, self.sequences // groups),
            prefix_tokens=max(1, self.prefix_tokens // groups),
            prefill_tokens=max(1, self.prefill_tokens // groups),
        )

    def buckets_within(self, context_length: int) -> tuple[int, ...]:
        """Returns the buckets that a model of this context length can use, at least one."""
        return tuple(b for b in self.buckets if b < context_length) or (context_length - 1,)

    def limits(self, context_length: int) -> "EngineLimits":
        """Returns the limits of an engine over a model of this context length."""
        return EngineLimits(self.buckets_within(context_length), context_length)


@dataclasses.dataclass(frozen=True)
class EngineLimits:
    """Limits of what an engine serves (see `protocol.RequestLimits`).

    Attributes:
      buckets: Prompt lengths that programs are compiled for.
      context_length: Context length of the model.
    """

    buckets: tuple[int, ...]
    context_length: int

    def refusal(self, prompt_length: int, max_new_tokens: int) -> str | None:
        """Returns why a request of this size cannot be served, or None."""
        if prompt_length < 1:
            return "the prompt is empty"
        if prompt_length - 1 > self.buckets[-1]:
            return f"the prompt has {prompt_length} tokens, decode.buckets end at {self.buckets[-1]}"
        if prompt_length + max_new_tokens > self.context_length:
            return (
                f"prompt and response take {prompt_length} + {max_new_tokens} tokens, the context length is "
                f"{self.context_length}"
            )
        return None
