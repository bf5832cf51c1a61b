import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ste_jax.decode.sampling import draw, draw_from_mass, nucleus_threshold
from ste_jax.randomness import key_data

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


@pytest.mark.parametrize("vocab", [5, 300, 49152])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.999])
def test_the_nucleus_is_that_of_a_sort(vocab, top_p):
    logits = np.random.default_rng(vocab).normal(scale=3, size=(1, 4, vocab))
    mass = jnp.asarray(np.exp(logits - logits.max(-1, keepdims=True)), jnp.float32)
    threshold = np.asarray(nucleus_threshold(mass, jnp.float32(top_p)))
    for i in range(4):
        kept = np.asarray(mass)[0, i] >= threshold[0, i]
        wanted = _nucleus(logits[0, i], 1.0, top_p) > 0
        # Float32 sums may put the border one token further; nothing else may differ.
        assert abs(int(kept.sum()) - int(wanted.sum())) <= 1
        assert (kept & wanted).sum() == min(kept.sum(), wanted.sum())


def test_top_p_of_one_keeps_everything():
    mass = jnp.asarray([[[1.0, 1e-3, 1e-6, 0.5]]], jnp.float32)
    assert np.asarray(nucleus_threshold(mass, jnp.float32(1.0)))[0, 0] <= 1e-6


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.9), (1.6, 0.6)])
def test_frequencies_follow_the_exact_distribution(temperature, top_p):
    n, vocab = 20_000, 700
    logits = np.random.default_rng(1).normal(scale=2, size=vocab)
    keys = np.stack([key_data(0, "test", "r", i) for i in range(n)])[None]
    drawn = jax.jit(draw)(
        jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (1, n, vocab)),
        jnp.asarray(keys),
        jnp.zeros((1, n), jnp.int32),
        jnp.float32(temperature),
        jnp.float32(top_p),
    )
    counts = np.bincount(np.asarray(drawn)[0], minlength=vocab)
    expected = _nucleus(logits, temperature, top_p) * n
    assert counts[expected == 0].sum() == 0
    common = expected >= 10
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    keep = wanted > 0
    assert stats.chisquare(observed[keep], wanted[keep]).pvalue > 1e-4


def test_temperature_zero_takes_the_most_likely_token():
    logits = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3, 50)), jnp.float32)
    keys, positions = jnp.zeros((2, 3, 2), jnp.uint32), jnp.zeros((2, 3), jnp.int32)
    drawn = draw(logits, keys, positions, jnp.float32(0.0), jnp.float32(0.9))
    np.testing.assert_array_equal(drawn, jnp.argmax(logits, axis=-1))


def test_excluded_tokens_are_never_drawn():
    mass = jnp.zeros((1, 1, 1000), jnp.float32).at[0, 0, jnp.array([3, 999])].set(jnp.array([0.2, 1.0]))
    drawn = [
        int(draw_from_mass(mass, jnp.full((1, 1), u, jnp.float32))[0, 0]) for u in (0.0, 0.1, 0.2, 0.9999999)
    ]
    assert drawn == [3, 3, 999, 999]
