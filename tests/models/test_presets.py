import functools

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType

from ste_jax.models.llama import Llama, check_divisible, hidden_states, initialize
from ste_jax.models.presets import PRESETS
from ste_jax.sharding import DECODE, MESH_AXES, TRAIN, Rules
from tests.errors import raises

# The totals of the published safetensors files.
PUBLISHED = {
    "llama2_7b": 6_738_415_616,
    "llama2_13b": 13_015_864_320,
    "llama2_70b": 68_976_648_192,
    "llama3_8b": 8_030_261_248,
    "llama3_70b": 70_553_706_496,
    "llama3.1_8b": 8_030_261_248,
    "llama3.1_70b": 70_553_706_496,
    "llama3.1_405b": 405_853_388_800,
    "llama3.2_1b": 1_235_814_400,
    "llama3.2_3b": 3_212_749_824,
    "smollm2_135m": 134_515_008,
    "smollm2_360m": 361_821_120,
    "smollm2_1.7b": 1_711_376_384,
}
# (data, fsdp, tensor): what kv heads, feed-forward and vocabulary divide by; the rest take (1, 8, 4).
MESHES = {
    "llama2_13b": (2, 32, 8),
    "llama2_70b": (2, 32, 8),
    "llama3_70b": (2, 64, 8),
    "llama3.1_70b": (2, 64, 8),
    "smollm2_135m": (1, 8, 3),
    "smollm2_360m": (2, 8, 1),
}


def test_parameter_counts_are_the_published_ones() -> None:
    assert {name: cfg.parameter_count for name, cfg in PRESETS.items()} == PUBLISHED


@pytest.mark.parametrize("rules", [TRAIN, DECODE], ids=["train", "decode"])
@pytest.mark.parametrize("name", PRESETS)
def test_init_and_forward_shard(name: str, rules: Rules) -> None:
    cfg, shape = PRESETS[name], MESHES.get(name, (1, 8, 4))
    rows = shape[0] * shape[1]
    check_divisible(cfg, rules, dict(zip(MESH_AXES, shape, strict=True)))

    def forward(model: Llama) -> jax.Array:
        tokens = jnp.zeros((rows, 128), jnp.int32, out_sharding=rules.spec("batch", None))
        hidden = hidden_states(model, tokens, tokens, tokens, remat=jax.checkpoint)
        return model.unembed_hidden(hidden)

    mesh = AbstractMesh(shape, MESH_AXES, axis_types=(AxisType.Explicit,) * 3)
    with jax.sharding.use_abstract_mesh(mesh):
        init = functools.partial(initialize, cfg, rules, param_dtype="bfloat16", dtype="bfloat16")
        model = jax.eval_shape(lambda: init(jax.random.key(0)))
        logits = jax.eval_shape(forward, model)
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == PUBLISHED[name]
    assert model.blocks.wq.get_value().sharding.spec == rules.spec(None, "embed", "kv_heads", None, None)
    assert model.blocks.w_down.get_value().sharding.spec == rules.spec(None, "mlp", "embed")
    assert model.embed.get_value().sharding.spec == rules.spec("vocab", "embed")
    assert logits.shape == (rows, 128, cfg.vocab_size)
    assert logits.sharding.spec == rules.spec("batch", None, "vocab")


def test_more_tensor_devices_than_kv_heads_are_refused() -> None:
    cfg = PRESETS["llama3_8b"]
    with raises("mesh_invalid", "blocks.wq", "kv_heads"):
        check_divisible(cfg, TRAIN, {"data": 1, "fsdp": 1, "tensor": 16})
