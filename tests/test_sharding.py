import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from ste_jax.decode.resharding import reshard_model
from ste_jax.models.llama import (
    Llama,
    LlamaConfig,
    check_divisible,
    hidden_states,
    initialize,
    parameter_table,
)
from ste_jax.sharding import DECODE, TRAIN, Rules, decode_mesh, make_mesh
from tests.errors import raises

CFG = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_layers=2,
    num_heads=8,
    num_kv_heads=4,
    head_dim=8,
    context_length=64,
)
TOKENS = np.random.default_rng(0).integers(0, CFG.vocab_size, (8, 16)).astype(np.int32)


def loss(model: Llama, tokens: jax.Array, positions: jax.Array, segments: jax.Array):
    hidden = hidden_states(model, tokens, positions, segments, remat=jax.checkpoint)
    logits = model.unembed_hidden(hidden)
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) ** 2), logits


def random_model(mesh: jax.sharding.Mesh, rules: Rules) -> Llama:
    random = np.random.default_rng(1)
    arrays = {}
    for name, p in parameter_table(CFG).items():
        # Weights of the usual std 0.02 hardly move the logits: an error could hide behind that.
        array = random.normal(1.0 if p.std is None else 0.0, 0.1, p.shape).astype(np.float32)
        arrays[name] = jax.device_put(array, NamedSharding(mesh, rules.spec(*p.axes)))
    return Llama(CFG, rules, "float32", arrays)


@functools.cache
def logits_and_gradients(
    shape: tuple[int, int, int], rules: Rules
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    mesh = make_mesh(shape)
    with jax.set_mesh(mesh):
        model = random_model(mesh, rules)
        positions = np.broadcast_to(np.arange(16, dtype=np.int32), TOKENS.shape)
        segments = np.where(np.arange(16) < 6, 1, 2) * np.ones_like(TOKENS)
        rows = NamedSharding(mesh, rules.spec("batch", None))
        inputs = [jax.device_put(x.astype(np.int32), rows) for x in (TOKENS, positions, segments)]
        (_, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(model, *inputs)
        assert logits.sharding.spec == rules.spec("batch", None, "vocab")
        for (path, found), reference in zip(
            jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(model), strict=True
        ):
            assert found.sharding == reference.sharding, path
        named = {
            jax.tree_util.keystr(k): np.asarray(v) for k, v in jax.tree_util.tree_leaves_with_path(gradients)
        }
    return np.asarray(logits), named


@pytest.mark.parametrize(
    ("shape", "rules"),
    [((1, 8, 1), TRAIN), ((2, 2, 2), TRAIN), ((1, 2, 4), TRAIN), ((1, 2, 4), DECODE)],
    ids=["fsdp", "all", "tensor", "decode"],
)
def test_eight_devices_equal_one(shape: tuple[int, int, int], rules: Rules) -> None:
    logits, gradients = logits_and_gradients(shape, rules)
    one_logits, one_gradients = logits_and_gradients((1, 1, 1), TRAIN)
    assert np.abs(one_logits).max() > 1.0
    np.testing.assert_allclose(logits, one_logits, atol=1e-5 * np.abs(one_logits).max())
    for name, gradient in one_gradients.items():
        assert np.abs(gradient).max() > 0.0, name
        np.testing.assert_allclose(
            gradients[name], gradient, atol=1e-5 * np.abs(gradient).max(), err_msg=name
        )


def test_parameters_are_split_over_the_mesh() -> None:
    with jax.set_mesh(make_mesh((1, 2, 4))):
        init = functools.partial(initialize, CFG, TRAIN, param_dtype="float32", dtype="float32")
        model = jax.jit(init)(jax.random.key(0))
    shards = model.blocks.w_gate[...].addressable_shards
    assert {shard.data.shape for shard in shards} == {(2, 16, 16)}
    assert len({str(shard.index) for shard in shards}) == 8


def test_spec_maps_logical_axes() -> None:
    assert TRAIN.spec("batch", None, "vocab") == PartitionSpec(("data", "fsdp"), None, "tensor")
    assert DECODE.spec("vocab", "embed") == PartitionSpec("tensor", None)


def test_spec_refuses_two_axes_on_one_mesh_axis() -> None:
    with pytest.raises(ValueError, match=r"two of the axes \('batch', 'embed'\)"):
        TRAIN.spec("batch", "embed")
    with pytest.raises(ValueError, match="one mesh axis"):
        Rules(mlp="fsdp").spec("embed", "mlp")


@pytest.mark.parametrize(
    ("mesh", "places"),
    [
        ({"data": 1, "fsdp": 3, "tensor": 1}, ("embed", "'embed'", "'fsdp'")),
        ({"data": 1, "fsdp": 1, "tensor": 8}, ("blocks.wq", "'kv_heads'", "'tensor'")),
        ({"data": 1, "fsdp": 1, "tensor": 3}, ("embed", "'vocab'", "'tensor'")),
    ],
)
def test_uneven_meshes_are_refused(mesh: dict[str, int], places: tuple[str, ...]) -> None:
    with raises("mesh_invalid", *places):
        check_divisible(CFG, TRAIN, mesh)


def test_tuples_of_mesh_axes_multiply() -> None:
    rules = Rules(batch="data", embed=("fsdp", "data"))
    check_divisible(CFG, rules, {"data": 4, "fsdp": 8, "tensor": 4})
    with raises("mesh_invalid", "64 devices"):
        check_divisible(CFG, rules, {"data": 8, "fsdp": 8, "tensor": 4})


def test_every_parameter_has_a_legal_spec() -> None:
    for rules in (TRAIN, DECODE):
        for parameter in parameter_table(CFG).values():
            assert len(rules.spec(*parameter.axes)) == len(parameter.shape)


def test_make_mesh() -> None:
    assert dict(make_mesh((1, 4, 2)).shape) == {"data": 1, "fsdp": 4, "tensor": 2}
    assert dict(make_mesh((1, -1, 2)).shape) == {"data": 1, "fsdp": 4, "tensor": 2}
    assert make_mesh((1, 2, 1)).devices.size == 2
    with raises("mesh_invalid", "(4, 4, 1)"):
        make_mesh((4, 4, 1))
    with raises("mesh_invalid", "(1, -1, 3)"):
        make_mesh((1, -1, 3))
    with raises("mesh_invalid", "(3, -1, 3)"):
        make_mesh((3, -1, 3))
    for shape in ((1, 8), (-1, -1, 1), (0, 1, 1)):
        with raises("mesh_invalid", str(shape)):
            make_mesh(shape)


@pytest.mark.parametrize("mesh_of", [make_mesh, decode_mesh])
def test_no_host_of_many_is_left_without_devices(mesh_of: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mesh_of((1, 2, 2)).size == 4
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with raises("mesh_invalid", "(1, 2, 2)", "2 hosts"):
        mesh_of((1, 2, 2))


def test_a_model_moves_from_the_mesh_of_training_to_that_of_decoding() -> None:
    training, decoding = make_mesh((1, 8, 1)), make_mesh((1, 2, 4))
    with jax.set_mesh(training):
        model = random_model(training, TRAIN)
        moved = reshard_model(model, decoding, "float32")
    assert moved.blocks.w_gate[...].sharding == NamedSharding(decoding, DECODE.spec(None, "embed", "mlp"))
    for name in parameter_table(CFG):
        np.testing.assert_array_equal(np.asarray(moved.parameter(name)), np.asarray(model.parameter(name)))
