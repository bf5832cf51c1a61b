"""Sizes of the programs of a call, and the order in which its prompts are read."""

from collections.abc import Sequence

import numpy as np

from ste_jax.decode.protocol import Request
from ste_jax.decode.schedule import plan_prefills
from ste_jax.decode.settings import DecodeSettings
from ste_jax.decode.shape import Shape, decode_shape

SHAPE = Shape(
    (64, 128),
    8,
    prompts_per_slot=2,
    samples_per_slot=2,
    decode_steps_per_sync=4,
    segments=(16,),
    prefill_tokens=256,
)


def _requests(lengths: Sequence[int]) -> list[Request]:
    rng = np.random.default_rng(0)
    return [
        Request(str(i), tuple(rng.integers(0, 9, length + 1).tolist()), np.zeros((2, 2), np.uint32), 4)
        for i, length in enumerate(lengths)
    ]


def test_every_request_is_read_once_with_others_of_its_bucket() -> None:
    requests = _requests(np.random.default_rng(1).integers(1, 129, 60).tolist())
    found = plan_prefills(SHAPE, requests)
    assert sorted(r.id for read in found for r in read) == sorted(r.id for r in requests)
    buckets = [{SHAPE.bucket(r) for r in read} for read in found]
    assert [len(b) for b in buckets] == [1] * len(found)
    assert buckets == sorted(buckets, key=max, reverse=True)
    # Little stands empty, but for the last of each length.
    filled = [sum(len(r.prompt) - 1 for r in read) for read in found]
    last = {max(b): i for i, b in enumerate(buckets)}.values()
    assert min(size for i, size in enumerate(filled) if i not in last) > 0.8 * 256


def test_what_has_no_room_waits_before_those_that_came_later() -> None:
    requests = _requests([100, 90, 80, 66, 120, 110])
    names = [[r.id for r in read] for read in plan_prefills(SHAPE, requests)]
    # 100 + 90 + 66 are 256; 80 comes before 120 next.
    assert names == [["0", "1", "3"], ["2", "4"], ["5"]]


def test_a_prefill_has_no_more_prompts_than_the_slots_hold() -> None:
    few = Shape(
        (64,),
        2,
        prompts_per_slot=1,
        samples_per_slot=2,
        decode_steps_per_sync=4,
        segments=(16,),
        prefill_tokens=256,
    )
    assert few.packing(64).packed.gather_index.shape == (1, 2, 64)
    assert few.packing(64).packed.tokens.shape == (1, 128)
    shared = Shape(
        (64,),
        8,
        prompts_per_slot=2,
        samples_per_slot=2,
        decode_steps_per_sync=4,
        segments=(16,),
        prefill_tokens=512,
        multiple=4,
    )
    assert shared.packing(64).packed.gather_index.shape == (4, 4, 64)
    assert shared.packing(64).packed.tokens.shape == (4, 128)


def test_calls_of_similar_sizes_share_programs() -> None:
    settings = DecodeSettings(sequences=32, samples_per_slot=2)

    def slots(requests: int) -> int:
        buckets = settings.buckets
        return decode_shape(settings, buckets, longest=100, requests=requests, samples=1, new_tokens=8).slots

    assert [slots(n) for n in (1, 2, 3, 4, 5, 8, 9, 16, 17, 32)] == [1, 2, 4, 4, 8, 8, 16, 16, 32, 32]
    assert slots(33) == slots(10_000) == 32
