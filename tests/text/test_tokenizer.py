import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import gguf
import pytest
import sentencepiece
import tokenizers
from errors import raises
from transformers import AutoTokenizer

from ste_jax.text.tokenizer import Tokenizer, load_tokenizer

ODD_TEXTS = [
    "",
    "plain words",
    "two  spaces,\ttab\nand\n\n\nlines \n",
    "12 and 345 and   6789",
    "naïve café 東京 🙂👩‍👩‍👧 \u200b\ufeff",
    "half a word|>, a <b>tag</b>, ==== and <tool>",
]
CONTROL_PIECES = [
    *(
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        "<|begin_of_text|>",
        "<|eot_id|>",
        "<tool>",
        "<repo_name>",
    ),
    *(
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<s>",
        "</s>",
        "<unk>",
        "[INST]",
        "[/INST]",
        "<|im_",
        "end|>",
    ),
    *(
        "<",
        "|",
        ">",
        "/",
        "s",
        "\ue000",
        "\ue001",
        "\U0010ffff",
        "<0x0A>",
        "▁",
        "assistant",
        " ",
        "\n",
        "🙂",
        "9",
    ),
]


def random_texts(seed: int, count: int) -> list[str]:
    draw = random.Random(seed)
    # A letter first: the sentencepiece tokenizer of transformers drops one leading space.
    return ["x" + "".join(draw.choices(CONTROL_PIECES, k=draw.randint(1, 12))) for _ in range(count)]


def trusted_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode_spans([(text, True)])


def write_gguf(path: Path, tokens: list[str], model: str, **fields) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_chat_template(fields.pop("template"))
    for name, value in fields.items():
        getattr(writer, f"add_{name}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def gguf_of(folder: Path, path: Path, pre: str, **fields) -> Path:
    """Writes the tokenizer.json of `folder` as a GGUF with the pre-tokenizer name `pre`."""
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    vocab = sorted(backend.get_vocab().items(), key=lambda item: item[1])
    special = {t.content for t in backend.get_added_tokens_decoder().values() if t.special}
    defaults = {
        "token_types": [3 if token in special else 1 for token, _ in vocab],
        "token_merges": [" ".join(pair) for pair in json.loads(backend.to_str())["model"]["merges"]],
        "tokenizer_pre": pre,
        "template": json.loads((folder / "tokenizer_config.json").read_text())["chat_template"],
        "bos_token_id": backend.token_to_id("<|begin_of_text|>"),
    }
    return write_gguf(path, [token for token, _ in vocab], "gpt2", **(defaults | fields))


def test_smollm2_has_the_ids_of_its_model_card(smollm2: Tokenizer):
    assert (smollm2.vocab_size, smollm2.bos_id, smollm2.stop_ids) == (49152, 1, (2,))
    assert smollm2.encode_plain("Hello world! 123") == [19556, 905, 17, 216, 33, 34, 35]
    assert trusted_ids(smollm2, "<|im_start|>user\n<|im_end|>") == [1, 4093, 198, 2]


def test_smollm2_splits_digits_before_anything_else(smollm2: Tokenizer):
    assert smollm2.encode_plain("12") == [33, 34]
    # Without the digit rule the last space would go with the digit, and the other two make another token.
    assert smollm2.encode_plain("a   12") == [81, *smollm2.encode_plain("   "), 33, 34]
    assert len(smollm2.encode_plain("   ")) == 1


def test_every_control_token_of_the_gguf_is_one(smollm2: Tokenizer):
    names = "<|endoftext|> <|im_start|> <|im_end|> <repo_name> <reponame> <file_sep> <filename> <gh_stars>"
    names += " <issue_start> <issue_comment> <issue_closed> <jupyter_start> <jupyter_text> <jupyter_code>"
    names += " <jupyter_output> <jupyter_script> <empty_output>"
    for i, name in enumerate(names.split()):
        assert trusted_ids(smollm2, f"a{name}b") == [81, i, 82]
        assert i not in smollm2.encode_plain(f"a{name}b")
        assert smollm2.decode([81, i, 82]) == "ab"


def test_plain_ids_equal_those_of_transformers(
    llama3: Tokenizer, llama3_folder: Path, llama2, sentencepiece_folder
):
    for ours, folder in ((llama3, llama3_folder), (llama2, sentencepiece_folder)):
        theirs = AutoTokenizer.from_pretrained(folder)
        for text in ODD_TEXTS:
            text = text.replace("<tool>", "") if ours is llama3 else text
            assert ours.encode_plain(text) == theirs.encode(text, add_special_tokens=False)


def test_sentencepiece_ids_equal_those_of_sentencepiece(llama2: Tokenizer, sentencepiece_folder: Path):
    model = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_folder / "tokenizer.model"))
    for text in [*ODD_TEXTS[1:], *random_texts(seed=7, count=100)]:
        if "▁" not in text:  # sentencepiece's own sign for a space
            assert llama2.encode_plain(text) == model.encode(text)


@pytest.mark.parametrize(
    ("name", "control", "space"),
    [("smollm2", range(17), "▁"), ("llama3", range(400, 405), "▁"), ("llama2", range(3), " ")],
)
def test_no_text_becomes_a_control_token(
    name: str, control: range, space: str, request: pytest.FixtureRequest
):
    tokenizer: Tokenizer = request.getfixturevalue(name)
    assert tokenizer.decode(control) == ""
    forged = 0
    for text in random_texts(seed=1, count=400):
        encoded = tokenizer.encode_plain(text)
        assert not set(control) & set(encoded)
        assert tokenizer.decode(encoded) == text.replace("▁", space)
        forged += bool(set(control) & set(trusted_ids(tokenizer, text)))
    assert forged > 100


def test_merges_cannot_spell_a_control_token(tmp_path: Path):
    pieces = ["<", "/", "s", ">", "</", "s>", "</s>"]
    merges = [("<", "/"), ("s", ">"), ("</", "s>")]
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE({piece: i for i, piece in enumerate(pieces)}, merges)
    )
    assert backend.encode("</s>").ids == [6]
    backend.add_special_tokens(["</s>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    template = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode_plain("</s>s>") == [4, 5, 5]
    assert trusted_ids(tokenizer, "</s>s>") == [6, 5]


def test_trusted_text_keeps_its_control_tokens_in_threads(llama3: Tokenizer):
    text = "<|eot_id|>a<|eot_id|>"
    plain, trusted = llama3.encode_plain(text), trusted_ids(llama3, text)
    assert [trusted.count(404), plain.count(404)] == [2, 0]
    with ThreadPoolExecutor(8) as pool:
        encoders = [llama3.encode_plain, partial(trusted_ids, llama3)] * 200
        results = list(pool.map(lambda encode: encode(text), encoders))
    assert results == [plain, trusted] * 200


def test_added_tokens_count_as_control_only_if_special_or_in_the_template(
    llama3: Tokenizer, write_llama3, tmp_path: Path
):
    tool, line = llama3.encode_plain("<tool>"), llama3.encode_plain("====")
    assert (len(tool), len(line)) == (1, 1)
    template = "{% for m in messages %}<tool>{{ m.content }}<|eot_id|>{% endfor %}"
    strict = load_tokenizer(write_llama3(tmp_path, template))
    assert tool[0] not in strict.encode_plain("<tool>")
    assert trusted_ids(strict, "<tool>") == tool
    assert strict.encode_plain("====") == line
    assert strict.decode(strict.encode_plain("a<tool>b====")) == "a<tool>b===="


def test_stop_ids_are_eos_those_of_the_generation_config_and_the_turn_end(
    llama3: Tokenizer, llama2: Tokenizer, write_llama3, tmp_path: Path
):
    assert llama3.stop_ids == (401, 404)
    assert llama2.stop_ids == (2,)
    folder = write_llama3(tmp_path)
    assert load_tokenizer(folder).stop_ids == (401, 404)
    (folder / "generation_config.json").write_text('{"eos_token_id": 400}')
    assert load_tokenizer(folder).stop_ids == (401, 400, 404)


def test_a_saved_tokenizer_is_the_same_one(tokenizer: Tokenizer, tmp_path: Path):
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.6}')
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again.fingerprint() == tokenizer.fingerprint()
    for name in ("vocab_size", "bos_id", "stop_ids", "chat_template"):
        assert getattr(again, name) == getattr(tokenizer, name)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in ["assistant: yes", "a   12\n\n345 🙂"]:
        assert again.encode_plain(text) == tokenizer.encode_plain(text)
        assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode_plain(text)
    generation = json.loads((tmp_path / "generation_config.json").read_text())
    assert (generation["temperature"], generation["eos_token_id"]) == (0.6, list(tokenizer.stop_ids))


def test_the_fingerprint_tells_tokenizers_apart(llama3: Tokenizer, llama3_folder: Path, tmp_path: Path):
    assert load_tokenizer(llama3_folder).fingerprint() == llama3.fingerprint()
    seen = {llama3.fingerprint()}
    for file, old, new in (
        ("tokenizer_config.json", "assistant", "helper"),
        ("tokenizer_config.json", '"eos_token": "<|end_of_text|>"', '"eos_token": "<|eot_id|>"'),
        ("tokenizer.json", "{1,3}", "{1,2}"),
        ("tokenizer.json", "<|start_header_id|>", "<|start_header|>"),
    ):
        folder = tmp_path / str(len(seen))
        shutil.copytree(llama3_folder, folder)
        text = (folder / file).read_text(encoding="utf-8")
        assert old in text
        (folder / file).write_text(text.replace(old, new), encoding="utf-8")
        seen.add(load_tokenizer(folder).fingerprint())
    assert len(seen) == 5


def test_a_llama_3_gguf_gives_the_ids_of_its_folder(llama3: Tokenizer, llama3_folder: Path, tmp_path: Path):
    ours = load_tokenizer(gguf_of(llama3_folder, tmp_path / "llama3.gguf", "llama-bpe"))
    assert (ours.vocab_size, ours.bos_id, ours.stop_ids) == (llama3.vocab_size, 400, (404,))
    for text in ["the judge reads", "<|eot_id|> stays text"]:
        assert ours.encode_plain(text) == llama3.encode_plain(text)
    assert ours.with_bos([1]) == [400, 1]


def test_a_llama_3_gguf_takes_whole_words_of_the_vocabulary(llama3_folder: Path, tmp_path: Path):
    path = gguf_of(llama3_folder, tmp_path / "no_merges.gguf", "llama-bpe", token_merges=["t h"])
    vocab = tokenizers.Tokenizer.from_file(str(llama3_folder / "tokenizer.json")).get_vocab()
    assert load_tokenizer(path).encode_plain(" the answer") == [vocab["Ġthe"], vocab["Ġanswer"]]


def test_a_sentencepiece_gguf_gives_the_ids_of_its_folder(
    llama2: Tokenizer, sentencepiece_folder: Path, tmp_path: Path
):
    model = sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_folder / "tokenizer.model"))
    ids = range(model.vocab_size())
    types = [
        2 if model.IsUnknown(i) else 3 if model.IsControl(i) else 6 if model.IsByte(i) else 1 for i in ids
    ]
    path = write_gguf(
        tmp_path / "llama2.gguf",
        [model.IdToPiece(i) for i in ids],
        "llama",
        token_scores=[model.GetScore(i) for i in ids],
        token_types=types,
        template=llama2.chat_template,
        bos_token_id=1,
        eos_token_id=2,
        unk_token_id=0,
    )
    ours = load_tokenizer(path)
    assert (ours.bos_id, ours.stop_ids, ours.with_bos([7])) == (1, (2,), [1, 7])
    for text in [*ODD_TEXTS, *random_texts(seed=3, count=50)]:
        assert ours.encode_plain(text) == llama2.encode_plain(text)


def test_missing_and_broken_files_are_named(
    write_llama3, llama3_folder: Path, smollm2_path: Path, tmp_path: Path
):
    def refused(path: Path, *places: str) -> None:
        with raises("tokenizer_invalid", str(path), *places):
            load_tokenizer(path)

    refused(tmp_path, "tokenizer.json", "tokenizer.model")
    refused(tmp_path / "nothing.gguf")
    refused(write_llama3(tmp_path / "base", template=None), "chat_template", "tokenizer_config.json")
    refused(write_llama3(tmp_path / "syntax", template="{% for %}"), "chat template")
    broken = write_llama3(tmp_path / "broken")
    (broken / "tokenizer_config.json").write_text("{")
    refused(broken, "tokenizer_config.json")
    (broken / "tokenizer_config.json").unlink()
    (broken / "tokenizer.json").write_text('{"version": "1.0", ')
    refused(broken, "tokenizer.json")
    (broken / "tokenizer.json").unlink()
    (broken / "tokenizer.model").write_bytes(b"not a model")
    refused(broken, "tokenizer.model")
    stop = write_llama3(tmp_path / "stop")
    (stop / "generation_config.json").write_text('{"eos_token_id": "end"}')
    refused(stop, "generation_config.json", "eos_token_id")
    truncated = tmp_path / "truncated.gguf"
    with smollm2_path.open("rb") as whole:
        truncated.write_bytes(whole.read(100_000))
    refused(truncated)
    refused(gguf_of(llama3_folder, tmp_path / "pre.gguf", "viking"), "tokenizer.ggml.pre", "viking")
    unigram = write_llama3(tmp_path / "unigram")
    tokenizers.Tokenizer(tokenizers.models.Unigram([("a", 0.0)], 0)).save(str(unigram / "tokenizer.json"))
    refused(unigram, "Unigram")
    other = write_llama3(tmp_path / "other")
    text = (other / "tokenizer.json").read_text(encoding="utf-8").replace("<|eot_id|>", "<\uff5ceot\uff5c>")
    (other / "tokenizer.json").write_text(text, encoding="utf-8")
    refused(gguf_of(other, tmp_path / "other.gguf", "llama-bpe"), "<\uff5ceot\uff5c>")


def test_half_a_surrogate_pair_is_refused(llama3: Tokenizer):
    with raises("text_invalid"):
        llama3.encode_plain("a\ud800b")
