import dataclasses
import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ste_jax.models.llama import hidden_states
from ste_jax.sharding import TRAIN, make_mesh
from ste_jax.training.batch import Batches
from ste_jax.training.loss import target_losses, total_loss
from ste_jax.training.step import put_batch
from tests.training.training_cases import TINY, examples, one_device, settings, tiny_model


def hidden_of(model, batch):
    return hidden_states(model, batch["tokens"], batch["positions"], batch["segments"])


def run(model, batch, chunk):
    return jnp.sum(target_losses(model, hidden_of(model, batch), batch, chunk=chunk))


def run_at_once(model, batch, chunk):
    return total_loss(model, hidden_of(model, batch), batch, chunk=chunk)


compiled = jax.jit(run, static_argnames="chunk")


def loss_sum(model, batch, mesh, chunk):
    with jax.set_mesh(mesh):
        return float(compiled(model, put_batch(batch, TRAIN, mesh), chunk=chunk))


@jax.jit
def all_logits(model, tokens):
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32)[None], tokens.shape)
    return model.unembed_hidden(hidden_states(model, tokens, positions, jnp.ones_like(tokens)))


def plain_loss(model, given):
    """Returns the summed negative log-probability of the targets, one example per row, in float64."""
    tokens = np.zeros((len(given), max(len(e.prompt + e.target) for e in given)), np.int32)
    for row, example in zip(tokens, given, strict=True):
        row[: len(example.prompt + example.target)] = example.prompt + example.target
    logits = np.asarray(all_logits(model, tokens), np.float64)
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return -sum(
        logs[row, len(example.prompt) - 1 + i, token]
        for row, example in enumerate(given)
        for i, token in enumerate(example.target)
    )


@pytest.mark.parametrize("chunk", [1, 32])
def test_packed_equals_unpacked(chunk):
    mesh = one_device()
    model, given = tiny_model(mesh), examples(14)
    batches = Batches(given, settings(loss_chunk=chunk), 0, 1)
    assert batches.steps_per_epoch == 1
    assert batches.packing.rows < len(given)
    with jax.set_mesh(mesh):
        expected = plain_loss(model, given)
    assert loss_sum(model, batches.batch(0), mesh, chunk) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("segment", [1, 2])
def test_each_example_of_a_row_has_the_loss_it_has_alone(segment):
    mesh = one_device()
    model, given = tiny_model(mesh), examples(6)
    batches = Batches(given, settings(row_length=128, batch_rows=1, micro_rows=1), 0, 1)
    batch = batches.batch(0)
    at_segment = np.take_along_axis(batch["segments"], batch["target_at"], axis=1) == segment
    batch["target_weights"] = batch["target_weights"] * at_segment
    alone = {e.id: e for e in given}[batches.example_ids(0)[segment - 1]]
    with jax.set_mesh(mesh):
        expected = plain_loss(model, [alone])
    assert loss_sum(model, batch, mesh, 8) == pytest.approx(expected, rel=1e-5)


def test_a_neighbour_in_the_row_changes_nothing():
    mesh = one_device()
    model, given = tiny_model(mesh), examples(6)
    batch = Batches(given, settings(row_length=96), 0, 1).batch(0)
    changed = {**batch, "tokens": batch["tokens"].copy()}
    changed["tokens"][batch["segments"] != 1] = 5
    only_first = {**batch, "target_weights": batch["target_weights"].copy()}
    segment_of_target = np.take_along_axis(batch["segments"], batch["target_at"], axis=1)
    only_first["target_weights"][segment_of_target != 1] = 0.0
    weights = only_first["target_weights"]
    assert 0 < weights.sum() < batch["target_weights"].sum()
    before = loss_sum(model, only_first, mesh, 8)
    assert loss_sum(model, {**changed, "target_weights": weights}, mesh, 8) == before
    assert loss_sum(model, {**changed, "target_weights": batch["target_weights"]}, mesh, 8) != before


def test_weights_scale_the_losses():
    mesh = one_device()
    model = tiny_model(mesh)
    batch = Batches(examples(6), settings(), 0, 1).batch(0)
    half = {**batch, "target_weights": batch["target_weights"] / 2}
    none = {**batch, "target_weights": batch["target_weights"] * 0}
    assert loss_sum(model, half, mesh, 8) == pytest.approx(loss_sum(model, batch, mesh, 8) / 2)
    assert loss_sum(model, none, mesh, 8) == 0.0


@pytest.mark.parametrize(
    ("sizes", "tied", "chunk", "dtype", "rtol"),
    [
        ((1, 1, 1), True, 8, "float32", 1e-5),
        ((1, 1, 1), False, 24, "float32", 1e-5),
        ((2, 2, 2), False, 8, "float32", 1e-5),
        ((1, 2, 2), False, 8, "bfloat16", 2e-2),
    ],
)
def test_the_sum_has_the_value_and_the_gradients_of_the_losses(sizes, tied, chunk, dtype, rtol):
    mesh = make_mesh(sizes, jax.devices()[: math.prod(sizes)])
    batch = Batches(examples(30), settings(row_length=128, loss_chunk=24), 0, 1).batch(0)
    batch["target_weights"][:, :8] = 0.0  # a whole chunk of the smaller ones counts nothing
    batch["target_weights"][:, 10] *= 0.5
    found = []
    with jax.set_mesh(mesh):
        model = tiny_model(mesh, dtype=dtype, cfg=dataclasses.replace(TINY, tie_embeddings=tied))
        arrays = put_batch(batch, TRAIN, mesh)
        for loss in (run, run_at_once):
            # As in a step, where what is summed is divided by the number of targets.
            of_model = partial(lambda loss, m: loss(m, arrays, chunk) / 7.0, loss)
            found.append((*jax.jit(jax.value_and_grad(of_model))(model), jax.jit(of_model)(model)))
    (value, gradients, alone), (at_once, gradients_at_once, at_once_alone) = found
    assert [float(x) for x in (at_once, alone, at_once_alone)] == pytest.approx([float(value)] * 3, rel=1e-6)
    for one, other in zip(*map(jax.tree.leaves, (gradients, gradients_at_once)), strict=True):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol * float(jnp.max(jnp.abs(one))))


@pytest.mark.parametrize(("trained", "products"), [((0, 1), 3), ((1,), 2)])
def test_a_frozen_unembedding_gets_no_gradient(trained, products):
    """XLA does not remove an unused product; a frozen table saves one while adapters are trained."""
    mesh = one_device()
    batch = Batches(examples(30), settings(row_length=128), 0, 1).batch(0)
    with jax.set_mesh(mesh):
        model, arrays = tiny_model(mesh), put_batch(batch, TRAIN, mesh)
        gradient = jax.grad(partial(total_loss, batch=arrays, chunk=8), trained)
        assert (
            str(jax.make_jaxpr(gradient)(model, hidden_of(model, arrays))).count("dot_general[") == products
        )


@pytest.mark.parametrize("loss", [run, run_at_once])
def test_no_array_holds_the_logits_of_all_targets(loss):
    mesh = one_device()
    model = tiny_model(mesh)
    batch = Batches(examples(30), settings(row_length=128, loss_chunk=8), 0, 1).batch(0)
    rows, targets = batch["target_ids"].shape
    assert targets > 8

    with jax.set_mesh(mesh):
        program = str(jax.make_jaxpr(jax.grad(partial(loss, chunk=8)))(model, put_batch(batch, TRAIN, mesh)))
    program = re.sub(r"@(\w+|\([^)]*\))", "", program)  # shapes name the mesh axes of each size
    assert f"f32[{rows},8,64]" in program
    assert f"f32[{rows},{targets},64]" not in program
    assert f"f32[{targets // 8},{rows},8,64]" not in program
