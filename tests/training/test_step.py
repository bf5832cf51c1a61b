import dataclasses
import functools
from types import SimpleNamespace
from typing import cast

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AbstractMesh, AxisType

from ste_jax.models.presets import PRESETS
from ste_jax.sharding import MESH_AXES, TRAIN, make_mesh
from ste_jax.training import step as step_module
from ste_jax.training.batch import Batches
from ste_jax.training.step import (
    abstract_state,
    check_rows,
    choose_attention,
    init_state,
    learning_rates,
    make_optimizer,
    put_batch,
    train_step,
)
from tests.errors import raises
from tests.training.training_cases import examples, one_device, settings, tiny_model

TOTAL = 10


@functools.cache
def one_update(chosen, shape=(1, 1, 1), targets=True):
    """The parameters, first moments (gradients, but for clipping) and metrics after one update."""
    state, metrics = stepped(chosen, shape, targets)
    moments = optax.tree.get(state.opt_state, "mu", optax.tree.get(state.opt_state, "trace", None))
    return (
        [np.asarray(x) for x in jax.tree.leaves(state.model)],
        [np.asarray(x) for x in jax.tree.leaves(moments)],
        {name: float(value) for name, value in metrics.items()},
    )


def stepped(chosen, shape=(1, 1, 1), targets=True):
    mesh = make_mesh(shape, jax.devices()[: np.prod(shape)])
    batches = Batches(examples(chosen.batch_rows * chosen.row_length // 16), chosen, 0, 1)
    batch = batches.batch(0)
    assert len(set(batch["target_weights"].sum(axis=1))) > 2, "rows must differ in targets to tell"
    batch["target_weights"] *= targets
    with jax.set_mesh(mesh):
        model = tiny_model(mesh, chosen.param_dtype, chosen.dtype)
        state = init_state(model, make_optimizer(chosen, TOTAL))
        placed = put_batch(batch, TRAIN, mesh)
        return train_step(state, placed, settings=chosen, total_steps=TOTAL)


def assert_same(one, other):
    for a, b in zip(one[1], other[1], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert one[2] == pytest.approx(other[2], rel=1e-5)


def plain(**changes):
    """Without clipping, first moments are the gradients times 1 - b1."""
    return settings(**{"clip_norm": 1e9, "warmup_steps": 0, "learning_rate": 1e-3, **changes})


def test_accumulation_equals_one_big_batch():
    assert_same(one_update(plain(micro_rows=2)), one_update(plain()))


@pytest.mark.parametrize(("shape", "micro_rows"), [((2, 2, 2), 8), ((1, 4, 2), 4)])
def test_any_mesh_equals_one_device(shape, micro_rows):
    assert_same(one_update(plain(micro_rows=micro_rows), shape), one_update(plain()))


@pytest.mark.parametrize("remat", ["full", "dots"])
def test_remat_changes_no_value(remat):
    assert_same(one_update(plain(remat=remat)), one_update(plain()))


def test_a_step_with_the_pallas_kernel_is_the_same_step(monkeypatch):
    """Uses the interpreter, because there is no TPU."""
    kernel = functools.partial(step_module.splash_attention, interpret=True)
    monkeypatch.setattr(step_module, "splash_attention", kernel)
    chosen = plain(row_length=128, batch_rows=4, micro_rows=4)
    found = one_update(dataclasses.replace(chosen, attention="splash"), (1, 2, 2))
    assert_same(found, one_update(chosen))


@pytest.mark.parametrize(
    ("param_dtype", "moment_dtype", "micro_rows"),
    [
        ("bfloat16", "bfloat16", 2),
        ("float32", "float32", 8),
        ("float32", "float32", 2),
        ("float32", "bfloat16", 2),
    ],
)
def test_computing_in_bfloat16_is_near_float32_and_keeps_all_dtypes(param_dtype, moment_dtype, micro_rows):
    narrow = plain(
        param_dtype=param_dtype, dtype="bfloat16", moment_dtype=moment_dtype, micro_rows=micro_rows
    )
    state, _ = stepped(narrow)
    of = {name: jax.tree.leaves(optax.tree.get(state.opt_state, name)) for name in ("mu", "nu")}
    of["parameters"] = jax.tree.leaves(state.model)
    dtypes = {name: {x.dtype.name for x in leaves} for name, leaves in of.items()}
    assert dtypes == {"parameters": {param_dtype}, "mu": {moment_dtype}, "nu": {param_dtype}}
    _, moments, metrics = one_update(narrow)
    _, exact, wanted = one_update(plain())
    assert metrics["loss"] == pytest.approx(wanted["loss"], rel=0.02)
    assert metrics["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=0.1)
    for near, gradient in zip(moments, exact, strict=True):
        error = np.linalg.norm(near.astype(np.float32) - gradient)
        assert error < 0.05 * np.linalg.norm(gradient)


def test_the_first_update_is_that_of_adamw():
    """AdamW's first update is lr * (sign(g) + decay * w), norms without decay; moments give the signs."""
    model = tiny_model(one_device())
    names = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(model)]
    after, moments, _ = one_update(plain())
    for name, old, new, moment in zip(names, jax.tree.leaves(model), after, moments, strict=True):
        decay = 0.0 if "norm" in name else plain().weight_decay
        old, seen = np.asarray(old), np.abs(moment) > 1e-5  # elsewhere epsilon is felt
        assert seen.any()
        wanted = old - 1e-3 * (np.sign(moment) + decay * old)
        np.testing.assert_allclose(new[seen], wanted[seen], atol=2e-6)
    assert sum("norm" in name for name in names) == 3


def test_clipping_bounds_the_gradient_but_not_what_is_reported():
    free, clipped = one_update(plain()), one_update(plain(clip_norm=0.01))
    assert free[2]["grad_norm"] == clipped[2]["grad_norm"] > 0.01
    norm = np.sqrt(sum((m.astype(np.float64) ** 2).sum() for m in clipped[1])) / (1 - plain().b1)
    assert norm == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("micro_rows", [8, 2])
def test_a_batch_without_targets_gives_no_nan(micro_rows):
    parameters, _, metrics = one_update(plain(micro_rows=micro_rows), targets=False)
    assert metrics["loss"] == metrics["grad_norm"] == metrics["target_tokens"] == 0.0
    assert all(np.isfinite(p).all() for p in parameters)


def test_learning_rate_goldens():
    rates = learning_rates(settings(learning_rate=1e-6, warmup_steps=100), 1100)
    goldens = {0: 0.0, 50: 5e-7, 100: 1e-6, 350: 8.82842712e-7, 600: 6e-7, 1100: 2e-7}
    for step, golden in goldens.items():
        assert float(rates(step)) == pytest.approx(golden, rel=1e-5, abs=1e-12)


@pytest.mark.parametrize(
    ("schedule", "goldens"),
    [
        ("linear", {50: 5e-7, 100: 1e-6, 600: 6e-7, 1100: 2e-7}),
        ("constant", {50: 5e-7, 100: 1e-6, 1100: 1e-6}),
    ],
)
def test_other_schedules(schedule, goldens):
    rates = learning_rates(settings(learning_rate=1e-6, warmup_steps=100, schedule=schedule), 1100)
    for step, golden in goldens.items():
        assert float(rates(step)) == pytest.approx(golden, rel=1e-5)


@pytest.mark.parametrize(("optimizer", "decay"), [("lion", 0.1), ("sgd", 0.0)])
def test_the_first_update_of_other_optimizers(optimizer, decay):
    """Lion moves by lr * (sign(g) + decay * w), momentum by lr * g; both on any mesh."""
    model = tiny_model(one_device())
    chosen = plain(optimizer=optimizer)
    after, _, metrics = one_update(chosen)
    gradients = [moment / (1 - plain().b1) for moment in one_update(plain())[1]]
    names = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(model)]
    for name, old, new, g in zip(names, jax.tree.leaves(model), after, gradients, strict=True):
        old, sure = np.asarray(old), np.abs(g) > 1e-6
        step = np.sign(g) + (0.0 if "norm" in name else decay) * old if optimizer == "lion" else g
        np.testing.assert_allclose(new[sure], (old - 1e-3 * step)[sure], atol=1e-6)
    sharded = one_update(chosen, (2, 2, 2))
    assert sharded[2] == pytest.approx(metrics, rel=1e-5)


def test_a_warm_up_longer_than_the_run_is_cut_to_it():
    rates = learning_rates(settings(learning_rate=1.0, warmup_steps=100), 5)
    assert [round(float(rates(step)), 3) for step in range(5)] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert np.isfinite(float(learning_rates(settings(warmup_steps=100), 1)(0)))


def test_the_step_is_traced_once(monkeypatch):
    traces = []
    original = step_module.hidden_states

    def counted(*args, **kwargs):
        traces.append(1)
        return original(*args, **kwargs)

    monkeypatch.setattr(step_module, "hidden_states", counted)
    mesh = make_mesh((2, 2, 2))
    chosen = settings(epochs=4, learning_rate=3e-3)
    batches = Batches(examples(40), chosen, 0, 1)
    with jax.set_mesh(mesh):
        state = init_state(tiny_model(mesh), make_optimizer(chosen, batches.total_steps))
        for step in range(4):
            batch = put_batch(batches.batch(step), TRAIN, mesh)
            state, _ = train_step(state, batch, settings=chosen, total_steps=batches.total_steps)
    assert len(traces) == 1
    assert int(state.step) == 4


@pytest.mark.parametrize("name", ["llama3_8b", "llama3.1_70b"])
def test_real_models_shard_over_a_pod(name):
    chosen = settings(
        batch_rows=256,
        micro_rows=128,
        row_length=4096,
        remat="full",
        dtype="bfloat16",
        param_dtype="float32",
        loss_chunk=256,
    )
    mesh = AbstractMesh((2, 32, 8), MESH_AXES, axis_types=(AxisType.Explicit,) * 3)
    with jax.sharding.use_abstract_mesh(mesh):
        rows = jax.NamedSharding(mesh, TRAIN.spec("batch", None))

        def array(width, dtype=np.int32):
            return jax.ShapeDtypeStruct((256, width), dtype, sharding=rows)

        batch = {name: array(4096) for name in ("tokens", "positions", "segments")}
        batch |= {name: array(1024) for name in ("target_at", "target_ids")}
        batch["target_weights"] = array(1024, np.float32)
        state = abstract_state(PRESETS[name], TRAIN, chosen, 100)
        after, metrics = jax.eval_shape(
            functools.partial(train_step, settings=chosen, total_steps=100), state, batch
        )
    assert jax.tree.leaves(after.model.blocks.w_up)[0].sharding.spec == TRAIN.spec(None, "embed", "mlp")
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
        assert not old.shape or old.sharding.spec == new.sharding.spec
    assert metrics["loss"].shape == ()


def test_the_kernel_follows_from_the_devices_and_the_rows():
    device = SimpleNamespace(platform="tpu")  # all that the choice reads of a TPU
    tpu = cast(jax.sharding.Mesh, SimpleNamespace(devices=np.array([device])))
    rows = settings(attention="auto", row_length=128)
    assert choose_attention(rows, one_device()).attention == "xla"
    assert choose_attention(rows, tpu).attention == "splash"
    assert choose_attention(dataclasses.replace(rows, row_length=200), tpu).attention == "xla"
    assert choose_attention(settings(attention="xla", row_length=128), tpu).attention == "xla"


def test_the_pallas_kernel_is_refused_where_it_cannot_run():
    with raises("config_invalid", "'splash'", "'cpu'", "train.attention"):
        choose_attention(settings(attention="splash", row_length=128), one_device())
    with raises("config_invalid", "row_length", "128", "200"):
        settings(attention="splash", row_length=200)


def test_rows_that_do_not_spread_over_the_mesh_are_refused():
    with raises("config_invalid", "micro_rows 2", "4 devices"):
        check_rows(settings(micro_rows=2), TRAIN, make_mesh((2, 2, 2)).shape)
    check_rows(settings(micro_rows=4), TRAIN, make_mesh((2, 2, 2)).shape)
