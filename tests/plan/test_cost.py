import dataclasses

import pytest

from ste_jax.decode.shape import Shape
from ste_jax.models.presets import PRESETS, preset_of
from ste_jax.plan.cost import DECODING, prefill_cost, train_cost, trained_parameters
from ste_jax.plan.phases import decode_cost
from ste_jax.plan.topology import parse_topology
from ste_jax.training.settings import TrainSettings

CFG = PRESETS["llama3_70b"]
SETTINGS = TrainSettings(
    batch_rows=64, micro_rows=64, row_length=4096, dtype="bfloat16", remat="full", learning_rate=1e-6
)


def shape(slots: int) -> Shape:
    return Shape(
        (4096,),
        slots,
        prompts_per_slot=1,
        samples_per_slot=15,
        decode_steps_per_sync=16,
        segments=(512,),
        prefill_tokens=4096,
    )


FSDP_64 = {"data": 1, "fsdp": 64, "tensor": 1}


def test_a_token_costs_what_is_counted_by_hand():
    cost = train_cost(CFG, parse_topology("v6e-64"), FSDP_64, SETTINGS, targets=1.0)
    # 6 x 69.5e9 in matrices; causal attention 3 x 4 x 80 layers x 8192 x 2048 keys.
    assert cost.useful_flops / cost.tokens == pytest.approx(417e9 + 16.1e9, rel=0.01)
    none = train_cost(
        CFG, parse_topology("v6e-64"), FSDP_64, dataclasses.replace(SETTINGS, remat="none"), 1.0
    )
    layers = 2 * (CFG.parameter_count - 2 * CFG.vocab_size * CFG.hidden_size)
    assert cost.flops - none.flops == pytest.approx(cost.tokens * (layers + 5.4e9), rel=0.01)


def test_preferences_project_to_the_vocabulary_once_more():
    sft, dpo = (
        train_cost(
            CFG, parse_topology("v6e-64"), FSDP_64, dataclasses.replace(SETTINGS, objective=objective), 0.5
        )
        for objective in ("sft", "dpo")
    )
    logits = 0.5 * 2 * CFG.vocab_size * CFG.hidden_size
    assert dpo.flops - sft.flops == pytest.approx(sft.tokens * logits, rel=1e-6)
    assert dpo.useful_flops == sft.useful_flops


def test_adapters_cost_no_gradients_of_the_model():
    lora = dataclasses.replace(SETTINGS, lora_rank=16)
    costs = [train_cost(CFG, parse_topology("2xv5p-64"), FSDP_64 | {"data": 2, "fsdp": 32}, s, 1.0)
             for s in (SETTINGS, lora)]  # fmt: skip
    full, adapters = costs
    trained = trained_parameters(CFG, lora)
    # 16 x (inputs + outputs) of the seven matrices of 80 layers.
    assert trained == 16 * 80 * (2 * (8192 + 8192) + 2 * (8192 + 1024) + 3 * (8192 + 28672))
    matrices = 2.0 * (CFG.parameter_count - CFG.vocab_size * CFG.hidden_size)
    assert full.useful_flops - adapters.useful_flops == pytest.approx(
        full.tokens * (matrices - 6 * trained), rel=1e-3
    )
    assert adapters.network_bytes == pytest.approx(full.network_bytes * 2 / 3)
    assert adapters.expected_s < full.expected_s


def test_the_expectation_is_what_was_published_for_this_recipe():
    cost = train_cost(CFG, parse_topology("v6e-256"), {**FSDP_64, "fsdp": 256}, dataclasses.replace(
        SETTINGS, batch_rows=768, micro_rows=768), targets=1.0)  # fmt: skip
    assert cost.bound == "arithmetic"
    assert cost.tokens_per_chip(256) == pytest.approx(905, rel=0.05)  # tpu-recipes, Llama-2-70B on v6e-256


def test_accumulation_and_slices_cost_network():
    one = train_cost(CFG, parse_topology("v5p-128"), FSDP_64, SETTINGS, 1.0)
    mesh = {"data": 1, "fsdp": 16, "tensor": 4}
    four = train_cost(CFG, parse_topology("v5p-128"), mesh, dataclasses.replace(SETTINGS, micro_rows=16), 1.0)
    assert four.network_bytes > one.network_bytes > 0
    alone = {"data": 1, "fsdp": 1, "tensor": 1}
    assert train_cost(CFG, parse_topology("v6e-1"), alone, SETTINGS, 1.0).network_bytes == 0
    two = {"data": 2, "fsdp": 32, "tensor": 1}
    small = dataclasses.replace(SETTINGS, row_length=2)
    near = train_cost(CFG, parse_topology("v5p-128"), two, small, 1.0)
    far = train_cost(CFG, parse_topology("2xv5p-64"), two, small, 1.0)
    # 282 GB of gradients over 32 devices and slices at 6.25 GB/s a device.
    assert far.roofline_s - near.roofline_s == pytest.approx(282e9 / 32 / 6.25e9, rel=0.5)


def test_a_ring_that_does_not_close_is_half_as_fast():
    assert parse_topology("v6e-256").network == 2 * parse_topology("v6e-64").network == 360e9
    assert parse_topology("v6e-128").network == 270e9
    assert parse_topology("v5p-128").network == 3 * 180e9
    assert parse_topology("tpu7x-128").network == 3 * 200e9  # of a device, half a chip


def test_decoding_is_bound_by_memory_until_there_are_enough_samples():
    few, many = (
        decode_cost(
            CFG,
            parse_topology("v6e-8"),
            {"data": 1, "fsdp": 1, "tensor": 8},
            shape(groups),
            prompt=2500,
            suffix=400,
        )
        for groups in (2, 40)
    )
    assert (few.bound, few.efficiency) == ("memory", DECODING)
    assert few.hbm_bytes > 2 * CFG.parameter_count / 8 * 0.98
    assert many.tokens_per_chip(8) > 5 * few.tokens_per_chip(8)
    # Replicas double the tokens of a step, not its time.
    mesh = {"data": 1, "fsdp": 2, "tensor": 8}
    half = decode_cost(CFG, parse_topology("v6e-16"), mesh, shape(4), prompt=2500, suffix=400)
    assert half.expected_s == few.expected_s
    assert half.tokens == 2 * few.tokens


def test_a_prefill_costs_two_flops_a_parameter():
    cost = prefill_cost(
        CFG, parse_topology("v6e-8"), {"data": 1, "fsdp": 1, "tensor": 8}, rows=1, length=2500
    )
    assert cost.flops == pytest.approx(2500 * 2 * 68.5e9, rel=0.05)


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        ("meta-llama/Meta-Llama-3-70B-Instruct", "llama3_70b"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3.1_8b"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama3.1_70b"),
        ("meta-llama/Llama-2-7b-chat-hf", "llama2_7b"),
        ("meta-llama/Llama-3.1-405B", "llama3.1_405b"),
        ("models/SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2_135m"),
    ],
)
def test_names_tell_architectures(name, preset):
    assert preset_of(name) == PRESETS[preset]


def test_other_names_tell_nothing():
    assert preset_of("mistralai/Mixtral-8x22B") is None
