"""Architectures by name; each value is the published `config.json` of that model."""

import re
from typing import Any

from ste_jax.models.llama import LlamaConfig
from ste_jax.models.rope import RopeScaling

_LLAMA_31 = RopeScaling(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192)
_LLAMA_32 = RopeScaling(factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_context=8192)

_8B: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_layers": 32,
    "num_heads": 32,
    "num_kv_heads": 8,
    "head_dim": 128,
}
_70B: dict[str, Any] = {
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_layers": 80,
    "num_heads": 64,
    "num_kv_heads": 8,
    "head_dim": 128,
}
_LLAMA_2: dict[str, Any] = {"vocab_size": 32000, "context_length": 4096}
_LLAMA_3: dict[str, Any] = {"vocab_size": 128256, "context_length": 8192, "rope_theta": 500_000.0}
_LLAMA_3_LONG: dict[str, Any] = {"vocab_size": 128256, "context_length": 131072, "rope_theta": 500_000.0}

PRESETS: dict[str, LlamaConfig] = {
    "llama2_7b": LlamaConfig(
        **_LLAMA_2,
        hidden_size=4096,
        intermediate_size=11008,
        num_layers=32,
        num_heads=32,
        num_kv_heads=32,
        head_dim=128,
    ),
    "llama2_13b": LlamaConfig(
        **_LLAMA_2,
        hidden_size=5120,
        intermediate_size=13824,
        num_layers=40,
        num_heads=40,
        num_kv_heads=40,
        head_dim=128,
    ),
    "llama2_70b": LlamaConfig(**_LLAMA_2, **_70B),
    "llama3_8b": LlamaConfig(**_LLAMA_3, **_8B),
    "llama3_70b": LlamaConfig(**_LLAMA_3, **_70B),
    "llama3.1_8b": LlamaConfig(**_LLAMA_3_LONG, **_8B, rope_scaling=_LLAMA_31),
    "llama3.1_70b": LlamaConfig(**_LLAMA_3_LONG, **_70B, rope_scaling=_LLAMA_31),
    "llama3.1_405b": LlamaConfig(
        **_LLAMA_3_LONG,
        hidden_size=16384,
        intermediate_size=53248,
        num_layers=126,
        num_heads=128,
        num_kv_heads=8,
        head_dim=128,
        rope_scaling=_LLAMA_31,
    ),
    "llama3.2_1b": LlamaConfig(
        **_LLAMA_3_LONG,
        hidden_size=2048,
        intermediate_size=8192,
        num_layers=16,
        num_heads=32,
        num_kv_heads=8,
        head_dim=64,
        rope_scaling=_LLAMA_32,
        tie_embeddings=True,
    ),
    "llama3.2_3b": LlamaConfig(
        **_LLAMA_3_LONG,
        hidden_size=3072,
        intermediate_size=8192,
        num_layers=28,
        num_heads=24,
        num_kv_heads=8,
        head_dim=128,
        rope_scaling=_LLAMA_32,
        tie_embeddings=True,
    ),
    "smollm2_135m": LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        context_length=8192,
        rope_theta=100_000.0,
        tie_embeddings=True,
    ),
    "smollm2_360m": LlamaConfig(
        vocab_size=49152,
        hidden_size=960,
        intermediate_size=2560,
        num_layers=32,
        num_heads=15,
        num_kv_heads=5,
        head_dim=64,
        context_length=8192,
        rope_theta=100_000.0,
        tie_embeddings=True,
    ),
    "smollm2_1.7b": LlamaConfig(
        vocab_size=49152,
        hidden_size=2048,
        intermediate_size=8192,
        num_layers=24,
        num_heads=32,
        num_kv_heads=32,
        head_dim=64,
        context_length=8192,
        rope_theta=130_000.0,
        tie_embeddings=True,
    ),
}


def preset_of(model: str) -> LlamaConfig | None:
    """Returns the architecture that the name of a file or hub repository implies, or None.

    "meta-llama/Meta-Llama-3-70B-Instruct" is "llama3_70b"; Llama 3.3 has the architecture of Llama 3.1.
    """
    found = re.search(r"(llama|smollm)-?(\d(?:\.\d)?)[-_](\d+(?:\.\d)?[bm])", model.split("/")[-1].lower())
    if not found:
        return None
    version = {"3.3": "3.1"}.get(found[2], found[2])
    return PRESETS.get(f"{found[1]}{version}_{found[3]}")
