"""The model card: what a model on disk says of itself (`model.json`)."""

import dataclasses
from typing import Any, Self

from ste_jax.models.llama import LlamaConfig


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """A model's identity and everything that whoever uses it must agree with.

    Attributes:
      name: for people; identity is the weights' hash.
      architecture: of the weights beside the card.
      tokenizer_hash: `Tokenizer.fingerprint()` of the tokenizer beside the card.
      stop_ids: the ids that end a completion.
      parent: digest of the model that this one was trained from (None: a seed).
      weights_hash: names the weights; for our own folders `save_model` computes it.
      judge_prompt: the JSON of the `JudgePrompt` that the model was trained on (None: no judge).
      parser: the name of the verdict parser that goes with the prompt (None: no judge).
    """

    name: str
    architecture: LlamaConfig
    tokenizer_hash: str
    stop_ids: tuple[int, ...]
    parent: str | None = None
    weights_hash: str = ""
    judge_prompt: dict[str, str] | None = None
    parser: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a JSON-ready dict."""
        return {
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self)},
            "architecture": self.architecture.to_json(),
            "stop_ids": list(self.stop_ids),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Builds the card of a dict that `to_json` made.

        Raises:
          ValueError: names the fields that are missing, unknown or ill-formed.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(value, dict) or value.keys() != fields:
            odd = sorted(fields.symmetric_difference(value if isinstance(value, dict) else ()))
            raise ValueError(
                f"model card: fields {odd} are missing or unknown; the card is of another version"
            )
        try:
            architecture = LlamaConfig.from_json(value["architecture"])
        except (TypeError, AttributeError) as error:
            raise ValueError(f"model card: field architecture is ill-formed ({error})") from error
        return cls(**{**value, "architecture": architecture, "stop_ids": tuple(value["stop_ids"])})
