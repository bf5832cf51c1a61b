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
from transformers import AutoTokenizer

from ste_jax.errors import SteError
from ste_jax.text.template import ChatSettings
from ste_jax.text.tokenizer import Tokenizer, load_tokenizer
from tests.errors import raises

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
        if value is not None:
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


def test_a_turn_with_two_control_tokens_at_its_end_stops_at_both(write_llama3, tmp_path: Path):
    turn = "{{ m.content }}<|end_header_id|> <|eot_id|>"
    template = "{% for m in messages %}<|start_header_id|>" + turn + "\n{% endfor %}"
    tokenizer = load_tokenizer(write_llama3(tmp_path, template))
    assert tokenizer.stop_ids == (401, 404, 403)
    assert tokenizer.turn_end_id == 403


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
    path = sentencepiece_gguf(sentencepiece_folder, tmp_path / "llama2.gguf", llama2.chat_template)
    ours = load_tokenizer(path)
    assert (ours.bos_id, ours.stop_ids, ours.with_bos([7])) == (1, (2,), [1, 7])
    for text in [*ODD_TEXTS, *random_texts(seed=3, count=50)]:
        assert ours.encode_plain(text) == llama2.encode_plain(text)


def sentencepiece_gguf(folder: Path, path: Path, template: str, **fields) -> Path:
    """Writes the tokenizer.model of `folder` as a GGUF file."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    ids = range(model.vocab_size())
    types = [
        2 if model.IsUnknown(i) else 3 if model.IsControl(i) else 6 if model.IsByte(i) else 1 for i in ids
    ]
    defaults = {
        "token_scores": [model.GetScore(i) for i in ids],
        "token_types": types,
        "template": template,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unk_token_id": 0,
    }
    return write_gguf(path, [model.IdToPiece(i) for i in ids], "llama", **(defaults | fields))


def test_a_gguf_without_space_prefix(llama2: Tokenizer, sentencepiece_folder: Path, tmp_path: Path):
    template = llama2.chat_template
    with_prefix, without = (
        load_tokenizer(
            sentencepiece_gguf(sentencepiece_folder, tmp_path / "m.gguf", template, add_space_prefix=value)
        )
        for value in (True, False)
    )
    for text in ("the judge", "judge the  answer", "", "Ærø\nnaïve"):
        # sentencepiece without its dummy prefix
        assert without.encode_plain("=" + text) == llama2.encode_plain("=" + text)[1:]
        assert with_prefix.encode_plain(text) == llama2.encode_plain(text)
        assert without.decode(without.encode_plain(text)) == text
        assert without.decode(without.encode_plain(" " + text)) == " " + text


def test_all_declared_ends_of_a_gguf_stop(llama3_folder: Path, tmp_path: Path):
    backend = tokenizers.Tokenizer.from_file(str(llama3_folder / "tokenizer.json"))
    template = "{% for m in messages %}{{ m.content }}<|start_header_id|>{% endfor %}"
    names = {"eos_token_id": "<|end_of_text|>", "eot_token_id": "<|eot_id|>", "eom_token_id": "<tool>"}
    ids = {key: backend.token_to_id(name) for key, name in names.items()}
    kept = {key: value for key, value in ids.items() if key != "eom_token_id"}
    path = gguf_of(llama3_folder, tmp_path / "m.gguf", "llama-bpe", template=template, **kept)
    assert load_tokenizer(path).stop_ids == (*kept.values(), backend.token_to_id("<|start_header_id|>"))
    path = keyed(gguf_of, tmp_path, {"tokenizer.ggml.eom_token_id": ids["eom_token_id"]}, llama3_folder)
    ours = load_tokenizer(path)
    assert ids["eom_token_id"] in ours.stop_ids
    assert ids["eom_token_id"] not in ours.encode_plain("a <tool>")


def keyed(write, folder: Path, keys: dict[str, object], source: Path, **fields) -> Path:
    """Writes a GGUF file with further metadata by key."""

    class Writer(gguf.GGUFWriter):
        def write_header_to_file(self, *arguments) -> None:
            for key, value in keys.items():
                add = {
                    bool: self.add_bool,
                    int: self.add_int32,
                    float: self.add_float32,
                    str: self.add_string,
                    list: self.add_array,
                }
                self.kv_data[0].pop(key, None)
                add[type(value)](key, value)
            super().write_header_to_file(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gguf, "GGUFWriter", Writer)
        return write(source, folder / "keyed.gguf", "llama-bpe", **fields)


@pytest.mark.parametrize("types", ["normal", "unused", "absent"])
def test_control_tokens_of_another_type_are_control_tokens(
    llama3: Tokenizer, llama3_folder: Path, tmp_path: Path, types: str, caplog: pytest.LogCaptureFixture
):
    backend = tokenizers.Tokenizer.from_file(str(llama3_folder / "tokenizer.json"))
    size = max(backend.get_vocab().values()) + 1
    kind = {"normal": 1, "unused": 5, "absent": None}[types]
    token_types = [kind] * size if kind else None
    path = gguf_of(llama3_folder, tmp_path / "m.gguf", "llama-bpe", token_types=token_types)
    ours = load_tokenizer(path)
    turns = [{"role": "user", "content": "Which?"}]
    text = llama3.render(turns, add_generation_prompt=True)
    assert trusted_ids(ours, text) == trusted_ids(llama3, text)
    assert 404 in ours.stop_ids
    assert not {400, 402, 403, 404} & set(ours.encode_plain(text))
    assert "<|eot_id|>" in caplog.text


@pytest.mark.parametrize(
    ("keys", "place"),
    [
        ({"tokenizer.ggml.remove_extra_whitespaces": True}, "remove_extra_whitespaces"),
        ({"tokenizer.ggml.precompiled_charsmap": [1, 2]}, "precompiled_charsmap"),
        ({"tokenizer.ggml.add_space_prefix": True}, "add_space_prefix"),
        ({"tokenizer.ggml.some_new_key": 7}, "some_new_key"),
        ({"tokenizer.ggml.eot_token_id": 999_999}, "eot_token_id"),
        ({"tokenizer.ggml.eom_token_id": -1}, "eom_token_id"),
        ({"tokenizer.ggml.bos_token_id": "<s>"}, "bos_token_id"),
        ({"tokenizer.ggml.add_bos_token": 1}, "add_bos_token"),
        ({"tokenizer.ggml.token_type": [1, 2]}, "token_type"),
        ({"tokenizer.ggml.merges": [1]}, "merges"),
        ({"tokenizer.ggml.tokens": [1]}, "tokens"),
        ({"tokenizer.chat_template": 5}, "tokenizer.chat_template"),
    ],
    ids=str,
)
def test_metadata_that_cannot_be_read_are_refused_by_name(
    llama3_folder: Path, tmp_path: Path, keys: dict[str, object], place: str
):
    path = keyed(gguf_of, tmp_path, keys, llama3_folder)
    with raises("tokenizer_invalid", str(path), place):
        load_tokenizer(path)


def test_metadata_without_effect_are_accepted(llama3: Tokenizer, llama3_folder: Path, tmp_path: Path):
    keys = {
        "tokenizer.ggml.add_eos_token": True,
        "tokenizer.ggml.mask_token_id": 3,
        "tokenizer.ggml.add_sep_token": False,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template.tool_use": "another",
    }
    ours = load_tokenizer(keyed(gguf_of, tmp_path, keys, llama3_folder))
    assert ours.chat_template == llama3.chat_template
    assert ours.encode_plain(" the answer") == llama3.encode_plain(" the answer")


def test_a_gguf_without_a_template_is_given_one(
    llama3: Tokenizer, llama3_folder: Path, tmp_path: Path
) -> None:
    path = gguf_of(llama3_folder, tmp_path / "m.gguf", "llama-bpe", template=[])
    with raises("tokenizer_invalid", str(path), "--chat_template=FILE"):
        load_tokenizer(path)
    (tmp_path / "template.jinja").write_text(llama3.chat_template)
    ours = load_tokenizer(path, ChatSettings(template=str(tmp_path / "template.jinja")))
    assert (ours.chat_template, 404 in ours.stop_ids) == (llama3.chat_template, True)
    named = [{"name": "chatml", "template": "x"}, {"name": "tool_use", "template": "y"}]
    path = gguf_of(llama3_folder, tmp_path / "named.gguf", "llama-bpe", template=named)
    with raises("tokenizer_invalid", str(path), "chatml", "tool_use"):
        load_tokenizer(path)


def test_a_template_file_replaces_that_of_a_folder(llama3_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    file.write_text("{% for m in messages %}[{{ m.role }}]{{ m.content }}<|eot_id|>{% endfor %}")
    ours = load_tokenizer(llama3_folder, ChatSettings(template=str(file)))
    text = ours.render([{"role": "user", "content": "a"}], add_generation_prompt=True)
    assert text == "[user]a<|eot_id|>"
    ours.save(tmp_path)
    assert load_tokenizer(tmp_path).fingerprint() == ours.fingerprint()
    with raises("file_not_found", "absent.jinja"):
        load_tokenizer(llama3_folder, ChatSettings(template=str(tmp_path / "absent.jinja")))
    file.write_bytes(b"\xff\xfe")
    with raises("chat_invalid", str(file)):
        load_tokenizer(llama3_folder, ChatSettings(template=str(file)))
    file.write_text(json.dumps({"chat_template": "{{ messages[0].content }}\ud800"}))
    with raises("tokenizer_invalid", str(file), "Unicode"):
        load_tokenizer(llama3_folder, ChatSettings(template=str(file)))
    file.write_text("{{ raise_exception('never') }}")
    with raises("tokenizer_invalid", str(file), "never"):
        load_tokenizer(llama3_folder, ChatSettings(template=str(file)))


def test_the_default_of_several_templates_is_taken(write_llama3, llama3: Tokenizer, tmp_path: Path) -> None:
    folder, named = write_llama3(tmp_path), [{"name": "tool_use", "template": "x"}]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    own = config["chat_template"]
    config["chat_template"] = [*named, {"name": "default", "template": own}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_tokenizer(folder).fingerprint() == llama3.fingerprint()
    config["chat_template"] = named
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with raises("tokenizer_invalid", str(folder), "tool_use"):
        load_tokenizer(folder)
    (folder / "chat_template.jinja").write_text(own)
    assert load_tokenizer(folder).chat_template == own


def test_the_date_of_a_template_is_part_of_the_fingerprint_and_kept(
    write_llama3, llama3: Tokenizer, llama3_folder: Path, tmp_path: Path
) -> None:
    for name in ("strftime_now('%Y')", "date_string"):
        folder = write_llama3(tmp_path / name[:4], "{{ " + name + " }}" + llama3.chat_template)
        plain, dated = (load_tokenizer(folder, ChatSettings(date=date)) for date in ("", "1999-05-06"))
        assert plain.fingerprint() != dated.fingerprint()
        text = dated.render([{"role": "user", "content": "a"}], add_generation_prompt=True)
        assert "1999" in text
        dated.save(tmp_path / "saved")
        again = load_tokenizer(tmp_path / "saved")
        assert (again.chat_date, again.fingerprint()) == ("1999-05-06", dated.fingerprint())
    undated = load_tokenizer(llama3_folder, ChatSettings(date="1999-05-06"))
    assert undated.fingerprint() == llama3.fingerprint()


def test_stop_ids_outside_of_the_vocabulary_are_refused(write_llama3, tmp_path: Path):
    folder = write_llama3(tmp_path)
    for stop in (999_999, [401, 407], [-1], [401, True]):
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stop}))
        with raises("tokenizer_invalid", str(folder), "generation_config.json", "eos_token_id"):
            load_tokenizer(folder)


def changed(value: object, draw: random.Random) -> None:
    """Changes or deletes a random part of a JSON value."""
    others = [None, True, -1, 1.5, 10**30, "", [], {}, [None], {"a": 1}]
    while isinstance(value, dict | list) and value:
        key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
        if not isinstance(value[key], dict | list) or draw.random() < 0.3:
            if draw.random() < 0.3:
                del value[key]
            else:
                value[key] = draw.choice(others)
            return
        value = value[key]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_damaged_files_end_in_an_error_or_are_read(llama3_folder: Path, tmp_path: Path, name: str):
    draw = random.Random(name)
    original = (llama3_folder / name).read_text()
    folder = tmp_path / "model"
    shutil.copytree(llama3_folder, folder)
    refused = read = 0
    for _ in range(60):
        value = json.loads(original)
        changed(value, draw)
        (folder / name).write_text(json.dumps(value))
        try:
            tokenizer = load_tokenizer(folder)
            tokenizer.render([{"role": "user", "content": "a"}], add_generation_prompt=True)
        except SteError as error:
            refused += str(folder) in str(error)
        else:
            read += 1
    assert refused + read == 60
    assert refused > 5
    (folder / name).write_text("[" * 100_000)
    with raises("tokenizer_invalid", str(folder)):
        load_tokenizer(folder)


def test_a_damaged_gguf_ends_in_an_error_or_is_read(llama3_folder: Path, tmp_path: Path):
    path, draw = gguf_of(llama3_folder, tmp_path / "m.gguf", "llama-bpe"), random.Random(2)
    whole, refused = path.read_bytes(), 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 5)):
            damaged[draw.randrange(len(damaged))] = draw.choice((0, 1, 3, 4, 8, 9, 128, 255))
        path.write_bytes(damaged)
        try:
            load_tokenizer(path)
        except SteError as error:
            refused += str(path) in str(error)
    assert refused > 10


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
