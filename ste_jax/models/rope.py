"""Rotary position embeddings, with linear scaling and the frequency scaling of Llama 3.1."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ste_jax.errors import SteError


@dataclasses.dataclass(frozen=True)
class RopeScaling:
    """Frequency scaling of Llama 3.1.

    Attributes:
      factor: Divisor of low frequencies.
      low_freq_factor: Wavelengths above original_context / low_freq_factor are scaled.
      high_freq_factor: Wavelengths below original_context / high_freq_factor are not scaled; those between
        are interpolated.
      original_context: Context length before the scaling.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_context: int

    def __post_init__(self):
        if self.high_freq_factor <= self.low_freq_factor:
            raise SteError(
                "model_invalid",
                f"model: the rope scaling's high_freq_factor ({self.high_freq_factor}) must be above its "
                f"low_freq_factor ({self.low_freq_factor})",
            )


@dataclasses.dataclass(frozen=True)
class LinearScaling:
    """Linear scaling ("position interpolation"), the rope type "linear".

    Attributes:
      factor: Divisor of all frequencies.
    """

    factor: float


Scaling = RopeScaling | LinearScaling


def rope_frequencies(head_dim: int, theta: float, scaling: Scaling | None) -> np.ndarray:
    """Returns the angular frequencies, float32 [H/2], computed in float64.

    The scaling is the rope type "linear", or "llama3" of the Llama 3.1 release.
    """
    frequencies = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    if isinstance(scaling, LinearScaling):
        frequencies = frequencies / scaling.factor
    elif scaling is not None:
        turns = scaling.original_context * frequencies / (2 * np.pi)
        blend = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        blend = np.clip(blend, 0.0, 1.0)
        frequencies = frequencies * (blend + (1.0 - blend) / scaling.factor)
    return frequencies.astype(np.float32)


def rope_tables(
    positions: jax.Array, head_dim: int, theta: float, scaling: Scaling | None
) -> tuple[jax.Array, jax.Array]:
    """Returns (cos, sin), float32 [B, T, H/2], of int32 positions [B, T]."""
    frequencies = jnp.asarray(rope_frequencies(head_dim, theta, scaling))
    angles = positions.astype(jnp.float32)[..., None] * frequencies[None, None, :]
    return jnp.cos(angles), jnp.sin(angles)


def apply_rope(x: jax.Array, tables: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Returns x with the two halves of its last axis rotated, as in Hugging Face's layout.

    Args:
      x: Array [B, T, ..., H]; the result has its shape and dtype.
      tables: Cosines and sines, float32 [B, T, H/2].
    """
    middle = (1,) * (x.ndim - 3)
    cos, sin = (t.reshape(t.shape[:2] + middle + (1, t.shape[2])) for t in tables)
    halves = x.astype(jnp.float32).reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
    # Flipping the halves and changing a sign fuses into one pass; splitting and concatenating would copy.
    sign = jnp.array([[-1.0], [1.0]], jnp.float32).reshape((1,) * (x.ndim - 1) + (2, 1))
    rotated = halves * cos + jnp.flip(halves, axis=-2) * (sin * sign)
    return rotated.reshape(x.shape).astype(x.dtype)
