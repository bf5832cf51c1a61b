"""A tiny random model, its engine, and requests to it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ste_jax.decode.engine import DecodeSettings, Engine
from ste_jax.decode.protocol import Request, Sampling
from ste_jax.models.llama import Llama, LlamaConfig, hidden_states, initialize
from ste_jax.randomness import key_data
from ste_jax.sharding import DECODE, make_mesh

STOP = 5
CFG = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_layers=3,
    num_heads=8,
    num_kv_heads=4,
    head_dim=8,
    context_length=128,
    tie_embeddings=True,
)
SETTINGS = DecodeSettings(
    sequences=12,
    prefix_tokens=256,
    prefill_tokens=64,
    buckets=(16, 64),
    decode_steps_per_sync=8,
    suffix_chunk=16,
    samples_per_slot=3,
)
SAMPLED = Sampling(0.7, 0.9)

ModelOnMesh = tuple[Llama, jax.sharding.Mesh]


def tiny_model(shape: tuple[int, int, int] = (1, 1, 1)) -> ModelOnMesh:
    """Returns a random model on a mesh of the fake devices."""
    mesh = make_mesh(shape)
    with jax.set_mesh(mesh):
        make = jax.jit(lambda key: initialize(CFG, DECODE, key, param_dtype="float32", dtype="float32"))
        model = make(jax.random.key(0))
    # Weights of the usual size hardly move the logits of so small a model.
    return jax.tree.map(lambda x: x * 3, model), mesh


def tiny_engine(model: ModelOnMesh, stop: Sequence[int] = (STOP,), **changes: Any) -> Engine:
    """Returns an engine with these settings changed."""
    return Engine(*model, dataclasses.replace(SETTINGS, **changes), stop)


def tiny_requests(n: int = 4, count: int = 20, new: int = 20) -> list[Request]:
    """Returns requests for n samples of new tokens, with prompts of 1 to 39 tokens."""
    rng = np.random.default_rng(0)
    prompts = [tuple(rng.integers(6, 64, rng.integers(1, 40)).tolist()) for _ in range(count)]
    return [
        Request(str(i), p, np.stack([key_data(0, "t", str(i), s) for s in range(n)]), new)
        for i, p in enumerate(prompts)
    ]


def forward_logits(
    model: ModelOnMesh, rows: Sequence[Sequence[int]], length: int = CFG.context_length
) -> np.ndarray:
    """Returns the float32 logits [rows, length, V] of the full forward pass over padded rows."""
    with jax.set_mesh(model[1]):
        tokens = jnp.asarray([[*row, *[0] * (length - len(row))] for row in rows], jnp.int32)
        return np.asarray(_forward(model[0], tokens))


@jax.jit
def _forward(model: Llama, tokens: jax.Array) -> jax.Array:
    spec = DECODE.spec("batch", None)
    tokens = jax.sharding.reshard(tokens, spec)
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32)[None], tokens.shape)
    positions = jax.sharding.reshard(positions, spec)
    hidden = hidden_states(model, tokens, positions, jnp.ones_like(tokens))
    return model.unembed_hidden(hidden)
