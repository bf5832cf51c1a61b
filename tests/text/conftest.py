"""Tokenizers made on the spot: a Llama-3-like tokenizer.json and a Llama-2-like sentencepiece model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors, trainers

from ste_jax.text.tokenizer import Tokenizer, load_tokenizer

CORPUS = [
    "A judge reads both answers with care and then names the better one.",
    "The second answer is correct, but the first one explains every step of the way.",
    "Which of the two is better? Say A or B, and give your reasons before you do.",
    "In 1999 there were 12 judges; in 2024 there are 345, and 6789 answers wait.",
    "def add(a, b):\n    return a + b\n\nprint(add(1, 2))  # it's 3, isn't it?",
    "Ærøskøbing, Zürich und 東京 liegen nicht am selben Meer. Naïve café owners agree.",
    "the assistant and the user and the system end here </s> <s> [INST] s> </ <| |>",
]

LLAMA3_TEMPLATE = """\
{{- bos_token }}
{%- for turn in messages %}
    {{- '<|start_header_id|>' ~ turn['role'] ~ '<|end_header_id|>\\n\\n' }}
    {{- turn['content'] | trim ~ '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

# A system turn is folded into the first user turn, contents are stripped, every pair of turns has its BOS.
INST_TEMPLATE = """\
{%- if messages[0]['role'] == 'system' %}
    {%- set system = '{' ~ messages[0]['content'].strip() ~ '}\\n' %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set system = '' %}
    {%- set turns = messages %}
{%- endif %}
{%- for turn in turns %}
    {%- if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('user and assistant must take turns') }}
    {%- elif turn['role'] == 'user' %}
        {{- bos_token ~ '[INST] ' ~ (system if loop.first else '') ~ turn['content'].strip() ~ ' [/INST]' }}
    {%- else %}
        {{- ' ' ~ turn['content'].strip() ~ ' ' ~ eos_token }}
    {%- endif %}
{%- endfor %}
"""

LLAMA3_SPECIAL = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
]


def _write_llama3(
    folder: Path, template: str | None = LLAMA3_TEMPLATE, model_class: str | None = None
) -> Path:
    backend = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    split = r" ?[^\s\p{L}\p{N}]+|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\s*[\r\n]+|\s+(?!\S)|\s+"
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_special_tokens(LLAMA3_SPECIAL)
    backend.add_tokens([AddedToken("<tool>", normalized=False), AddedToken("====", normalized=False)])
    bos = "<|begin_of_text|>"
    backend.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
    )
    folder.mkdir(parents=True, exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": model_class or "PreTrainedTokenizerFast", "bos_token": bos}
    config |= {"eos_token": "<|end_of_text|>"} | ({"chat_template": template} if template else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def write_llama3() -> Callable[..., Path]:
    """Writes a Llama-3-like tokenizer to a folder: (folder, template, model_class) -> folder."""
    return _write_llama3


@pytest.fixture(scope="session")
def llama3_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = _write_llama3(tmp_path_factory.mktemp("llama3"))
    (folder / "generation_config.json").write_text('{"eos_token_id": [401, 404], "temperature": 0.6}')
    return folder


@pytest.fixture(scope="session")
def sentencepiece_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sentencepiece")
    (folder / "corpus.txt").write_text("\n".join(CORPUS * 20), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=480,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    config = {"tokenizer_class": "LlamaTokenizer", "chat_template": INST_TEMPLATE, "add_bos_token": True}
    config |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> Tokenizer:
    return load_tokenizer(smollm2_path)


@pytest.fixture(scope="session")
def llama3(llama3_folder: Path) -> Tokenizer:
    return load_tokenizer(llama3_folder)


@pytest.fixture(scope="session")
def llama2(sentencepiece_folder: Path) -> Tokenizer:
    return load_tokenizer(sentencepiece_folder)


@pytest.fixture(params=["smollm2", "llama3", "llama2"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """Name of each of the three kinds."""
    return request.getfixturevalue(request.param)
