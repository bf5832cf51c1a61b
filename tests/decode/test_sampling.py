import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ste_jax.checkpoint.source import open_model
from ste_jax.decode.sampling import draw
from ste_jax.models.llama import hidden_states
from ste_jax.randomness import key_data
from ste_jax.sharding import DECODE, make_mesh

pytestmark = pytest.mark.usefixtures("one_device")


def _nucleus(logits: np.ndarray, temperature: float, top_p: float) -> np.ndarray:
    """The tempered, cut and renormalised distribution, by sorting."""
    p = np.exp((logits - logits.max()) / temperature)
    p /= p.sum()
    order = np.argsort(-p)
    size = int(np.searchsorted(np.cumsum(p[order]), top_p)) + 1
    kept = np.zeros_like(p)
    kept[order[:size]] = p[order[:size]]
    return kept / kept.sum()


def _draws(logits, n, temperature, top_p, record="r"):
    """`n` draws from one distribution, each with a key of its own."""
    keys = np.stack([key_data(0, "test", record, i) for i in range(n)])[None]
    drawn = jax.jit(draw)(
        jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (1, n, len(logits))),
        jnp.asarray(keys),
        jnp.zeros((1, n), jnp.int32),
        jnp.float32(temperature),
        jnp.float32(top_p),
    )
    return np.asarray(drawn)[0]


def _check_frequencies(logits, drawn, temperature, top_p):
    counts = np.bincount(drawn, minlength=len(logits))
    expected = _nucleus(logits, temperature, top_p) * len(drawn)
    assert counts[expected == 0].sum() == 0
    common = expected >= 10
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    keep = wanted > 0
    assert keep.sum() > 3
    assert stats.chisquare(observed[keep], wanted[keep]).pvalue > 1e-4


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (1.6, 0.6)])
def test_frequencies_follow_the_exact_distribution(temperature, top_p):
    logits = np.random.default_rng(1).normal(scale=2, size=700)
    _check_frequencies(logits, _draws(logits, 20_000, temperature, top_p), temperature, top_p)


@pytest.fixture(scope="module")
def real_logits(smollm2_path) -> np.ndarray:
    """Logits [vocab] of the real model after a few words."""
    source = open_model(str(smollm2_path))
    ids = jnp.asarray([source.tokenizer.encode_plain("In the garden there was a")], jnp.int32)
    positions = jnp.arange(ids.shape[1], dtype=jnp.int32)[None]
    with jax.set_mesh(make_mesh((1, 1, 1), jax.devices()[:1])):
        model = source.load(DECODE, jax.sharding.get_mesh(), param_dtype="float32", dtype="float32")
        hidden = jax.jit(hidden_states)(model, ids, positions, jnp.ones_like(ids))
        return np.asarray(model.unembed_hidden(hidden))[0, -1]


@pytest.mark.optimized
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 0.9), (2.0, 0.5)])
def test_frequencies_on_the_vocabulary_of_the_real_model(real_logits, temperature, top_p):
    assert real_logits.shape == (49152,)
    drawn = np.concatenate([_draws(real_logits, 1_000, temperature, top_p, record=str(i)) for i in range(8)])
    _check_frequencies(real_logits.astype(np.float64), drawn, temperature, top_p)


@pytest.mark.parametrize("shape", [(1, 1, 8), (2, 1, 4)])
def test_a_vocabulary_on_several_devices_gives_the_same_draws(shape):
    logits = np.random.default_rng(5).normal(scale=2, size=(2, 50, 4000)).astype(np.float32)
    keys = np.stack([key_data(0, "test", "r", i) for i in range(100)]).reshape(2, 50, 2)
    arguments = (keys, np.zeros((2, 50), np.int32))

    def drawn(mesh, temperature):
        with jax.set_mesh(mesh):
            specs = [DECODE.spec("batch", None, name) for name in ("vocab", None)] + [
                DECODE.spec("batch", None)
            ]
            placed = [
                jax.device_put(x, jax.NamedSharding(mesh, spec))
                for x, spec in zip((logits, *arguments), specs, strict=True)
            ]
            return np.asarray(jax.jit(draw)(*placed, jnp.float32(temperature), jnp.float32(0.9)))

    one = make_mesh((1, 1, 1), jax.devices()[:1])
    for temperature in (0.0, 0.7):
        np.testing.assert_array_equal(drawn(make_mesh(shape), temperature), drawn(one, temperature))


def test_what_is_not_a_number_ends_the_draw():
    assert _draws(np.full(300, np.nan), 3, 0.7, 0.9).shape == (3,)


def test_temperature_zero_takes_the_most_likely_token():
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3, 50)), jnp.float32)
    keys, positions = jnp.zeros((2, 3, 2), jnp.uint32), jnp.zeros((2, 3), jnp.int32)
    drawn = draw(logits, keys, positions, jnp.float32(0.0), jnp.float32(0.9))
    np.testing.assert_array_equal(drawn, jnp.argmax(logits, axis=-1))


def test_excluded_tokens_are_never_drawn():
    logits = np.full(1000, -np.inf)
    logits[[3, 999]] = 0.0, 1.0
    assert set(_draws(logits, 200, 1.0, 1.0).tolist()) == {3, 999}
