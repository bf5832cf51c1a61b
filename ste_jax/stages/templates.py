"""Checks that the seed model can read the prompts of a run, before anything is generated."""

from collections.abc import Iterator, Sequence

from ste_jax.config import RunConfig
from ste_jax.errors import SteError
from ste_jax.instructions.labels import label_prompt
from ste_jax.judging.protocol import JudgingProtocol
from ste_jax.pairs.certain import OF_TWO_ANSWERS
from ste_jax.pairs.construction import degraded_answer_prompt, modify_and_answer_prompt, modify_prompt
from ste_jax.stages.context import Context
from ste_jax.text.chat import Message, encode_chat

# Kinds of pairs for which the model answers instructions, also where the better responses are given.
ANSWERED_AGAIN = frozenset(("modified", "high_temperature", *OF_TWO_ANSWERS))
_QUESTION, _ANSWER = "Name a river.", "The Loire."


def check_template(context: Context) -> None:
    """Renders one prompt of each kind, with a short instruction, with the chat template of the seed model.

    Raises:
      SteError: "chat_invalid", naming the template and the remedy, or "prompts_too_long" if one does not fit
        the model with what is to be generated.
    """
    model, decode = context.seed_model, context.config.decode
    limits = decode.limits(model.architecture.context_length)
    for name, messages, new_tokens in _conversations(context.config):
        if refusal := limits.refusal(len(encode_chat(model.tokenizer, messages)), new_tokens):
            raise SteError("prompts_too_long", f"{name}: no prompt of a run fits the model: {refusal}")
    tokenizer = model.tokenizer
    JudgingProtocol(context.judging, tokenizer).check_template()


def _conversations(config: RunConfig) -> Iterator[tuple[str, Sequence[Message], int]]:
    """Yields the setting that needs a prompt, the prompt, and the largest number of new tokens."""
    tokens = config.pairs.max_response_tokens
    if not config.pairs.better_from or ANSWERED_AGAIN.intersection(config.pairs.modes):
        yield "pairs.max_response_tokens", [Message("user", _QUESTION)], tokens
    if categories := config.select.categories:
        yield "select.categories", label_prompt(_QUESTION, categories), 1
    prompts = {
        "modified": modify_prompt(_QUESTION),
        "modified_one_call": modify_and_answer_prompt(_QUESTION, _ANSWER),
        "degraded": degraded_answer_prompt(_QUESTION, _ANSWER),
    }
    for mode in config.pairs.modes:
        if mode in prompts:
            yield f"pairs.mode {mode}", prompts[mode], tokens
