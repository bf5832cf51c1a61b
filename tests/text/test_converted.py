"""A model with a Llama-2 tokenizer on its way to Orbax and back."""

import shutil
from pathlib import Path

import sentencepiece
import transformers

from ste_jax.checkpoint.export import export_model
from ste_jax.checkpoint.folder import import_model
from ste_jax.checkpoint.source import open_model
from ste_jax.sharding import make_mesh
from ste_jax.text.chat import Message, encode_chat
from ste_jax.text.tokenizer import Tokenizer

TEXTS = ("Which answer is better?", "In 2024, 12 judges  met.", "東京 and Zürich", "a\nb\tc")


def test_a_sentencepiece_tokenizer_survives_conversion(
    llama2: Tokenizer, sentencepiece_folder: Path, tmp_path: Path
):
    config = transformers.LlamaConfig(
        vocab_size=llama2.vocab_size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    theirs = tmp_path / "theirs"
    transformers.LlamaForCausalLM(config).save_pretrained(theirs)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        shutil.copy(sentencepiece_folder / name, theirs)
    assert not (theirs / "tokenizer.json").exists()

    assert import_model(open_model(theirs), tmp_path / "ours", make_mesh((1, 1, 1)))
    ours = open_model(tmp_path / "ours")
    assert ours.tokenizer.fingerprint() == llama2.fingerprint()
    chat = [Message("user", "Say A or B."), Message("assistant", "A"), Message("user", "Why?")]
    assert encode_chat(ours.tokenizer, chat) == encode_chat(llama2, chat)

    assert export_model(ours, tmp_path / "back")
    back = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    reference = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_folder / "tokenizer.model"))
    for text in TEXTS:
        assert back.encode(text, add_special_tokens=False) == reference.encode(text)
    assert open_model(tmp_path / "back").tokenizer.stop_ids == llama2.stop_ids
