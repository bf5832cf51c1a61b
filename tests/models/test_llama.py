import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from ste_jax.checkpoint.source import open_model
from ste_jax.models.attention import causal_attention
from ste_jax.models.llama import (
    Llama,
    LlamaConfig,
    hidden_states,
    initialize,
    parameter_table,
    rms_norm,
)
from ste_jax.models.rope import RopeScaling
from ste_jax.sharding import TRAIN, make_mesh
from tests.errors import raises

CFG = LlamaConfig(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    context_length=64,
    rope_theta=1000.0,
    rope_scaling=RopeScaling(factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=16),
)
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
# hidden_size / heads is 8 everywhere: head_dim 16 is another one.
HF_CONFIGS = {
    "kv1-tied-wide_heads": {"num_key_value_heads": 1, "tie_word_embeddings": True, "head_dim": 16},
    "kv2-untied-scaled": {"num_key_value_heads": 2, "rope_parameters": LLAMA3_ROPE},
    "kv4-tied-scaled": {
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "rope_parameters": LLAMA3_ROPE,
    },
    "kv4-untied-narrow_heads": {"num_key_value_heads": 4, "head_dim": 4, "rms_norm_eps": 1e-2},
}


@pytest.fixture(scope="module", autouse=True)
def one_device() -> Iterator[jax.sharding.Mesh]:
    mesh = make_mesh((1, 1, 1))
    with jax.set_mesh(mesh):
        yield mesh


@functools.cache
def random_model(cfg: LlamaConfig = CFG, dtype: str = "float32") -> Llama:
    random = np.random.default_rng(0)
    arrays = {
        name: jnp.asarray(random.normal(1.0 if p.std is None else 0.0, 0.2, p.shape), jnp.float32)
        for name, p in parameter_table(cfg).items()
    }
    return Llama(cfg, TRAIN, dtype, arrays)


def random_tokens(vocab_size: int, rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, vocab_size, (rows, length)).astype(np.int32)


def logits(model: Llama, tokens: np.ndarray, positions=None, segments=None, **how) -> np.ndarray:
    count = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    positions = count if positions is None else positions
    segments = np.ones_like(tokens) if segments is None else segments

    @jax.jit
    def run(model: Llama, *inputs: jax.Array) -> jax.Array:
        return model.unembed_hidden(hidden_states(model, *inputs, **how))

    return np.asarray(run(model, *(jnp.asarray(x, jnp.int32) for x in (tokens, positions, segments))))


def layer_by_layer(model: Llama, tokens: np.ndarray) -> list[np.ndarray]:
    """The hidden states after the embedding and after each layer, by a model of one layer at a time."""
    cfg = dataclasses.replace(model.cfg, num_layers=1)
    segments = jnp.ones(tokens.shape, jnp.int32)
    positions = jnp.cumsum(segments, axis=1) - 1

    @jax.jit
    def run(layer: Llama, x: jax.Array) -> jax.Array:
        return layer.run_layers(x, positions, lambda q, k, v, _: causal_attention(q, k, v, segments))[0]

    states = [model.embed_tokens(jnp.asarray(tokens))]
    for i in range(model.cfg.num_layers):
        layer = Llama(cfg, TRAIN, model.dtype, arrays_of(model, slice(i, i + 1)))
        states.append(run(layer, states[-1]))
    return [np.asarray(x) for x in [*states[:-1], model.normalize(states[-1])]]


def arrays_of(model: Llama, layers: slice) -> dict[str, jax.Array]:
    blocks = {name: getattr(model.blocks, name.removeprefix("blocks.")) for name in BLOCK_NAMES}
    arrays = {name: param[layers] for name, param in blocks.items()}
    arrays |= {"embed": model.embed[...], "final_norm": model.final_norm[...]}
    return arrays if model.unembed is None else arrays | {"unembed": model.unembed[...]}


BLOCK_NAMES = [name for name in parameter_table(CFG) if name.startswith("blocks.")]


def check_parity(model: Llama, hf: transformers.LlamaForCausalLM, tokens: np.ndarray) -> None:
    with torch.no_grad():
        reference = hf(torch.from_numpy(tokens).long(), output_hidden_states=True)
    states = layer_by_layer(model, tokens)
    assert len(states) == len(reference.hidden_states) == model.cfg.num_layers + 1
    for i, (found, other) in enumerate(zip(states, reference.hidden_states, strict=True)):
        scale = max(1.0, np.abs(other.numpy()).max())
        assert np.abs(found - other.numpy()).max() < 1e-4 * scale, f"after layer {i}"
    other = reference.logits.numpy()
    assert np.abs(other).max() > 1.0
    assert np.abs(logits(model, tokens) - other).max() < 1e-3


@pytest.mark.parametrize("name", HF_CONFIGS)
def test_parity_with_transformers_on_random_models(
    name: str, tmp_path: Path, one_device: jax.sharding.Mesh
) -> None:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=96,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.2,
        **HF_CONFIGS[name],
    )
    hf = transformers.LlamaForCausalLM(config).eval()
    for key, weight in hf.named_parameters():
        if "norm" in key:
            torch.nn.init.normal_(weight, mean=1.0, std=0.2)
    hf.save_pretrained(tmp_path)
    model = open_model(tmp_path).load(TRAIN, one_device, param_dtype="float32", dtype="float32")
    check_parity(model, hf, random_tokens(96, 2, 48))


@pytest.mark.optimized
def test_parity_with_transformers_on_smollm2(smollm2_path: Path, one_device: jax.sharding.Mesh) -> None:
    source = open_model(smollm2_path)
    model = source.load(TRAIN, one_device, param_dtype="float32", dtype="float32")
    hf = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2_path.parent, gguf_file=smollm2_path.name, dtype=torch.float32
    )
    text = (
        "The capital of France is Paris. In 1969 two people walked on the moon, and a third one waited above."
    )
    tokens = np.array([source.tokenizer.encode_plain(text)], np.int32)
    check_parity(model, hf, tokens)
    best = logits(model, tokens)[0].argmax(-1)
    capital = len(source.tokenizer.encode_plain("The capital of France is"))
    assert source.tokenizer.decode([best[capital - 1]]) == " Paris"


def test_packed_rows_equal_separate_ones() -> None:
    tokens = random_tokens(CFG.vocab_size, 1, 16)
    segments = np.array([[1] * 6 + [2] * 7 + [0] * 3], np.int32)
    positions = np.array([[*range(6), *range(7), 0, 0, 0]], np.int32)
    packed = logits(random_model(), tokens, positions, segments)
    np.testing.assert_allclose(packed[:, :6], logits(random_model(), tokens[:, :6]), atol=1e-4)
    np.testing.assert_allclose(packed[:, 6:13], logits(random_model(), tokens[:, 6:13]), atol=1e-4)


def test_later_tokens_change_nothing_before_them() -> None:
    tokens = random_tokens(CFG.vocab_size, 1, 12)
    changed = tokens.copy()
    changed[0, 7] = (changed[0, 7] + 1) % CFG.vocab_size
    before, after = logits(random_model(), tokens), logits(random_model(), changed)
    np.testing.assert_array_equal(before[:, :7], after[:, :7])
    assert (before[:, 7:] != after[:, 7:]).any(axis=-1).all()


@pytest.mark.parametrize(
    "change",
    [
        {"rope_theta": 2000.0},
        {"rope_scaling": None},
        {"rope_scaling": dataclasses.replace(CFG.rope_scaling, factor=2.0)},
        {"rms_norm_eps": 1e-2},
    ],
    ids=str,
)
def test_numeric_fields_of_the_config_count(change: dict[str, object]) -> None:
    tokens = random_tokens(CFG.vocab_size, 1, 32)
    other = random_model(dataclasses.replace(CFG, **change))
    assert np.abs(logits(other, tokens) - logits(random_model(), tokens)).max() > 1e-3


def test_bfloat16_compute_keeps_float32_logits_and_stays_near() -> None:
    tokens = random_tokens(CFG.vocab_size, 2, 16)
    low, full = logits(random_model(dtype="bfloat16"), tokens), logits(random_model(), tokens)
    assert low.dtype == np.float32
    error = np.abs(low - full).max()
    assert 0.0 < error < 0.05 * np.abs(full).max()


def test_rms_norm_by_hand() -> None:
    x = jnp.array([[[3.0, 4.0]]], jnp.bfloat16)
    out = rms_norm(x, jnp.array([1.0, 2.0]), 0.0)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), [[[3 / 12.5**0.5, 8 / 12.5**0.5]]], rtol=1e-2)


def test_attention_of_the_first_position_is_its_value() -> None:
    q, k = (jax.random.normal(jax.random.key(i), (1, 4, 2, 8)) for i in range(2))
    v = jax.random.normal(jax.random.key(2), (1, 4, 2, 8))
    out = causal_attention(q[:, :, :, None], k, v, jnp.array([[1, 1, 2, 2]], jnp.int32))
    np.testing.assert_allclose(out[:, ::2, :, 0], v[:, ::2], rtol=1e-6)
    assert np.abs(out[:, 3, :, 0] - v[:, 3]).max() > 1e-2


def test_initialize_follows_the_table() -> None:
    cfg = dataclasses.replace(CFG, tie_embeddings=True, vocab_size=512)
    model = initialize(cfg, TRAIN, jax.random.key(0), param_dtype="bfloat16", dtype="bfloat16")
    assert model.unembed is None
    leaves = jax.tree.leaves(model)
    assert sum(leaf.size for leaf in leaves) == cfg.parameter_count
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("bfloat16")}
    assert float(jnp.std(model.embed[...].astype(jnp.float32))) == pytest.approx(0.02, rel=0.05)
    assert (model.blocks.mlp_norm[...] == 1).all()


def test_config_json_round_trip() -> None:
    assert LlamaConfig.from_json(CFG.to_json()) == CFG
    plain = dataclasses.replace(CFG, rope_scaling=None)
    assert LlamaConfig.from_json(plain.to_json()) == plain


@pytest.mark.parametrize(
    ("change", "name"), [({"num_kv_heads": 3}, "kv heads"), ({"head_dim": 7}, "head_dim")]
)
def test_impossible_configs_are_refused(change: dict[str, int], name: str) -> None:
    with raises("model_invalid", name):
        dataclasses.replace(CFG, **change)


def test_gradients_reach_every_parameter() -> None:
    tokens = jnp.asarray(random_tokens(CFG.vocab_size, 2, 8))
    ones = jnp.ones_like(tokens)
    run: Callable = jax.jit(
        jax.grad(lambda m: jnp.mean(m.unembed_hidden(hidden_states(m, tokens, ones, ones)) ** 2))
    )
    for path, gradient in jax.tree_util.tree_leaves_with_path(run(random_model())):
        assert np.abs(gradient).max() > 0, jax.tree_util.keystr(path)
