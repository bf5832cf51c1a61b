"""Encodes text so that it cannot forge control tokens.

The encoding is done by a copy of the backend of `transformers` in which every control token has a secret
alias instead of its own name. Untrusted text can therefore contain any characters and never become a control
token, while all text is still encoded at once, exactly as `transformers` does.
"""

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tokenizers

from ste_jax.errors import SteError


class SealedEncoder:
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
        """See `Tokenizer.encode_spans`."""

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
