"""Tokenizers: reads them from disk, renders chat templates and encodes text.

`transformers` reads the files; `sealed` encodes text so that it cannot forge control tokens.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sentencepiece
import tokenizers

from ste_jax.errors import SteError
from ste_jax.text.gguf_tokenizer import read_gguf
from ste_jax.text.sealed import SealedEncoder
from ste_jax.text.template import DEFAULT_DATE, ChatSettings, render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_log = logging.getLogger(__name__)
_CHAT_DATE = "chat_date"  # field of tokenizer_config.json


class Tokenizer:
    """Vocabulary, chat template and stop ids of a model; created by `load_tokenizer`.

    Attributes:
      vocab_size: Largest token id plus one.
      bos_id: Id that begins a sequence (None: the vocabulary has none).
      stop_ids: Ids that end a completion: end of sequence and end of an assistant turn.
      turn_end_id: Stop id that the template writes after an assistant turn.
      chat_template: Jinja source of `render`.
      chat_date: Date that the template prints as today's.
      has_system_role: False if the template refuses or drops the text of a system turn.
    """

    def __init__(
        self,
        hf: "PreTrainedTokenizerFast",
        stop_ids: Iterable[int] = (),
        *,
        origin: str = "tokenizer",
        date: str = DEFAULT_DATE,
        embedded: int | None = None,
    ) -> None:
        """Checks a tokenizer.

        Args:
          hf: Tokenizer of transformers.
          stop_ids: Ids that end a completion, besides those that `hf` and its template name.
          origin: File or folder of the template, for error messages.
          date: Date that the template prints as today's.
          embedded: Number of ids that the model embeds (None: all). Added tokens above it never come out of
            text.

        Raises:
          SteError: "chat_invalid" or "tokenizer_invalid".
        """
        self.chat_template, self.chat_date, self._origin = _template_of(hf, origin), date, origin
        if any("\ud800" <= character <= "\udfff" for character in self.chat_template):
            raise self.refusal("the chat template is no valid Unicode: half of a surrogate pair")
        self._hf = hf
        self._backend = hf.backend_tokenizer
        self._control = _control_tokens(self._backend, self.chat_template, embedded)
        self._encoder = SealedEncoder(self._backend, self._control)
        self.vocab_size = max(self._backend.get_vocab().values()) + 1
        self._special: dict[str, Any] = dict(hf.special_tokens_map)
        self.bos_id = self._backend.token_to_id(self._special.get("bos_token", ""))
        self._adds_bos = self.bos_id is not None and self.bos_id in self._backend.encode("").ids
        eos_id = self._backend.token_to_id(self._special.get("eos_token", ""))
        first, last = self._turn_ends()
        known = (eos_id, *stop_ids, last, first)
        self.stop_ids = tuple(dict.fromkeys(token for token in known if token is not None))
        if not self.stop_ids:
            remedy = (
                "convert the model again" if _is_gguf(origin) else "add eos_token to tokenizer_config.json"
            )
            raise SteError("tokenizer_invalid", f"no end-of-sequence token: {remedy}")
        self.turn_end_id: int = first if first is not None else self.stop_ids[0]
        self.has_system_role = self._shows_system()
        if not self.has_system_role:
            _log.warning(
                "%s: the chat template has no system role; system texts are put before the user's", origin
            )

    def encode_plain(self, text: str) -> list[int]:
        """Returns the ids of `text` as plain text: without control ids and BOS."""
        return self.encode_spans([(text, False)])

    def encode_spans(self, spans: Iterable[tuple[str, bool]]) -> list[int]:
        """Returns the ids of the joined (text, trusted) spans; control tokens count in trusted spans only.

        Raises:
          SteError: "text_invalid" if text is not valid Unicode, "tokenizer_invalid" if the tokenizer makes
            control tokens of plain text.
        """
        try:
            return self._encoder.encode(spans)
        except SteError as error:
            if error.code != "tokenizer_invalid":
                raise
            raise SteError(error.code, f"{self._origin}: {error}") from error

    def with_bos(self, ids: list[int]) -> list[int]:
        """Returns the ids of a prompt with a BOS in front, if the model needs one and has none yet."""
        if self.bos_id is None or not self._adds_bos or self.bos_id in ids:
            return ids
        return [self.bos_id, *ids]

    def decode(self, ids: Sequence[int], *, control: bool = False) -> str:
        """Returns the text of `ids`, with or without the control tokens."""
        dropped = set() if control else set(self._control.values())
        return self._backend.decode([int(i) for i in ids if int(i) not in dropped], skip_special_tokens=False)

    def render(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool) -> str:
        """Returns the chat template's text for `messages` (dicts of role and content).

        Raises:
          SteError: "chat_invalid" if the template refuses the messages, such as two user turns in a row.
        """
        try:
            return render(
                self.chat_template,
                messages,
                date=self.chat_date,
                add_generation_prompt=add_generation_prompt,
                special=self._special,
            )
        except SteError as error:
            raise self.refusal(str(error)) from error

    def refusal(self, reason: str) -> SteError:
        """Returns the error that the chat template cannot be used, with its file and the remedy."""
        return SteError(
            "chat_invalid",
            f"{self._origin}: {reason}; give another template (chat_template, --chat_template=FILE)",
        )

    def reachable(self, size: int) -> list[str]:
        """Returns the tokens with ids of `size` and above that a prompt or a completion may need."""
        names = {name: i for name, i in self._backend.get_vocab().items() if i >= size}
        written = {
            name
            for variable, name in self._special.items()
            if isinstance(name, str) and re.search(rf"\b{variable}\b", self.chat_template)
        }
        return [
            name
            for name, i in names.items()
            if name not in self._control
            or name in self.chat_template
            or name in written
            or i in (self.bos_id, *self.stop_ids)
        ]

    def fingerprint(self) -> str:
        """Returns a sha256 that is equal for tokenizers which encode every conversation to the same ids."""
        backend = json.loads(self._backend.to_str())
        for unused in ("version", "truncation", "padding", "post_processor"):
            backend.pop(unused)
        state = [backend, self.chat_template, self.bos_id, self._adds_bos, self.stop_ids]
        # The default date is no part, so that models from before it could be set keep their fingerprints.
        if self.chat_date != DEFAULT_DATE and re.search("strftime_now|date_string", self.chat_template):
            state.append(self.chat_date)
        return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Writes tokenizer.json, its config and template, and generation_config.json (the stop ids)."""
        self._hf.save_pretrained(folder)
        # The class name that every version of transformers knows, and nothing of how we loaded it.
        config = _read_json(folder / "tokenizer_config.json") | {"tokenizer_class": "PreTrainedTokenizerFast"}
        dropped = ("is_local", "local_files_only", "auto_map")
        kept = {key: value for key, value in config.items() if key not in dropped}
        kept |= {_CHAT_DATE: self.chat_date} if self.chat_date != DEFAULT_DATE else {}
        (folder / "tokenizer_config.json").write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        generation = folder / "generation_config.json"
        settings = _read_json(generation) if generation.is_file() else {}
        settings |= {"bos_token_id": self.bos_id, "eos_token_id": list(self.stop_ids)}
        generation.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")

    def _turn_ends(self) -> tuple[int | None, int | None]:
        """Returns the first and the last control token that the template writes after an assistant turn.

        Raises:
          SteError: "chat_invalid" if the template refuses a user's turn, too.
        """
        words = "assistant-words"
        turns = [{"role": "user", "content": "user-words"}, {"role": "assistant", "content": words}]
        try:
            _, found, rest = self.render(turns, add_generation_prompt=False).rpartition(words)
        except SteError:
            # Prompts of this package end in a user's turn: a template for these is enough.
            self.render(turns[:1], add_generation_prompt=True)
            return None, None
        ends = self._encoder.pattern.findall(rest) if found else []
        return (self._control[ends[0]], self._control[ends[-1]]) if ends else (None, None)

    def _shows_system(self) -> bool:
        words = "system-words"
        turns = [{"role": "system", "content": words}, {"role": "user", "content": "user-words"}]
        try:
            return words in self.render(turns, add_generation_prompt=True)
        except SteError:
            return False


def load_tokenizer(
    source: str | Path, chat: ChatSettings | None = None, embedded: int | None = None
) -> Tokenizer:
    """Returns the tokenizer of a folder (tokenizer.json or sentencepiece tokenizer.model) or of a .gguf file.

    Args:
      source: The folder or file.
      chat: What replaces the chat template of the model, or a part of it.
      embedded: See `Tokenizer`.

    Raises:
      SteError: "tokenizer_invalid" if it is missing, cannot be read, or has no chat template;
        "file_not_found" or "chat_invalid" if `chat` names no template.
    """
    path, chat = Path(source), chat or ChatSettings()
    template = chat.read() if chat.template else None
    try:
        hf, stop_ids, date = _read(path)
        if template is not None:
            hf.chat_template = template
        origin = chat.template or str(path)
        return Tokenizer(hf, stop_ids, origin=origin, date=chat.date or date, embedded=embedded)
    except SteError as error:
        message = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise SteError("tokenizer_invalid", message) from error
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    # The libraries raise anything for a broken file; the Rust ones a panic, which is no Exception.
    except BaseException as error:
        raise SteError(
            "tokenizer_invalid",
            f"{path}: the files of the tokenizer are broken ({type(error).__name__}: {error}): download them "
            "again",
        ) from error


def _read(path: Path) -> "tuple[PreTrainedTokenizerFast, list[int], str]":
    """Returns a tokenizer of transformers, the ids that end a completion, and the date of its template."""
    if _is_gguf(path):
        return *read_gguf(path), DEFAULT_DATE
    if (path / "tokenizer.json").is_file():
        read = _read_tokenizer_json
    elif (path / "tokenizer.model").is_file():
        read = _read_sentencepiece
    else:
        raise SteError(
            "tokenizer_invalid",
            f"{path}: not a .gguf file nor a folder with tokenizer.json or tokenizer.model: is it right?",
        )
    config = path / "tokenizer_config.json"
    date = _read_json(config).get(_CHAT_DATE, DEFAULT_DATE) if config.is_file() else DEFAULT_DATE
    hf = read(path)
    return hf, _stop_ids(path, max(hf.backend_tokenizer.get_vocab().values())), date


def _read_tokenizer_json(folder: Path) -> "PreTrainedTokenizerFast":
    from transformers import PreTrainedTokenizerFast  # here: it takes a second, and many commands need none

    # Not AutoTokenizer: for some `tokenizer_class` names it rebuilds the backend from the vocabulary alone
    # and loses the file's own pre-tokenizer (the digit splitting of SmolLM2, for one).
    try:
        tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the Rust library raises nothing more precise
        raise SteError(
            "tokenizer_invalid", f"tokenizer.json is broken ({error}): download it again"
        ) from error
    return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)


def _read_sentencepiece(folder: Path) -> "PreTrainedTokenizerFast":
    from transformers import LlamaTokenizer

    try:
        sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    except RuntimeError as error:
        raise SteError(
            "tokenizer_invalid",
            "tokenizer.model is not a sentencepiece model: download it, or (Llama 3) add tokenizer.json",
        ) from error
    return LlamaTokenizer.from_pretrained(folder, local_files_only=True)


def _stop_ids(path: Path, largest: int) -> list[int]:
    """Returns the eos_token_id list of the folder's generation_config.json, if it has one.

    Args:
      path: The folder.
      largest: Largest id of the vocabulary.
    """
    file = path / "generation_config.json"
    if not file.is_file():
        return []
    stop = _read_json(file).get("eos_token_id")
    ids = stop if isinstance(stop, list) else [] if stop is None else [stop]
    if not all(type(i) is int and 0 <= i <= largest for i in ids):
        raise SteError(
            "tokenizer_invalid",
            f"generation_config.json: eos_token_id must be one or more token ids from 0 to {largest}, not "
            f"{stop!r}",
        )
    return ids


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise SteError("tokenizer_invalid", f"{file.name} is not JSON ({error}): fix or remove it") from error
    if not isinstance(value, dict):
        raise SteError("tokenizer_invalid", f"{file.name} must hold a JSON object: fix or remove it")
    return value


def _is_gguf(origin: str | Path) -> bool:
    return Path(origin).suffix == ".gguf"


def _template_of(hf: "PreTrainedTokenizerFast", origin: str) -> str:
    """Returns the chat template of a model; of several, the default one."""
    own = hf.chat_template
    if isinstance(own, dict):
        own = own.get("default")
    if isinstance(own, str):
        return own
    several = f" but those named {', '.join(map(str, hf.chat_template))}" if hf.chat_template else ""
    remedy = "" if _is_gguf(origin) else ", or add chat_template to its tokenizer_config.json"
    raise SteError(
        "chat_invalid",
        f"no chat template{several}: a base model, or one without a default; pass an instruct model, or give "
        f"a template (chat_template, --chat_template=FILE){remedy}",
    )


def _control_tokens(
    backend: tokenizers.Tokenizer, chat_template: str, embedded: int | None
) -> dict[str, int]:
    """Returns the ids of the added tokens that must never come out of plain text, by name.

    They are the special ones, those that the template writes (`<tool_call>` is often not marked special), and
    those that the model does not embed. Added tokens of mere white space (as in Gemma) are ordinary text.
    """
    return {
        token.content: i
        for i, token in backend.get_added_tokens_decoder().items()
        if token.content.strip()
        and (token.special or token.content in chat_template or i >= (embedded or i + 1))
    }
