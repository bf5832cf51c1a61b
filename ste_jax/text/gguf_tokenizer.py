"""Reads the tokenizer of a GGUF file, as llama.cpp understands its metadata."""

import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import pre_tokenizers

from ste_jax.errors import SteError
from ste_jax.storage.gguf_file import GgufFile

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_log = logging.getLogger(__name__)
_PREFIX = "tokenizer.ggml."
_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6
_SPECIAL = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
_ENDS = ("eot", "eom")  # of a turn and of a message, in addition to the end of the sequence
_LLAMA_3_SPLITS = ("llama-bpe", "llama3", "llama-v3")
_TEMPLATE = "tokenizer.chat_template"
_OTHERWISE = "use the model's folder with tokenizer.json"
_LISTS = {"scores": float, "token_type": int, "merges": str}
# Keys that are read here, or matter only for infilling, classification and embedding, or for texts that a
# model reads outside of a chat (the end of sequence behind them).
_READ = frozenset(
    (
        *("model", "pre", "tokens", *_LISTS, "add_bos_token", "add_space_prefix", "add_eos_token"),
        *(f"{name}_token_id" for name in (*_SPECIAL.values(), *_ENDS)),
        *(f"{name}_token_id" for name in ("seperator", "mask", "cls", "prefix", "suffix", "middle")),
        *(f"fim_{name}_token_id" for name in ("pre", "suf", "mid", "pad", "rep", "sep")),
        "token_type_count",
    )
)


def read_gguf(path: Path) -> "tuple[PreTrainedTokenizerFast, list[int]]":
    """Returns the tokenizer of a GGUF file, and the ids that end a turn or a message in addition to EOS.

    Raises:
      SteError: The file is damaged, or its tokenizer is not one that can be read exactly.
    """
    from transformers import PreTrainedTokenizerFast  # here: it takes a second, and many commands need none

    fields = GgufFile(path).fields
    own = {key.removeprefix(_PREFIX): value for key, value in fields.items() if key.startswith(_PREFIX)}
    _check(own)
    tokens, kind, split = own["tokens"], own["model"], own.get("pre")
    ids = {name: i for name in (*_SPECIAL.values(), *_ENDS) if (i := _id(own, name)) is not None}
    templates = _templates(fields)
    declared = [ids[name] for name in ("bos", "eos", *_ENDS) if name in ids]
    backend = _backend(fields, own, declared)
    if mislabelled := _mislabelled(backend, own, templates.get("default", "")):
        _log.warning(
            "%s: %s: not of a control type, though the chat template writes them; taken as control tokens",
            path,
            ", ".join(tokens[i] for i in mislabelled),
        )
        backend = _backend(fields, own, [*declared, *mislabelled])
    hf = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=templates.get("default", templates or None),
        # llama.cpp's default where the file does not say.
        add_bos_token=own.get("add_bos_token", kind == "llama" or split in _LLAMA_3_SPLITS),
        **{name: tokens[ids[key]] for name, key in _SPECIAL.items() if key in ids},
    )
    return hf, [ids[name] for name in _ENDS if name in ids]


def _check(own: Mapping[str, Any]) -> None:
    """Refuses metadata that are missing, ill-typed, or set and not read."""
    tokens = own.get("tokens")
    if not isinstance(own.get("model"), str) or not tokens or not _is_list(tokens, str):
        raise SteError(
            "tokenizer_invalid",
            f"the file holds no tokenizer ({_PREFIX}model and {_PREFIX}tokens): convert the model again",
        )
    for name, kind in _LISTS.items():
        value = own.get(name, [])
        length = len(tokens) if name in own and name != "merges" else len(value)
        if not _is_list(value, kind) or len(value) != length:
            raise _invalid(name, f"not a list of {len(tokens)} values of the right type: convert again")
    for name in ("add_bos_token", "add_space_prefix"):
        if not isinstance(own.get(name, False), bool):
            raise _invalid(name, f"{own[name]!r}, not a truth value: convert the model again")
    if own["model"] == "gpt2" and own.get("add_space_prefix"):
        raise _invalid("add_space_prefix", f"set, which is not supported for the kind gpt2: {_OTHERWISE}")
    for name, value in own.items():
        if name not in _READ and value:
            raise _invalid(name, f"{str(value)[:40]!r}, which is not supported: {_OTHERWISE}")


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _invalid(name: str, reason: str) -> SteError:
    return SteError("tokenizer_invalid", f"{_PREFIX}{name} is {reason}")


def _id(own: Mapping[str, Any], name: str) -> int | None:
    value, size = own.get(f"{name}_token_id"), len(own["tokens"])
    if value is not None and not (type(value) is int and 0 <= value < size):
        raise _invalid(f"{name}_token_id", f"{value!r}, not an id from 0 to {size - 1}: convert again")
    return value


def _templates(fields: Mapping[str, Any]) -> dict[str, str]:
    """Returns the chat templates by name."""
    found = {
        key.removeprefix(_TEMPLATE).removeprefix(".") or "default": value
        for key, value in sorted(fields.items(), reverse=True)
        if key == _TEMPLATE or key.startswith(f"{_TEMPLATE}.")
    }
    if not all(isinstance(template, str) for template in found.values()):
        raise SteError("tokenizer_invalid", f"{_TEMPLATE} is not a text: convert the model again")
    return found


def _backend(
    fields: Mapping[str, Any], own: Mapping[str, Any], control: Iterable[int]
) -> tokenizers.Tokenizer:
    """Returns the tokenizer in which the ids `control`, too, are control tokens."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer

    tokens, kind, split = own["tokens"], own["model"], own.get("pre")
    types = list(own.get("token_type", [1] * len(tokens)))
    for i in control:
        types[i] = _CONTROL
    vocabulary = {"tokenizer_type": kind, "pre_tokenizer_type": split, "tokens": tokens, "token_type": types}
    vocabulary |= {name: own[name] for name in ("scores", "merges") if name in own}
    backend, _ = convert_gguf_tokenizer(fields.get("general.architecture", ""), vocabulary)
    backend = _without_added(backend, len(tokens))
    if kind == "gpt2":
        _correct_byte_level(backend, split)
    elif not own.get("add_space_prefix", True):
        backend = _without_prefix(backend)
    _check_control_tokens(backend, tokens, types)
    return backend


def _mislabelled(backend: tokenizers.Tokenizer, own: Mapping[str, Any], template: str) -> list[int]:
    """Returns the tokens in the form of control tokens that the template writes and the tokenizer splits.

    llama.cpp, too, takes such tokens as control tokens, whatever their type.
    """
    fixed = (_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE)
    types = own.get("token_type", [1] * len(own["tokens"]))
    return [
        i
        for i, (token, kind) in enumerate(zip(own["tokens"], types, strict=True))
        if kind not in fixed
        and re.fullmatch(r"<[^<>\s]+>|\[[^\[\]\s]+\]", token)
        and token in template
        and backend.encode(token, add_special_tokens=False).ids != [i]
    ]


def _without_prefix(backend: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Returns a sentencepiece tokenizer that puts no space before a text."""
    spec = json.loads(backend.to_str())
    if (spec["pre_tokenizer"] or {}).get("type") != "Metaspace":
        raise _invalid("add_space_prefix", f"false, which is not supported for this kind: {_OTHERWISE}")
    spec["pre_tokenizer"]["prepend_scheme"] = "never"
    decoders = spec["decoder"]["decoders"]
    spec["decoder"]["decoders"] = [decoder for decoder in decoders if decoder["type"] != "Strip"]
    return tokenizers.Tokenizer.from_str(json.dumps(spec))


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
        if kind == _CONTROL and special.get(i) != token:
            raise SteError(
                "tokenizer_invalid",
                f"control token {token!r} (id {i}) is lost in conversion: "
                "use the model's folder with tokenizer.json",
            )
