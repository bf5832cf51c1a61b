import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ste_jax.models.llama import hidden_states
from ste_jax.records import PairwiseExample
from ste_jax.training.pairwise import PairwiseBatches, decisions, pairwise_loss
from tests.errors import raises
from tests.training.training_cases import TINY, one_device, settings, tiny_model, update_once

PLAIN = settings(
    objective="pairwise",
    warmup_steps=0,
    learning_rate=1e-3,
    clip_norm=1e9,
    lean_penalty=0.0,
    noise_exponent=0.0,
)
LETTERS = [7, 9]


def pairs(count: int) -> list[PairwiseExample]:
    random = np.random.default_rng(0)

    def ids() -> list[int]:
        return random.integers(0, TINY.vocab_size, random.integers(1, 7)).tolist()

    return [
        PairwiseExample(
            id=f"p{i}",
            pair_id=f"p{i}",
            as_given=ids(),
            exchanged=ids(),
            letters=LETTERS,
            probability_a=(1.0, 0.0, 0.5)[i % 3],
            is_certain=i % 4 > 0,
        )
        for i in range(count)
    ]


@jax.jit
def logits_of(model, tokens):
    positions = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
    return model.unembed_hidden(hidden_states(model, tokens, positions, jnp.ones_like(tokens)))[0]


def letter_log_odds(model, ids: list[int]) -> float:
    """Returns the log-odds of the first letter after a prompt that is alone in its row, in float64."""
    logits = np.asarray(logits_of(model, np.asarray([ids + [0] * (8 - len(ids))], np.int32)), np.float64)
    return float(logits[len(ids) - 1, LETTERS[0]] - logits[len(ids) - 1, LETTERS[1]])


def plain_loss(model, given: list[PairwiseExample], lean_penalty: float, exponent: float) -> float:
    losses = []
    for pair in given:
        first, second = (letter_log_odds(model, ids) for ids in (pair.as_given, pair.exchanged))
        decision, lean = (first - second) / 2, (first + second) / 2
        probability = 1 / (1 + np.exp(-decision))
        wanted = pair.probability_a
        loss = -wanted * np.log(probability) - (1 - wanted) * np.log(1 - probability)
        if exponent and not pair.is_certain:
            loss = (1 - np.exp(-loss) ** exponent) / exponent
        losses.append(loss + lean_penalty * lean**2)
    return float(np.mean(losses))


@functools.cache
def one_update(chosen, shape=(1, 1, 1), count=12):
    return update_once(PairwiseBatches(pairs(count), chosen, 0, 1), chosen, shape)


@pytest.mark.parametrize(("lean_penalty", "exponent"), [(0.0, 0.0), (0.3, 0.7), (0.0, 1.0)])
def test_the_loss_is_that_of_a_plain_computation(lean_penalty, exponent):
    chosen = dataclasses.replace(PLAIN, lean_penalty=lean_penalty, noise_exponent=exponent)
    with jax.set_mesh(one_device()):
        wanted = plain_loss(tiny_model(one_device()), pairs(12), lean_penalty, exponent)
    assert one_update(chosen)[0] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(("shape", "micro_rows"), [((1, 1, 1), 2), ((1, 4, 2), 4)])
def test_accumulation_and_meshes_change_nothing(shape, micro_rows):
    loss, moments = one_update(dataclasses.replace(PLAIN, micro_rows=micro_rows), shape)
    wanted, plain = one_update(PLAIN)
    assert loss == pytest.approx(wanted, rel=1e-5)
    for a, b in zip(moments, plain, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


def test_both_letters_are_predicted_after_the_opening():
    batches = PairwiseBatches(pairs(12), dataclasses.replace(PLAIN, loss_chunk=5), 0, 1)
    batch = batches.batch(0)
    for index, row in enumerate(batches.rows(0)):
        ends = np.flatnonzero(np.isin(batch["tokens"][index], LETTERS[0]))
        at, ids = batch["target_at"][index], batch["target_ids"][index]
        start = 0
        for number, (prompt, _) in enumerate(seq for example in row for seq in example.sequences):
            last = start + len(prompt) - 1
            assert at[2 * number : 2 * number + 2].tolist() == [last, last]
            assert ids[2 * number : 2 * number + 2].tolist() == LETTERS
            assert last + 1 in ends
            start += len(prompt) + 2


def test_decisions_change_their_sign_with_the_order_and_leans_do_not():
    losses = np.random.default_rng(0).random((3, 9), np.float32)
    swapped = losses.copy()
    swapped[:, :4], swapped[:, 4:8] = losses[:, [2, 3, 0, 1]], losses[:, [6, 7, 4, 5]]
    one, other = decisions(jnp.asarray(losses), 2), decisions(jnp.asarray(swapped), 2)
    np.testing.assert_array_equal(one.log_odds, -other.log_odds)
    np.testing.assert_array_equal(one.lean, other.lean)


@pytest.mark.parametrize(
    ("probability", "certain", "wanted"),
    [(1.0, 1.0, 0.126928), (0.0, 1.0, 2.126928), (0.5, 1.0, 1.126928), (0.0, 0.0, 1.106240)],
)
def test_a_fixed_pair_has_the_loss_computed_by_hand(probability, certain, wanted):
    """Log-odds 3 as given and -1 exchanged: the decision is 2, the lean 1; softplus(-2) = 0.126928.

    The generalized cross-entropy of 2.126928 is (1 - exp(-0.7 * 2.126928)) / 0.7 = 1.106240.
    """
    losses = jnp.asarray([[1.0, 4.0, 2.0, 1.0]], jnp.float32)
    one = jnp.ones((1, 1), jnp.float32)
    batch = {"probability_a": one * probability, "is_certain": one * certain, "pair_weights": one}
    chosen = dataclasses.replace(PLAIN, noise_exponent=0.7)
    assert float(pairwise_loss(losses, batch, chosen, jnp.float32(1.0))) == pytest.approx(wanted, rel=1e-5)
    leaning = dataclasses.replace(chosen, lean_penalty=0.5)
    found = float(pairwise_loss(losses, batch, leaning, jnp.float32(1.0)))
    assert found == pytest.approx(wanted + 0.5, rel=1e-5)


def test_an_empty_micro_batch_adds_nothing():
    losses = jnp.zeros((2, 8), jnp.float32)
    nothing = jnp.zeros((2, 2), jnp.float32)
    batch = {"probability_a": nothing, "is_certain": nothing, "pair_weights": nothing}
    assert float(pairwise_loss(losses, batch, PLAIN, jnp.float32(1.0))) == 0.0


@pytest.mark.parametrize(
    ("name", "value"), [("noise_exponent", 1.5), ("noise_exponent", -0.1), ("lean_penalty", -1.0)]
)
def test_settings_out_of_range_are_refused(name, value):
    with raises("config_invalid", name):
        dataclasses.replace(PLAIN, **{name: value})
