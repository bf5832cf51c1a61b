"""The model card (`model.json`): the identity of a model on disk and how it was trained to judge."""

import dataclasses
from typing import Any, Self

from ste_jax.errors import SteError
from ste_jax.models.llama import LlamaConfig

SCHEMA_VERSION = 2
# Fields of every version; later versions add fields with defaults. Cards of version 1 do not state theirs.
_FIRST_FIELDS = frozenset(
    ("name", "architecture", "tokenizer_hash", "stop_ids", "parent", "weights_hash", "judge_prompt", "parser")
)


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """Identity of a model and everything that a user of it must agree with.

    Attributes:
      name: Name for people; the identity of the model is `weights_hash`.
      architecture: Architecture of the weights in the same folder.
      tokenizer_hash: `Tokenizer.fingerprint()` of the tokenizer in the same folder.
      stop_ids: Token ids that end a completion.
      parent: Digest of the model that training started from (None: a seed model).
      weights_hash: Hash of the parameters; `save_model` computes it for own model folders.
      judge_prompt: JSON of the `JudgePrompt` that the model was trained with (None: not a judge).
      parser: Name of the verdict parser that belongs to the prompt (None: not a judge).
      max_new_tokens: Maximum number of new tokens per judgment in training (None: unknown).
      force_verdict: True if a missing verdict was forced in training (None: unknown).
      dtype: Dtype in which the judgments of training were computed (None: unknown).
      calibration: JSON written by `ste calibrate`: temperature, threshold and how they were fitted (None:
        not calibrated).
      base_model: Name of the model that the first training started from (None: unknown).
      shortcuts: Panel of the evaluation of its run: what the judge decides by and is not for, in sentences
        with their numbers (None: not evaluated).
      chosen_by: Hashes of the texts of the labelled pairs that chose its checkpoint, or that of a model that
        it was trained from (see `pairs.used`); they are no test of it.
      schema_version: Version of this format.
    """

    name: str
    architecture: LlamaConfig
    tokenizer_hash: str
    stop_ids: tuple[int, ...]
    parent: str | None = None
    weights_hash: str = ""
    judge_prompt: dict[str, Any] | None = None
    parser: str | None = None
    max_new_tokens: int | None = None
    force_verdict: bool | None = None
    dtype: str | None = None
    calibration: dict[str, Any] | None = None
    shortcuts: dict[str, Any] | None = None
    chosen_by: tuple[str, ...] = ()
    base_model: str | None = None
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a JSON-ready dict."""
        return {
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
            "architecture": self.architecture.to_json(),
            "stop_ids": list(self.stop_ids),
            "chosen_by": list(self.chosen_by),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Builds a card from the result of `to_json`, of this version or an older one.

        Raises:
          SteError: "schema_newer" if a newer version wrote the card, otherwise "card_invalid" naming the
            fields that are missing, unknown or ill-formed.
        """
        if not isinstance(value, dict):
            raise SteError("card_invalid", "model card: not a JSON object; copy the model folder again")
        _check_version(value)
        known = {field.name for field in dataclasses.fields(cls)}
        if value.get("schema_version", 1) == 1:
            known = _FIRST_FIELDS | {"schema_version"}
        if unfit := sorted((_FIRST_FIELDS - value.keys()) | (value.keys() - known)):
            raise SteError(
                "card_invalid",
                f"model card: fields {unfit} are missing or unknown; copy the model folder again",
            )
        _check_types(value)
        try:
            architecture = LlamaConfig.from_json(value["architecture"])
        except (TypeError, AttributeError) as error:
            raise SteError(
                "card_invalid", f"model card: field architecture is ill-formed ({error})"
            ) from error
        parsed = {
            "architecture": architecture,
            "stop_ids": tuple(value["stop_ids"]),
            "chosen_by": tuple(value.get("chosen_by", ())),
        }
        return cls(**{**value, **parsed, "schema_version": SCHEMA_VERSION})


def _check_version(value: dict[str, Any]) -> None:
    version = value.get("schema_version", 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise SteError("card_invalid", f"model card: field schema_version is {version!r}, not a version")
    if version > SCHEMA_VERSION:
        raise SteError(
            "schema_newer",
            f"model card: written in schema version {version}, but this ste_jax reads versions up to "
            f"{SCHEMA_VERSION}; update ste_jax",
        )


def _check_types(value: dict[str, Any]) -> None:
    """Refuses ill-typed values of the fields that need no constructor of their own."""
    stop_ids, chosen_by = value["stop_ids"], value.get("chosen_by", ())
    budget, forced = value.get("max_new_tokens"), value.get("force_verdict")
    for name, valid in (
        ("stop_ids", isinstance(stop_ids, list | tuple) and all(type(i) is int for i in stop_ids)),
        *((name, isinstance(value[name], str)) for name in ("name", "tokenizer_hash", "weights_hash")),
        *((name, isinstance(value[name], str | None)) for name in ("parent", "parser")),
        ("judge_prompt", isinstance(value["judge_prompt"], dict | None)),
        ("max_new_tokens", budget is None or (type(budget) is int and budget >= 0)),
        ("force_verdict", forced is None or isinstance(forced, bool)),
        *((name, isinstance(value.get(name), str | None)) for name in ("dtype", "base_model")),
        ("calibration", isinstance(value.get("calibration"), dict | None)),
        (
            "chosen_by",
            isinstance(chosen_by, list | tuple) and all(isinstance(one, str) for one in chosen_by),
        ),
        ("shortcuts", _is_panel(value.get("shortcuts"))),
    ):
        if not valid:
            raise SteError("card_invalid", f"model card: field {name} is ill-formed: {value[name]!r}")


def _is_panel(value: Any) -> bool:
    """Returns True for None, and for a summary with lines of text."""
    if value is None:
        return True
    if not isinstance(value, dict) or not isinstance(value.get("summary"), str):
        return False
    return isinstance(value.get("lines"), list) and all(map(_is_line, value["lines"]))


def _is_line(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    bounds = value.get("interval95")
    numbers = [value.get("share"), *(bounds if isinstance(bounds, list) else [])]
    return (
        all(isinstance(value.get(name), str) for name in ("name", "text"))
        and isinstance(value.get("warning"), str | None)
        and isinstance(bounds, list | None)
        and len(numbers) in (1, 3)
        and all(isinstance(number, int | float) for number in numbers)
    )
