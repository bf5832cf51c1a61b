"""Sizes of the compiled programs of a decoding call, which follow from the settings and all its requests."""

import bisect
import dataclasses

from ste_jax.decode.packing import Packing
from ste_jax.decode.protocol import Request
from ste_jax.decode.settings import DecodeSettings


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of the programs of a call.

    Attributes:
      buckets: Increasing prompt lengths that programs are compiled for; pages of the prefix end there.
      slots: Number of slots.
      prompts_per_slot: Number of prompts that a slot holds.
      samples_per_slot: Number of lanes of a slot, each with one sample at a time.
      decode_steps_per_sync: Number of decoding steps between two synchronizations with the host.
      segments: Positions of each segment of the suffix cache.
      prefill_tokens: Number of prompt positions of one prefill, unless one prompt has more.
      multiple: Divisor of the number of slots and of the rows of a prefill: the mesh axes of the batch.
    """

    buckets: tuple[int, ...]
    slots: int
    prompts_per_slot: int
    samples_per_slot: int
    decode_steps_per_sync: int
    segments: tuple[int, ...]
    prefill_tokens: int
    multiple: int = 1

    @property
    def pages(self) -> tuple[int, ...]:
        """The number of positions of each page of the prefix cache."""
        return tuple(end - start for start, end in zip((0, *self.buckets), self.buckets, strict=False))

    def rows(self, bucket: int) -> int:
        """Returns the number of prompts of this length that fill a prefill."""
        rows = min(max(1, self.prefill_tokens // bucket), self.slots)
        return -(-rows // self.multiple) * self.multiple

    def packing(self, bucket: int) -> Packing:
        """Returns the empty rows of a prefill, one for each device with rows of its own."""
        rows = self.rows(bucket) // self.multiple
        # Prompts are shorter than their bucket and share beginnings, so that up to twice as many fit.
        prompts = min(2 * rows, self.slots * self.prompts_per_slot // self.multiple) if rows > 1 else 1
        return Packing(
            rows=self.multiple,
            positions=rows * bucket,
            prompts=prompts,
            longest=bucket,
            slots=self.slots,
        )

    def bucket(self, request: Request) -> int:
        """Returns the bucket of a request; the last token of its prompt is not part of the prefix."""
        return next(b for b in self.buckets if len(request.prompt) - 1 <= b)


def decode_shape(
    settings: DecodeSettings,
    buckets: tuple[int, ...],
    *,
    longest: int,
    requests: int,
    samples: int,
    new_tokens: int,
    suffix_tokens: int = 0,
    multiple: int = 1,
) -> Shape:
    """Returns the sizes of the programs that serve a call.

    The number of requests is rounded up to a power of two: small calls of similar sizes share programs.

    Args:
      settings: Upper bounds.
      buckets: Prompt lengths to choose from.
      longest: Number of positions of the longest prefix, at most the last bucket.
      requests: Number of requests.
      samples: Largest number of samples of a request.
      new_tokens: Largest number of tokens of a sample.
      suffix_tokens: Number of tokens of a forced suffix.
      multiple: Divisor of the number of slots: the mesh axes of the batch.
    """
    buckets = buckets[: bisect.bisect_left(buckets, longest) + 1]
    samples_per_slot = min(settings.samples_per_slot, samples)
    prompts = min(settings.prompts_per_slot, samples_per_slot)
    slots = min(
        settings.sequences // samples_per_slot,
        max(1, settings.prefix_tokens // (prompts * buckets[-1])),
        1 << (requests - 1).bit_length(),
    )
    return Shape(
        buckets=buckets,
        slots=-(-slots // multiple) * multiple,
        prompts_per_slot=min(prompts, -(-requests // slots)),
        samples_per_slot=samples_per_slot,
        decode_steps_per_sync=settings.decode_steps_per_sync,
        segments=_segments(settings.suffix_chunk, new_tokens + suffix_tokens),
        prefill_tokens=settings.prefill_tokens,
        multiple=multiple,
    )


def _segments(chunk: int, tokens: int) -> tuple[int, ...]:
    """Returns segment sizes for a number of tokens: `chunk` first, then each as long as all before it."""
    total = -(-tokens // chunk) * chunk
    sizes = [chunk]
    while (filled := sum(sizes)) < total:
        sizes.append(min(filled, total - filled))
    return tuple(sizes)
