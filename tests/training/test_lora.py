import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ste_jax.decode.resharding import reshard_model
from ste_jax.models.adapters import Adapters
from ste_jax.models.llama import hidden_states
from ste_jax.sharding import TRAIN, make_mesh
from ste_jax.training.batch import Batches
from ste_jax.training.lora import adapter_table, add_lora, trainable
from ste_jax.training.loss import target_losses
from ste_jax.training.step import init_state, make_optimizer, put_batch, train_step
from tests.training.training_cases import TINY, examples, settings, tiny_model

LORA = settings(
    lora_rank=3, lora_alpha=6.0, warmup_steps=0, clip_norm=1e9, learning_rate=1e-3, optimizer="sgd", b1=0.0
)


def adapted(mesh):
    """The tiny model with adapters that change it: both sides drawn."""
    random = np.random.default_rng(1)
    arrays = {
        name: jax.device_put(
            random.normal(0, 0.2, p.shape).astype(np.float32), jax.NamedSharding(mesh, TRAIN.spec(*p.axes))
        )
        for name, p in adapter_table(TINY, LORA.lora_rank).items()
    }
    return tiny_model(mesh).with_adapters(Adapters(LORA.lora_alpha / LORA.lora_rank, arrays))


def batch_on(mesh):
    batch = Batches(examples(16), LORA, 0, 1).batch(0)
    assert len(set(batch["target_weights"].sum(axis=1))) > 2, "micro-batches must differ in targets to tell"
    return put_batch(batch, TRAIN, mesh)


def loss(model, batch):
    hidden = hidden_states(model, batch["tokens"], batch["positions"], batch["segments"])
    return jnp.sum(target_losses(model, hidden, batch, chunk=8)) / jnp.sum(batch["target_weights"])


def plain_gradients():
    """The loss and the gradients of the merged model's matrices, by name: an ordinary Llama."""
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        merged = reshard_model(adapted(mesh), mesh, "float32", rules=TRAIN)
        assert merged.blocks.adapters is None
        value, gradients = jax.jit(jax.value_and_grad(loss))(merged, batch_on(mesh))
        return float(value), {n: np.asarray(gradients.parameter(f"blocks.{n}")) for n in names()}


def names():
    return [name.removesuffix("_a") for name in adapter_table(TINY, 3) if name.endswith("_a")]


@pytest.mark.parametrize("micro_rows", [8, 2])
def test_a_sharded_step_has_the_merged_model_s_loss_and_gradients_of_adapters_only(micro_rows):
    """With W + s A B in the place of W: dA = s dW B^T and dB = s A^T dW; plain momentum moves by them."""
    mesh, chosen = make_mesh((1, 2, 2), jax.devices()[:4]), dataclasses.replace(LORA, micro_rows=micro_rows)
    with jax.set_mesh(mesh):
        model = adapted(mesh)
        before = {n: np.asarray(getattr(trainable(model), n)) for n in adapter_table(TINY, 3)}
        frozen = [np.asarray(x) for x in jax.tree.leaves(tiny_model(mesh))]
        state = init_state(model, make_optimizer(chosen, 10))
        state, metrics = train_step(state, batch_on(mesh), settings=chosen, total_steps=10)
    value, gradients = plain_gradients()
    assert float(metrics["loss"]) == pytest.approx(value, rel=1e-5)
    assert len(names()) == 7
    for name in names():
        a, b = (before[f"{name}_{side}"].astype(np.float64) for side in "ab")
        flat_a, flat_b = a.reshape(2, -1, 3), b.reshape(2, 3, -1)
        dw = gradients[name].reshape(2, flat_a.shape[1], flat_b.shape[2])
        wanted = {"a": 2.0 * dw @ flat_b.swapaxes(1, 2), "b": 2.0 * flat_a.swapaxes(1, 2) @ dw}
        for side, old in (("a", a), ("b", b)):
            new = np.asarray(getattr(trainable(state.model), f"{name}_{side}"), np.float64)
            moved = (old - new) / 1e-3
            np.testing.assert_allclose(moved, wanted[side].reshape(old.shape), rtol=2e-2, atol=2e-4)
    for old, new in zip(frozen, jax.tree.leaves(state.model.with_adapters(None)), strict=True):
        np.testing.assert_array_equal(old, new)


def test_new_adapters_change_nothing_and_have_the_matrices_axes():
    mesh = make_mesh((1, 2, 2), jax.devices()[:4])
    with jax.set_mesh(mesh):
        model = add_lora(tiny_model(mesh), LORA, jax.random.key(1))
        merged = reshard_model(model, mesh, "float32", rules=TRAIN)
    part = trainable(model)
    for name in names():
        np.testing.assert_array_equal(merged.parameter(f"blocks.{name}"), getattr(model.blocks, name)[...])
        assert not np.asarray(getattr(part, f"{name}_b")).any()
        assert np.asarray(getattr(part, f"{name}_a")).std() > 0.1
    assert part.wo_a[...].shape == (2, 2, 2, 8, 3)
    assert part.wo_a[...].sharding.spec == TRAIN.spec(None, "kv_heads", None, None, None)
    assert part.w_down_b[...].sharding.spec == TRAIN.spec(None, None, "embed")
