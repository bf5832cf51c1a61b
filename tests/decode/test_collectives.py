"""Collectives of the compiled decoding programs: activations and scalars cross devices, weights never do."""

import re
from collections import Counter

import jax
import pytest

from ste_jax.decode.shape import Shape
from ste_jax.decode.steps import decode, prefill
from ste_jax.models.llama import LlamaConfig, parameter_table
from ste_jax.plan.decode import decode_arguments, prefill_arguments
from ste_jax.sharding import make_mesh

CFG = LlamaConfig(
    vocab_size=4096,
    hidden_size=64,
    intermediate_size=256,
    num_layers=2,
    num_heads=8,
    num_kv_heads=4,
    head_dim=16,
    context_length=256,
    tie_embeddings=True,
)
# Ids of blocks of 256 tokens in a vocabulary of 4,096.
BLOCKS = 16
_COLLECTIVE = re.compile(
    r"= (\S+) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-[a-z]+)[-a-z]*\("
)


def _collectives(program, arguments_of, mesh, shape):
    """Counts (operation, type of the result without its layout) in the text of a compiled program."""
    with jax.set_mesh(mesh):
        text = program.lower(*arguments_of(CFG, mesh, shape)).compile().as_text()
    return Counter((m[2], m[1].split("{")[0]) for m in map(_COLLECTIVE.search, text.splitlines()) if m)


def _shape(slots, batch_shards):
    return Shape(
        buckets=(32, 64),
        slots=slots,
        prompts_per_slot=2,
        samples_per_slot=3,
        decode_steps_per_sync=4,
        segments=(16, 16),
        prefill_tokens=64,
        multiple=batch_shards,
    )


def test_devices_that_share_no_model_exchange_one_bit_per_step():
    mesh = make_mesh((1, 8, 1))
    found = _collectives(decode, decode_arguments, mesh, _shape(8, 8))
    # Whether a sample is running, and whether all draws of a step were accepted.
    assert found == {("all-reduce", "pred[]"): 2}


def test_devices_that_share_a_model_exchange_activations_and_sums():
    mesh = make_mesh((1, 2, 4))
    found = _collectives(decode, decode_arguments, mesh, _shape(4, 2))
    B, T, D = 2, 3, CFG.hidden_size
    assert found == {
        ("all-reduce", "pred[]"): 2,
        # The embedding, and the output of attention and of the feed-forward layer (a loop over layers).
        ("all-reduce", f"f32[{B},{T},{D}]"): 3,
        # The maximum of the logits, in greedy decoding and before a softmax, and the id that has it.
        ("all-reduce", f"f32[{B},{T}]"): 2,
        ("all-reduce", f"s32[{B},{T}]"): 1,
        # Nucleus sampling: sums over blocks, before and in each round, and the block that was drawn.
        ("all-gather", f"f32[{B},{T},{BLOCKS}]"): 2,
        ("all-reduce", f"f32[{B},{T},256]"): 1,
    }


@pytest.mark.parametrize("shape", [(1, 8, 1), (1, 2, 4)])
def test_a_prefill_gathers_no_weights(shape):
    mesh = make_mesh(shape)
    found = _collectives(prefill, prefill_arguments, mesh, _shape(max(4, shape[1]), shape[1]))
    assert not {"all-to-all", "reduce-scatter"} & {operation for operation, _ in found}
    whole = {tuple(p.shape) for p in parameter_table(CFG).values()}
    whole |= {dims[1:] for dims in whole if len(dims) > 2}
    gathered = [
        tuple(map(int, re.findall(r"\d+", kind.split("[")[1]))) for op, kind in found if op == "all-gather"
    ]
    assert gathered
    assert not whole & set(gathered)
