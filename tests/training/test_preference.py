import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ste_jax.models.llama import hidden_states
from ste_jax.records import PreferenceExample
from ste_jax.sharding import TRAIN
from ste_jax.training.preference import PreferenceBatches, preference_loss
from ste_jax.training.step import init_state, make_optimizer, put_batch, reference_log_probs, train_step
from tests.training.training_cases import TINY, one_device, settings, tiny_model, update_once

DPO = settings(objective="dpo", warmup_steps=0, learning_rate=1e-3, clip_norm=1e9)


def pairs(count: int) -> list[PreferenceExample]:
    random = np.random.default_rng(0)

    def ids(longest: int) -> list[int]:
        return random.integers(0, TINY.vocab_size, random.integers(1, longest)).tolist()

    return [
        PreferenceExample(
            id=f"e{i}",
            pair_id=f"p{i}",
            order="as_given",
            prompt=ids(5),
            chosen=ids(8),
            rejected=ids(8),
            reference=(-20.0 * random.random(2)).tolist(),
        )
        for i in range(count)
    ]


@jax.jit
def logits_of(model, tokens):
    positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
    return model.unembed_hidden(hidden_states(model, tokens, positions, jnp.ones_like(tokens)))[0]


def log_probs(model, example: PreferenceExample) -> tuple[np.ndarray, np.ndarray]:
    """Returns the log-probabilities of the chosen and the rejected sequence, one per row, in float64."""
    found = []
    for target in (example.chosen, example.rejected):
        ids = example.prompt + target
        logits = np.asarray(logits_of(model, np.asarray([ids + [0] * (16 - len(ids))], np.int32)), np.float64)
        logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        first = len(example.prompt) - 1
        found.append(logs[np.arange(first, first + len(target)), target])
    return found[0], found[1]


def plain_loss(model, given: list[PreferenceExample], beta: float, nll_scale: float) -> float:
    losses, chosen = [], []
    for example in given:
        won, lost = log_probs(model, example)
        margin = (won.sum() - example.reference[0]) - (lost.sum() - example.reference[1])
        losses.append(np.log1p(np.exp(-beta * margin)))
        chosen += won.tolist()
    return float(np.mean(losses) - nll_scale * np.mean(chosen))


@functools.cache
def one_update(chosen, shape=(1, 1, 1), count=12):
    return update_once(PreferenceBatches(pairs(count), chosen, 0, 1), chosen, shape)


@pytest.mark.parametrize(("beta", "nll_scale"), [(0.1, 1.5), (0.5, 0.0)])
def test_the_loss_is_that_of_a_plain_computation(beta, nll_scale):
    chosen = dataclasses.replace(DPO, beta=beta, nll_scale=nll_scale)
    with jax.set_mesh(one_device()):
        wanted = plain_loss(tiny_model(one_device()), pairs(12), beta, nll_scale)
    assert one_update(chosen)[0] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("beta", "nll_scale", "wanted"),
    [(0.1, 0.0, 0.7095480), (0.1, 1.5, 9.7095480), (0.5, 1.0, 6.8500662)],
)
def test_a_fixed_batch_has_the_loss_that_trl_gives_it(beta, nll_scale, wanted):
    """The values are those of `DPOTrainer` of trl 1.16.0 on these log-probabilities, with
    loss_type=["sigmoid", "sft"] and loss_weights=[1.0, nll_scale] (trl/trainer/dpo_trainer.py; in
    docs/source/paper_index.md trl gives these settings for arXiv 2404.19733).

    By hand: the chosen gain 1 and -1 over the reference, the rejected -0.5 and 1, so the margins are 1.5 and
    -2; at beta 0.1 their losses log(1 + exp(-0.1 margin)) are 0.620957 and 0.798139, of which trl takes the
    mean. The chosen have three tokens in all, whose mean negative log-likelihood is (4 + 6 + 8) / 3 = 6.
    """
    reference = [[-11.0, -11.5], [-7.0, -6.0]]
    batch = {
        "target_sequence": jnp.asarray([[0, 0, 1, 2, 3, 3]], jnp.int32),
        "target_weights": jnp.ones((1, 6), jnp.float32),
        "reference": jnp.asarray(reference, jnp.float32).reshape(1, 4),
        "pair_weights": jnp.ones((1, 2), jnp.float32),
    }
    losses = jnp.asarray([[4.0, 6.0, 12.0, 8.0, 2.0, 3.0]], jnp.float32)
    chosen = dataclasses.replace(DPO, beta=beta, nll_scale=nll_scale)
    ours = float(preference_loss(losses, batch, chosen, jnp.float32(2.0), jnp.float32(3.0)))
    assert ours == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("shape", "micro_rows"), [((1, 1, 1), 1), ((1, 4, 2), 4)])
def test_accumulation_and_meshes_change_nothing(shape, micro_rows):
    loss, moments = one_update(dataclasses.replace(DPO, micro_rows=micro_rows), shape)
    wanted, plain = one_update(DPO)
    assert loss == pytest.approx(wanted, rel=1e-5)
    for a, b in zip(moments, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_the_reference_is_the_model_it_starts_from():
    mesh, given, few = one_device(), pairs(20), dataclasses.replace(DPO, micro_rows=4)
    model = tiny_model(mesh)
    found = reference_log_probs(model, PreferenceBatches(given, few, 0, 1), few, mesh)
    assert set(found) == {e.id for e in given}
    with jax.set_mesh(mesh):
        for example in given[:4]:
            wanted = [values.sum() for values in log_probs(model, example)]
            assert found[example.id] == pytest.approx(wanted, rel=1e-5)


def test_training_prefers_the_chosen():
    mesh, given = one_device(), pairs(12)
    chosen = dataclasses.replace(DPO, learning_rate=3e-3, nll_scale=0.0)
    model = tiny_model(mesh)
    known = reference_log_probs(model, PreferenceBatches(given, chosen, 0, 1), chosen, mesh)
    given = [dataclasses.replace(e, reference=known[e.id]) for e in given]
    batches = PreferenceBatches(given, chosen, 0, 1)
    losses = []
    with jax.set_mesh(mesh):
        state = init_state(model, make_optimizer(chosen, 20))
        for _ in range(20):
            batch = put_batch(batches.batch(0), TRAIN, mesh)
            state, metrics = train_step(state, batch, settings=chosen, total_steps=20)
            losses.append(float(metrics["loss"]))
    assert losses[0] == pytest.approx(np.log(2.0), rel=1e-5)
    assert losses[-1] < 0.3
