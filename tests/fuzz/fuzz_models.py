"""Readers of models: configurations, weights, tokenizers, templates, cards and calibrations."""

import functools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tokenizers
from hypothesis import strategies as st
from safetensors.numpy import save as save_safetensors

from ste_jax.checkpoint.card import ModelCard
from ste_jax.checkpoint.folder import PartialModelFolder
from ste_jax.checkpoint.hf import read_architecture
from ste_jax.checkpoint.source import open_model, read_card
from ste_jax.judging.calibration import fit_calibration, read_calibration
from ste_jax.judging.prompts import BUILT_IN
from ste_jax.models.llama import LlamaConfig
from ste_jax.text.chat import Message, encode_chat
from ste_jax.text.tokenizer import load_tokenizer
from tests.fuzz.fuzz_inputs import as_json, changed_bytes, damaged
from tests.fuzz.fuzz_reader import Reader

_HF_CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 272,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}


@functools.cache
def _tensors() -> dict[str, np.ndarray]:
    layer = "model.layers.0"
    shapes = {
        "model.embed_tokens.weight": (272, 16),
        "model.norm.weight": (16,),
        f"{layer}.input_layernorm.weight": (16,),
        f"{layer}.post_attention_layernorm.weight": (16,),
        f"{layer}.self_attn.q_proj.weight": (16, 16),
        f"{layer}.self_attn.k_proj.weight": (8, 16),
        f"{layer}.self_attn.v_proj.weight": (8, 16),
        f"{layer}.self_attn.o_proj.weight": (16, 16),
        f"{layer}.mlp.gate_proj.weight": (24, 16),
        f"{layer}.mlp.up_proj.weight": (24, 16),
        f"{layer}.mlp.down_proj.weight": (16, 24),
    }
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


_TEMPLATE = "{% for m in messages %}<turn>{{ m['role'] }}\n{{ m['content'] }}<eos>{% endfor %}"
_TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": "<bos>",
    "eos_token": "<eos>",
    "chat_template": _TEMPLATE,
}


@functools.cache
def _tokenizer_json() -> str:
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=270,
        special_tokens=["<bos>", "<eos>", "<turn>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["the river and the rose and the other river"] * 3, trainer)
    return backend.to_str()


def _write_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text(_tokenizer_json())
    (folder / "tokenizer_config.json").write_text(json.dumps(_TOKENIZER_CONFIG))
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 2]}')


def write_model(folder: Path, context: int = 128) -> None:
    """Writes a Hugging Face folder of a small Llama, whose weights are all one."""
    _write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(_HF_CONFIG | {"max_position_embeddings": context}))
    (folder / "model.safetensors").write_bytes(save_safetensors(_tensors()))


def _encode(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.encode_plain("the river <eos>")
    if tokenizer.chat_template is not None:
        encode_chat(tokenizer, [Message("user", "the river <eos>")])


def _open(folder: Path) -> None:
    source = open_model(folder)
    source.tokenizer.encode_plain("the river")
    source.origin()


@functools.cache
def _gguf() -> bytes:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "m.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        numbers_ = {
            "llama.block_count": 1,
            "llama.context_length": 128,
            "llama.embedding_length": 16,
            "llama.feed_forward_length": 24,
            "llama.attention.head_count": 2,
            "llama.attention.head_count_kv": 1,
        }
        for key, value in numbers_.items():
            writer.add_uint32(key, value)
        writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
        vocabulary = json.loads(_tokenizer_json())["model"]["vocab"]
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_list(sorted(vocabulary, key=vocabulary.__getitem__))
        writer.add_token_types([3 if i < 3 else 1 for i in range(len(vocabulary))])
        merges = json.loads(_tokenizer_json())["model"]["merges"]
        writer.add_token_merges([" ".join(merge) for merge in merges])
        writer.add_eos_token_id(1)
        writer.add_bos_token_id(0)
        writer.add_chat_template(_TEMPLATE)
        names = {
            "model.embed_tokens": "token_embd",
            "model.norm": "output_norm",
            "input_layernorm": "blk.0.attn_norm",
            "post_attention_layernorm": "blk.0.ffn_norm",
            "self_attn.q_proj": "blk.0.attn_q",
            "self_attn.k_proj": "blk.0.attn_k",
            "self_attn.v_proj": "blk.0.attn_v",
            "self_attn.o_proj": "blk.0.attn_output",
            "mlp.gate_proj": "blk.0.ffn_gate",
            "mlp.up_proj": "blk.0.ffn_up",
            "mlp.down_proj": "blk.0.ffn_down",
        }
        for name, array in _tensors().items():
            short = name.removeprefix("model.layers.0.").removesuffix(".weight")
            rows = len(vocabulary) if "embed" in name else len(array)
            writer.add_tensor(f"{names[short]}.weight", array[:rows])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def _card() -> dict[str, Any]:
    cfg = LlamaConfig(
        vocab_size=272,
        hidden_size=16,
        intermediate_size=24,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        context_length=128,
    )
    prompt = BUILT_IN["short"].to_json()
    return ModelCard("m", cfg, "0" * 64, (1,), judge_prompt=prompt, parser="last-verdict-1").to_json()


def _calibration() -> dict[str, Any]:
    fitted = fit_calibration(
        [float(i % 7 - 3) for i in range(60)],
        [i % 3 > 0 for i in range(60)],
        [str(i) for i in range(60)],
        settings={"votes": 1},
        seed=0,
    )
    return fitted.to_dict()


def _read_calibration(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STE_DATA_HOME", str(folder))
        read_calibration("f")


def _convert_state(folder: Path) -> None:
    partial = PartialModelFolder(folder / "m", "origin")
    partial.close()


def readers() -> Iterator[Reader]:
    """Yields the readers of this module."""
    config = damaged(_HF_CONFIG, as_json)
    yield Reader("hf_config", "config.json", config, lambda f: read_architecture(f / "config.json"))
    header = save_safetensors(_tensors())
    yield Reader("safetensors", "model.safetensors", changed_bytes(header), _open, write_model)
    yield Reader("safetensors_header", "model.safetensors", _headers(), _open, write_model)
    for file, document in (
        ("tokenizer.json", json.loads(_tokenizer_json())),
        ("tokenizer_config.json", _TOKENIZER_CONFIG),
        ("generation_config.json", {"eos_token_id": [1, 2]}),
    ):
        yield Reader(f"tokenizer_{file}", file, damaged(document, as_json), _encode, _write_tokenizer)
    template = changed_bytes(_TEMPLATE.encode())
    yield Reader("template", "chat_template.jinja", template, _encode, _write_tokenizer, names=False)
    yield Reader("gguf", "m.gguf", changed_bytes(_gguf()), lambda f: _open(f / "m.gguf"))
    yield Reader("card", "model.json", damaged(_card(), as_json), read_card)
    yield Reader("calibration", "calibration/f.json", damaged(_calibration(), as_json), _read_calibration)
    state = {"origin": "origin", "done": {"embed": "hash"}}
    yield Reader("conversion", "m.partial/conversion.json", damaged(state, as_json), _convert_state)


@st.composite
def _headers(draw: st.DrawFn) -> bytes:
    """Draws a safetensors file whose header was changed and is of the length that it states."""
    content = save_safetensors(_tensors())
    length = int.from_bytes(content[:8], "little")
    header = draw(damaged(json.loads(content[8 : 8 + length]), as_json))
    return len(header).to_bytes(8, "little") + header + content[8 + length :]
