"""Checks that the seed model's chat template renders the prompts of a run, before anything is generated."""

from collections.abc import Iterator, Sequence

from ste_jax.config import RunConfig
from ste_jax.instructions.labels import label_prompt
from ste_jax.judging.protocol import JudgingProtocol
from ste_jax.pairs.construction import degraded_answer_prompt, modify_and_answer_prompt, modify_prompt
from ste_jax.stages.context import Context
from ste_jax.text.chat import Message, encode_chat, to_messages

_QUESTION, _ANSWER = "Name a river.", "The Loire."


def check_template(context: Context) -> None:
    """Renders one prompt of each kind with the chat template of the seed model.

    Raises:
      SteError: "chat_invalid", naming the template and the remedy.
    """
    tokenizer = context.seed_model.tokenizer
    for messages in _conversations(context.config):
        encode_chat(tokenizer, messages)
    JudgingProtocol(context.judging, tokenizer).check_template()


def _conversations(config: RunConfig) -> Iterator[Sequence[Message]]:
    yield [Message("user", _QUESTION)]
    if categories := config.select.categories:
        yield to_messages(label_prompt(_QUESTION, categories))
    prompts = {
        "modified": modify_prompt(_QUESTION),
        "modified_one_call": modify_and_answer_prompt(_QUESTION, _ANSWER),
        "degraded": degraded_answer_prompt(_QUESTION, _ANSWER),
    }
    for mode in config.pairs.modes:
        if mode in prompts:
            yield to_messages(prompts[mode])
