"""Small models in the formats of others, made for each test by the libraries that define the formats."""

from collections.abc import Callable
from pathlib import Path

import jax
import pytest
import tokenizers
import torch
import transformers

from ste_jax.sharding import make_mesh

SIZES = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}


@pytest.fixture
def hf_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a random Llama with transformers; keyword arguments are fields of its configuration."""

    def make(*, max_shard_size: str = "1GB", dtype: torch.dtype = torch.float32, **fields: object) -> Path:
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**{**SIZES, "initializer_range": 0.2, **fields})
        folder = tmp_path / "hf_model"
        model = transformers.LlamaForCausalLM(config).to(dtype)
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        return folder

    return make


@pytest.fixture(scope="session")
def one_device() -> jax.sharding.Mesh:
    return make_mesh((1, 1, 1))


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a byte-level tokenizer of 259 ids, or a few more, with a chat template."""

    def make(name: str = "tokenizer", extra: tuple[str, ...] = ()) -> Path:
        special = ["<bos>", "<eos>", "<turn>", *extra]
        backend = tokenizers.Tokenizer(tokenizers.models.BPE())
        backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = tokenizers.decoders.ByteLevel()
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=256 + len(special),
            special_tokens=special,
            initial_alphabet=alphabet,
            show_progress=False,
        )
        backend.train_from_iterator([], trainer)
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>"
        )
        tokenizer.chat_template = (
            "{% for m in messages %}<turn>{{ m['role'] }}\n{{ m['content'] }}<eos>{% endfor %}"
        )
        tokenizer.save_pretrained(tmp_path / name)
        return tmp_path / name

    return make
