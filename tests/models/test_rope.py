import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import LlamaConfig as HfConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from ste_jax.models.rope import RopeScaling, apply_rope, rope_frequencies, rope_tables

SCALING = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192)


def hf_rotary(head_dim: int, theta: float, scaling: RopeScaling | None) -> LlamaRotaryEmbedding:
    rope = {"rope_theta": theta, "rope_type": "default"}
    if scaling is not None:
        rope |= {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_context,
        }
    config = HfConfig(
        hidden_size=4 * head_dim,
        num_attention_heads=4,
        head_dim=head_dim,
        max_position_embeddings=131072,
        rope_parameters=rope,
    )
    return LlamaRotaryEmbedding(config)


@pytest.mark.parametrize("scaling", [None, SCALING, RopeScaling(32.0, 1.0, 4.0, 8192)])
@pytest.mark.parametrize(("head_dim", "theta"), [(128, 500_000.0), (64, 100_000.0), (64, 10_000.0)])
def test_frequencies_equal_transformers(head_dim: int, theta: float, scaling: RopeScaling | None) -> None:
    reference = hf_rotary(head_dim, theta, scaling).inv_freq.numpy()
    np.testing.assert_allclose(rope_frequencies(head_dim, theta, scaling), reference, rtol=2e-6)


def test_plain_frequencies_by_hand() -> None:
    np.testing.assert_allclose(rope_frequencies(4, 100.0, None), [1.0, 0.1], rtol=1e-7)


def test_scaling_keeps_high_frequencies_and_stretches_low_ones() -> None:
    plain, scaled = (rope_frequencies(128, 500_000.0, s) for s in (None, SCALING))
    wavelength = 2 * np.pi / plain
    high, low = wavelength < 8192 / 4, wavelength > 8192
    np.testing.assert_array_equal(scaled[high], plain[high])
    np.testing.assert_allclose(scaled[low], plain[low] / 8, rtol=1e-6)
    between = ~high & ~low
    assert between.any()
    assert ((scaled < plain) & (scaled > plain / 8))[between].all()


@pytest.mark.parametrize(
    "change",
    [{"factor": 4.0}, {"low_freq_factor": 2.0}, {"high_freq_factor": 8.0}, {"original_context": 4096}],
)
def test_every_field_of_the_scaling_counts(change: dict[str, float]) -> None:
    found = rope_frequencies(128, 500_000.0, SCALING)
    assert (found != rope_frequencies(128, 500_000.0, dataclasses.replace(SCALING, **change))).any()


def test_tables_equal_transformers_far_into_the_context() -> None:
    positions = np.array([[0, 1, 17, 4095, 8191, 100_000, 131_071]], np.int32)
    cos, sin = rope_tables(jnp.asarray(positions), 64, 500_000.0, SCALING)
    reference = hf_rotary(64, 500_000.0, SCALING)(torch.zeros(1), torch.from_numpy(positions))
    # One unit in the last place of a frequency is an angle of 1e-2 at the far end; near positions must agree.
    for found, other in zip((cos, sin), reference, strict=True):
        np.testing.assert_allclose(found[:, :5], other.numpy()[:, :5, :32], atol=2e-3)
        np.testing.assert_allclose(found, other.numpy()[..., :32], atol=3e-2)


def test_rotation_keeps_lengths_and_shows_only_distances() -> None:
    q, k = (jax.random.normal(jax.random.key(i), (1, 1, 3, 16)) for i in range(2))

    def score(at_q: int, at_k: int) -> jax.Array:
        rotated = [
            apply_rope(x, rope_tables(jnp.array([[at]], jnp.int32), 16, 10_000.0, None))
            for x, at in ((q, at_q), (k, at_k))
        ]
        np.testing.assert_allclose(
            jnp.linalg.norm(rotated[0], axis=-1), jnp.linalg.norm(q, axis=-1), rtol=1e-5
        )
        return jnp.sum(rotated[0] * rotated[1], axis=-1)

    np.testing.assert_allclose(score(7, 3), score(104, 100), atol=1e-4)
    assert np.abs(score(7, 3) - score(7, 4)).max() > 1e-2


def test_queries_with_a_group_axis_rotate_like_keys() -> None:
    tables = rope_tables(jnp.arange(5, dtype=jnp.int32)[None], 8, 10_000.0, None)
    x = jax.random.normal(jax.random.key(0), (1, 5, 2, 3, 8), jnp.bfloat16)
    rotated = apply_rope(x, tables)
    assert rotated.dtype == jnp.bfloat16
    np.testing.assert_array_equal(rotated[:, :, :, 1], apply_rope(x[:, :, :, 1], tables))
