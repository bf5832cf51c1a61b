"""Decoding through the TPU compiler, without a TPU."""

import dataclasses
import re

import pytest

pytest.importorskip("libtpu")

from ste_jax.decode.shape import Shape
from ste_jax.models.presets import PRESETS
from ste_jax.plan.chips import CHIPS
from ste_jax.plan.decode import compile_decode, compile_prefill, roofline, slice_mesh, suffix_bytes

CFG = PRESETS["llama3_8b"]


def _shape(slots: int) -> Shape:
    return Shape(
        (512, 1024),
        slots,
        prompts_per_slot=1,
        samples_per_slot=8,
        decode_steps_per_sync=16,
        segments=(128, 128),
        prefill_tokens=1024,
    )


@pytest.fixture(scope="module")
def decode():
    return compile_decode(CFG, slice_mesh("v6e-8"), _shape(8))


def test_a_compiled_step_has_no_sort_and_keeps_its_logits_apart(decode):
    assert " sort(" not in decode.text
    assert f"[8,8,{CFG.vocab_size // 8}]" in decode.text
    whole = re.findall(rf"f32\[[\d,]*\b{CFG.vocab_size}\b[\d,]*\]", decode.text)
    assert not whole


def test_the_peak_holds_weights_and_caches_once(decode):
    shape = _shape(8)
    weights = 2 * CFG.parameter_count / 8
    prefix = shape.slots * sum(shape.pages) * 2 * 2 * CFG.num_layers * CFG.num_kv_heads * CFG.head_dim / 8
    arguments = weights + prefix + suffix_bytes(CFG, shape) / 8
    assert arguments <= decode.peak_bytes < arguments + 2**30
    # Up to eight prompts side by side.
    prefill = compile_prefill(CFG, slice_mesh("v6e-8"), dataclasses.replace(shape, prefill_tokens=4096))
    # A prefill makes no logits: it does not hold the unembedding.
    weights -= 2 * CFG.vocab_size * CFG.hidden_size / 8
    assert prefill.peak_bytes is not None
    assert weights + prefix <= prefill.peak_bytes < weights + 2 * prefix + 2**30


def test_what_does_not_fit_is_a_result():
    found = compile_decode(CFG, slice_mesh("v6e-8"), _shape(4096))
    assert found.peak_bytes is None
    assert "RESOURCE_EXHAUSTED" in found.error


def test_sharing_the_prefix_costs_less():
    sizes = {"sequences": 240, "samples_per_slot": 15, "prompt": 2500, "suffix": 400}
    cfg, chip = PRESETS["llama3_70b"], CHIPS["v6e"]
    shared = roofline(cfg, chip, 8, shared=True, **sizes)
    apart = roofline(cfg, chip, 8, shared=False, **sizes)
    assert shared.weight_bytes == apart.weight_bytes == pytest.approx(139e9, rel=0.01)
    # 327,680 bytes a token.
    assert apart.cache_bytes == 327_680 * 240 * 2900
    assert shared.cache_bytes == 327_680 * (16 * 2500 + 240 * 400)
    assert apart.seconds / shared.seconds == pytest.approx(2.0, abs=0.1)
