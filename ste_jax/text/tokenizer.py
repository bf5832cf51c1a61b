"""Tokenizers: reads them from disk and encodes text so that it cannot forge control tokens.

`transformers` reads the files and renders the chat template. The encoding is done by a second copy of its
backend in which every control token has a secret alias instead of its own name (`_SealedEncoder`). Untrusted
text can therefore contain any characters and never become a control token, while all text is still encoded at
once, exactly as `transformers` does.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf
import jinja2
import sentencepiece
import tokenizers
from tokenizers import pre_tokenizers
from transformers import LlamaTokenizer, PreTrainedTokenizerFast
from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer

from ste_jax.errors import SteError

# Some templates (Llama 3.2) print today's date unless they are given one; prompts must not change overnight.
_TEMPLATE_DATE = "26 Jul 2024"
_GGUF_CONTROL = 3
_GGUF_SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
_LLAMA_3_SPLITS = ("llama-bpe", "llama3", "llama-v3")


class Tokenizer:
    """Vocabulary, chat template and stop ids of a model; created by `load_tokenizer`.

    Attributes:
      vocab_size: Largest token id plus one.
      bos_id: Id that begins a sequence (None: the vocabulary has none).
      stop_ids: Ids that end a completion: end of sequence and end of an assistant turn.
      turn_end_id: Stop id that the template writes after an assistant turn.
      chat_template: Jinja source of `render`.
    """

    def __init__(self, hf: PreTrainedTokenizerFast, stop_ids: Iterable[int] = ()) -> None:
        try:
            self.chat_template: str = hf.get_chat_template()
        except ValueError as error:
            raise SteError(
                "chat_invalid",
                "no chat template: it looks like a base model; pass an instruct model, "
                "or add chat_template to its tokenizer_config.json",
            ) from error
        self._hf = hf
        self._backend = hf.backend_tokenizer
        self._control = _control_tokens(self._backend, self.chat_template)
        self._encoder = _SealedEncoder(self._backend, self._control)
        self.vocab_size = max(self._backend.get_vocab().values()) + 1
        special: dict[str, Any] = hf.special_tokens_map
        self.bos_id = self._backend.token_to_id(special.get("bos_token", ""))
        self._adds_bos = self.bos_id is not None and self.bos_id in self._backend.encode("").ids
        known = (self._backend.token_to_id(special.get("eos_token", "")), *stop_ids, self._turn_end())
        self.stop_ids = tuple(dict.fromkeys(token for token in known if token is not None))
        if not self.stop_ids:
            raise SteError(
                "tokenizer_invalid", "no end-of-sequence token: add eos_token to its tokenizer_config.json"
            )
        self.turn_end_id: int = known[-1] if known[-1] is not None else self.stop_ids[0]

    def encode_plain(self, text: str) -> list[int]:
        """Returns the ids of `text` as plain text: without control ids and BOS."""
        return self.encode_spans([(text, False)])

    def encode_spans(self, spans: Iterable[tuple[str, bool]]) -> list[int]:
        """Returns the ids of the joined (text, trusted) spans; control tokens count in trusted spans only.

        Raises:
          ValueError: if text is not valid Unicode.
        """
        return self._encoder.encode(spans)

    def with_bos(self, ids: list[int]) -> list[int]:
        """Returns the ids of a prompt with a BOS in front, if the model needs one and has none yet."""
        if self.bos_id is None or not self._adds_bos or self.bos_id in ids:
            return ids
        return [self.bos_id, *ids]

    def decode(self, ids: Sequence[int]) -> str:
        """Returns the text of `ids` without the control tokens."""
        dropped = set(self._control.values())
        return self._backend.decode([int(i) for i in ids if int(i) not in dropped], skip_special_tokens=False)

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        """Returns the chat template's text for `messages` (dicts of role and content).

        Raises:
          SteError: "chat_invalid" if the template refuses the messages, such as two user turns in a row.
        """
        try:
            rendered = self._hf.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=self.chat_template,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                date_string=_TEMPLATE_DATE,
            )
            return str(rendered)
        except (jinja2.TemplateError, TypeError) as error:
            roles = [message["role"] for message in messages]
            raise SteError(
                "chat_invalid", f"the chat template cannot render turns of {roles}: {error}"
            ) from error

    def fingerprint(self) -> str:
        """Returns a sha256 that is equal for tokenizers which encode every conversation to the same ids."""
        backend = json.loads(self._backend.to_str())
        for unused in ("version", "truncation", "padding", "post_processor"):
            backend.pop(unused)
        state = [backend, self.chat_template, self.bos_id, self._adds_bos, self.stop_ids]
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json, its config and template, and generation_config.json (the stop ids)."""
        self._hf.save_pretrained(folder)
        # The class name that every version of transformers knows, and nothing of how we loaded it.
        config = _read_json(folder / "tokenizer_config.json") | {"tokenizer_class": "PreTrainedTokenizerFast"}
        dropped = ("is_local", "local_files_only", "auto_map")
        kept = {key: value for key, value in config.items() if key not in dropped}
        (folder / "tokenizer_config.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        generation = folder / "generation_config.json"
        settings = _read_json(generation) if generation.is_file() else {}
        settings |= {"bos_token_id": self.bos_id, "eos_token_id": list(self.stop_ids)}
        generation.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def _turn_end(self) -> int | None:
        """Returns the control token that the template writes after an assistant turn, or None."""
        words = "assistant-words"
        turns = [{"role": "user", "content": "user-words"}, {"role": "assistant", "content": words}]
        _, found, rest = self.render(turns, add_generation_prompt=False).rpartition(words)
        end = self._encoder.pattern.search(rest) if found else None
        return self._control[end[0]] if end else None


class _SealedEncoder:
    """Encodes spans of text; control tokens are recognised in the trusted ones only.

    In this copy of the tokenizer a control token is called by an alias with 128 random bits, and no merge can
    spell its real name. Trusted control tokens are replaced by their aliases before all text is encoded at
    once, so that merges, pre-tokenization and prefix spaces across span borders come out as in the original
    tokenizer.
    """

    def __init__(self, backend: tokenizers.Tokenizer, control: Mapping[str, int]) -> None:
        # Longest first: the same leftmost-longest match that the backend makes. "(?!)" matches nothing.
        self.pattern = re.compile("|".join(map(re.escape, sorted(control, key=len, reverse=True))) or "(?!)")
        secret = secrets.token_hex(16)
        self._alias = {name: f"\ue000{secret}:{token}\ue001" for name, token in control.items()}
        spec = json.loads(backend.to_str())
        added = spec["added_tokens"]
        # The unknown token is not guarded: any character without a token of its own becomes it.
        unknown = spec["model"].get("unk_token")
        self._guarded = {name: token for name, token in control.items() if name != unknown}
        spec["model"] = _renamed(spec["model"], added, self._alias)
        spec |= {"added_tokens": [], "truncation": None, "padding": None, "post_processor": None}
        self._backend = tokenizers.Tokenizer.from_str(json.dumps(spec))
        self._backend.add_tokens([_added_token(token, self._alias) for token in added])

    def encode(self, spans: Iterable[tuple[str, bool]]) -> list[int]:
        found: list[str] = []

        def seal(match: re.Match[str]) -> str:
            found.append(match[0])
            return self._alias[match[0]]

        text = "".join(self.pattern.sub(seal, text) if trusted else text for text, trusted in spans)
        try:
            ids = self._backend.encode(text, add_special_tokens=False).ids
        except TypeError as error:
            raise SteError(
                "text_invalid",
                "text is not valid Unicode (half of a surrogate pair): replace such characters first",
            ) from error
        wanted = [self._guarded[name] for name in found if name in self._guarded]
        guarded = set(self._guarded.values())
        if [token for token in ids if token in guarded] != wanted:
            raise SteError(
                "tokenizer_invalid",
                "this tokenizer makes control tokens of plain text: it is not safe to use",
            )
        return ids


def load_tokenizer(source: str | Path) -> Tokenizer:
    """Returns the tokenizer of a folder (tokenizer.json or sentencepiece tokenizer.model) or of a .gguf file.

    Raises:
      SteError: "tokenizer_invalid" if it is missing, cannot be read, or has no chat template.
    """
    path = Path(source)
    if path.suffix == ".gguf":
        read = _read_gguf
    elif (path / "tokenizer.json").is_file():
        read = _read_tokenizer_json
    elif (path / "tokenizer.model").is_file():
        read = _read_sentencepiece
    else:
        raise SteError(
            "tokenizer_invalid",
            f"{path}: not a .gguf file nor a folder with tokenizer.json or tokenizer.model: is it right?",
        )
    try:
        if (path / "tokenizer_config.json").is_file():
            _read_json(path / "tokenizer_config.json")
        return Tokenizer(read(path), _stop_ids(path))
    except ValueError as error:
        raise SteError("tokenizer_invalid", f"{path}: {error}") from error


def _read_tokenizer_json(folder: Path) -> PreTrainedTokenizerFast:
    # Not AutoTokenizer: for some `tokenizer_class` names it rebuilds the backend from the vocabulary alone
    # and loses the file's own pre-tokenizer (the digit splitting of SmolLM2, for one).
    try:
        tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the Rust library raises nothing more precise
        raise SteError(
            "tokenizer_invalid", f"tokenizer.json is broken ({error}): download it again"
        ) from error
    return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def _read_sentencepiece(folder: Path) -> PreTrainedTokenizerFast:
    try:
        sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    except RuntimeError as error:
        raise SteError(
            "tokenizer_invalid",
            "tokenizer.model is not a sentencepiece model: download it, or (Llama 3) add tokenizer.json",
        ) from error
    return LlamaTokenizer.from_pretrained(folder, local_files_only=True)


def _read_gguf(path: Path) -> PreTrainedTokenizerFast:
    fields = _gguf_fields(path)
    kind, tokens = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.tokens")
    if not kind or not tokens:
        raise SteError(
            "tokenizer_invalid",
            "the file holds no tokenizer (tokenizer.ggml.tokens): convert the model again",
        )
    split = fields.get("tokenizer.ggml.pre")
    vocabulary = {"tokenizer_type": kind, "pre_tokenizer_type": split, "tokens": tokens}
    for name in ("scores", "token_type", "merges"):
        if f"tokenizer.ggml.{name}" in fields:
            vocabulary[name] = fields[f"tokenizer.ggml.{name}"]
    backend, _ = convert_gguf_tokenizer(fields.get("general.architecture", ""), vocabulary)
    backend = _without_added(backend, len(tokens))
    if kind == "gpt2":
        _correct_byte_level(backend, split)
    _check_control_tokens(backend, tokens, vocabulary.get("token_type", ()))
    special = {
        name: tokens[fields[f"tokenizer.ggml.{key}_token_id"]]
        for name, key in _GGUF_SPECIAL.items()
        if f"tokenizer.ggml.{key}_token_id" in fields
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=fields.get("tokenizer.chat_template"),
        # llama.cpp's default where the file does not say.
        add_bos_token=fields.get("tokenizer.ggml.add_bos_token", kind == "llama" or split in _LLAMA_3_SPLITS),
        **special,
    )


def _gguf_fields(path: Path) -> dict[str, Any]:
    """Returns the metadata of a GGUF file that concerns the tokenizer, by key."""
    try:
        fields = gguf.GGUFReader(path).fields
        return {
            key: field.contents()
            for key, field in fields.items()
            if key.startswith("tokenizer.") or key == "general.architecture"
        }
    except FileNotFoundError as error:
        raise SteError("tokenizer_invalid", "no such file: is the path right?") from error
    except (ValueError, IndexError, KeyError, OSError, OverflowError, RecursionError) as error:
        raise SteError(
            "tokenizer_invalid", f"not a complete GGUF file ({error}): download it again"
        ) from error


def _without_added(backend: tokenizers.Tokenizer, size: int) -> tokenizers.Tokenizer:
    """Returns `backend` without ids of `size` and above: defaults of transformers that the model lacks."""
    spec = json.loads(backend.to_str())
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["id"] < size]
    return tokenizers.Tokenizer.from_str(json.dumps(spec))


def _correct_byte_level(backend: tokenizers.Tokenizer, split: str | None) -> None:
    """Applies the pre-tokenizer that `tokenizer.ggml.pre` names, which transformers ignores."""
    if split in _LLAMA_3_SPLITS:
        backend.model.ignore_merges = True
    if not isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        return
    if split == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    elif split != "gpt-2":
        raise SteError(
            "tokenizer_invalid",
            f"tokenizer.ggml.pre is {split!r}, whose splitting rule is not known here: "
            "use the model's folder with tokenizer.json",
        )


def _check_control_tokens(backend: tokenizers.Tokenizer, tokens: Sequence[str], types: Sequence[int]) -> None:
    special = {i: token.content for i, token in backend.get_added_tokens_decoder().items() if token.special}
    for i, (token, kind) in enumerate(zip(tokens, types, strict=False)):
        if kind == _GGUF_CONTROL and special.get(i) != token:
            raise SteError(
                "tokenizer_invalid",
                f"control token {token!r} (id {i}) is lost in conversion: "
                "use the model's folder with tokenizer.json",
            )


def _stop_ids(path: Path) -> list[int]:
    """Returns the eos_token_id list of the folder's generation_config.json, if it has one."""
    file = path / "generation_config.json"
    if not file.is_file():
        return []
    stop = _read_json(file).get("eos_token_id")
    ids = stop if isinstance(stop, list) else [] if stop is None else [stop]
    if not all(type(i) is int for i in ids):
        raise SteError(
            "tokenizer_invalid",
            f"generation_config.json: eos_token_id must be one or more token ids, not {stop!r}",
        )
    return ids


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SteError("tokenizer_invalid", f"{file.name} is not JSON ({error}): fix or remove it") from error
    if not isinstance(value, dict):
        raise SteError("tokenizer_invalid", f"{file.name} must hold a JSON object: fix or remove it")
    return value


def _control_tokens(backend: tokenizers.Tokenizer, chat_template: str) -> dict[str, int]:
    """Returns the ids of the added tokens that must never come out of plain text, by name.

    They are the special ones and those that the template writes (`<tool_call>` is often not marked special).
    Added tokens of mere white space (as in Gemma) are ordinary text.
    """
    return {
        token.content: i
        for i, token in backend.get_added_tokens_decoder().items()
        if token.content.strip() and (token.special or token.content in chat_template)
    }


def _renamed(
    model: dict[str, Any], added: Sequence[dict[str, Any]], alias: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the BPE `model` with the `added` tokens in its vocabulary, aliased where they have an alias."""
    if model["type"] != "BPE":
        raise SteError(
            "tokenizer_invalid", f"the tokenizer is of type {model['type']}: use a model with a BPE tokenizer"
        )
    vocab = model["vocab"] | {token["content"]: token["id"] for token in added}
    merges = [
        [left, right]
        for left, right in model["merges"]
        if left not in alias and right not in alias and left + right not in alias
    ]
    return model | {
        "vocab": {alias.get(name, name): i for name, i in vocab.items()},
        "merges": merges,
        "unk_token": alias.get(model["unk_token"], model["unk_token"]),
    }


def _added_token(token: dict[str, Any], alias: Mapping[str, str]) -> tokenizers.AddedToken:
    name = token["content"]
    return tokenizers.AddedToken(
        alias.get(name, name),
        single_word=token["single_word"],
        lstrip=token["lstrip"],
        rstrip=token["rstrip"],
        # An alias is found in the text as it stands, whatever the normalizer would make of it.
        normalized=token["normalized"] and name not in alias,
    )
