"""The protocol between comparisons and the engine: prompts in both orders, and judgments of completions.

Annotation, validation, evaluation and the public `Judge` all use it, so a judge is trained, measured and
called with the same prompt, parser and token budget.
"""

import dataclasses
import logging
from collections.abc import Sequence

from ste_jax.checkpoint.source import CARD, ModelSource
from ste_jax.decode.protocol import Completion, ForcedSuffix, RequestLimits
from ste_jax.errors import SteError
from ste_jax.judging.prompts import JudgePrompt
from ste_jax.judging.verdict import (
    PARSER,
    ForcedVerdict,
    Verdict,
    letter_position,
    parse_verdict,
    verdict_suffix,
)
from ste_jax.records import ORDERS, Comparison, Judgment, Label, Order
from ste_jax.text.chat import Message, encode_chat
from ste_jax.text.tokenizer import Tokenizer

_log = logging.getLogger(__name__)
_RIVERS = Comparison(id="check", instruction="Name a river.", response_a="Loire", response_b="Paris")
_LETTERS: tuple[Label, Label] = ("A", "B")


@dataclasses.dataclass(frozen=True)
class JudgeSettings:
    """Settings of the judgments of a judge.

    Attributes:
      prompt: the judge prompt.
      max_new_tokens: token budget of a judgment; 0, with `force_verdict`, is the verdict alone.
      force_verdict: append the verdict opening to a judgment that ended without a verdict.
      seed: seed of all draws.
    """

    prompt: JudgePrompt
    max_new_tokens: int
    force_verdict: bool
    seed: int


def trained_prompt(source: ModelSource) -> JudgePrompt | None:
    """Returns the prompt that a model was trained with as a judge, or None.

    Raises:
      SteError: its card is broken.
    """
    if source.card is None or source.card.judge_prompt is None:
        return None
    try:
        return JudgePrompt.from_json(source.card.judge_prompt)
    except SteError as error:
        raise SteError(error.code, f"{source.path / CARD}: {error}") from error


def is_trained_with(source: ModelSource, prompt: JudgePrompt) -> bool:
    """Returns True if a model was trained as a judge with a prompt, its rubric included."""
    card, trained = source.card, trained_prompt(source)
    return (
        card is not None
        and trained is not None
        and prompt.is_same_template(trained)
        and card.parser == PARSER
    )


def check_prompt(source: ModelSource, prompt: JudgePrompt) -> None:
    """Refuses a prompt or parser other than those that a judge was trained with.

    Raises:
      SteError: they differ ("untrained_prompt").
    """
    card, trained = source.card, trained_prompt(source)
    if card is not None and trained is not None and not is_trained_with(source, prompt):
        if card.parser != PARSER:
            differs = f"the parser {card.parser}, not {PARSER}"
        elif prompt.is_same_template(dataclasses.replace(trained, rubric=prompt.rubric)):
            differs = f"another rubric of the prompt {trained.name}"
        else:
            differs = f"the prompt {trained.name}, not {prompt.name}"
        raise SteError(
            "untrained_prompt",
            f"{source.path}: this judge was trained with {differs}; set judge_prompt and rubric (--prompt "
            "and --rubric) to those of its training, or, outside of runs, allow_untrained_prompt",
        )


def check_reference(
    source: ModelSource, prompt: JudgePrompt, reference: str | None, *, untrained: bool
) -> None:
    """Refuses a reference that the prompt cannot show, or that a judge was not trained to read.

    Judges of runs are trained on pairs without references, unless their prompt needs one, so that a reference
    changes their prompt.

    Args:
      source: the judge.
      prompt: its prompt.
      reference: a correct answer to show, or None.
      untrained: True to accept a reference for a judge that was trained without.

    Raises:
      SteError: "prompt_no_reference", "reference_missing" or "untrained_prompt".
    """
    prompt.check_reference(reference)
    card = source.card
    if (
        reference is not None
        and not (untrained or prompt.needs_reference)
        and card is not None
        and card.judge_prompt is not None
    ):
        raise SteError(
            "untrained_prompt",
            f"{source.path}: this judge was trained without references; leave the reference out, or load the "
            "judge with allow_untrained_prompt",
        )


class JudgingProtocol:
    """Turns comparisons into prompts and completions into judgments.

    Args:
      settings: prompt, token budget, verdict forcing and seed.
      tokenizer: tokenizer of the judge.

    Attributes:
      choices: ids of the letters A and B, whose log-probabilities the engine records; () if the tokenizer has
        no single token for them.
      imitations: imitated delimiters and verdicts, counted by comparison id until they are logged.
    """

    def __init__(self, settings: JudgeSettings, tokenizer: Tokenizer):
        self.settings = settings
        self._tokenizer = tokenizer
        self._verdict_ids = _verdict_ids(settings, tokenizer)
        self.choices: tuple[int, ...] = self._verdict_ids.choices if self._verdict_ids else ()
        self.imitations: dict[str, int] = {}

    @property
    def suffix(self) -> ForcedSuffix | None:
        """The tokens that the engine appends to a judgment without a verdict, if verdicts are forced."""
        if not self.settings.force_verdict or self._verdict_ids is None:
            return None
        return ForcedSuffix(
            self._verdict_ids.opening,
            self._verdict_ids.choices,
            lambda tokens: self._verdict(tokens, truncated=True)[1].label is None,
        )

    @property
    def room(self) -> int:
        """Most tokens that a judgment can take, a forced verdict included."""
        suffix = self.suffix
        return self.settings.max_new_tokens + (len(suffix.prefix_ids) + 1 if suffix else 0)

    def prompt_ids(self, comparison: Comparison, order: Order) -> tuple[int, ...]:
        """Returns the ids of the prompt that shows a comparison in `order`."""
        prompt = self.settings.prompt
        first, second = comparison.shown(order)
        text, imitations = prompt.fill_and_count(
            comparison.instruction, first, second, comparison.reference, comparison.texts
        )
        if imitations:
            self.imitations[comparison.id] = imitations
        messages = [Message("system", prompt.system)] if prompt.system else []
        return tuple(encode_chat(self._tokenizer, [*messages, Message("user", text)]))

    def verdict_ids(self, comparison: Comparison, order: Order) -> tuple[int, ...]:
        """Returns the ids of the prompt and of the opening of a forced verdict, after which a letter follows.

        Raises:
          SteError: "chat_invalid" if the chat template refuses or rewrites the texts.
        """
        assert self._verdict_ids is not None, "the settings force verdicts"
        return (*self.prompt_ids(comparison, order), *self._verdict_ids.opening)

    def check_template(self) -> None:
        """Renders the prompt of a short comparison, before anything is generated.

        Raises:
          SteError: "chat_invalid" if the chat template refuses or rewrites it.
        """
        prompt = self.settings.prompt
        reference = "Loire" if prompt.needs_reference else None
        texts = dict.fromkeys(prompt.columns, "Rivers of Europe")
        self.prompt_ids(dataclasses.replace(_RIVERS, reference=reference, texts=texts), ORDERS[0])

    def log_imitations(self) -> None:
        """Logs how many comparisons imitate delimiters or verdicts of the prompt, and forgets them."""
        if found := self.imitations:
            self.imitations = {}
            first = next(iter(found))
            _log.info(
                "%d comparisons imitate delimiters or verdicts of the prompt, %d times in all, %s among "
                "them; their marks are not shown to the judge",
                len(found),
                sum(found.values()),
                first,
            )

    def prompts(
        self, comparison: Comparison, limits: RequestLimits, orders: Sequence[Order] = ORDERS
    ) -> dict[Order, tuple[int, ...]] | None:
        """Returns the prompt ids by order, or None if one of them does not fit with its judgment.

        Raises:
          SteError: the chat template refuses or rewrites the texts; the message names the comparison.
        """
        try:
            prompts: dict[Order, tuple[int, ...]] = {
                order: self.prompt_ids(comparison, order) for order in orders
            }
        except SteError as error:
            raise SteError(error.code, f"comparison {comparison.id}: {error}") from error
        if any(limits.refusal(len(prompt), self.room) for prompt in prompts.values()):
            return None
        return prompts

    def judgment(self, comparison: Comparison, order: Order, completion: Completion) -> Judgment:
        """Returns the judgment that a completion holds."""
        tokens = list(completion.tokens)
        if completion.forced and self._verdict_ids:
            tokens += self._verdict_ids.closing
        text, verdict = self._verdict(tokens, truncated=completion.finish == "length")
        right = comparison.correct_verdict(order)
        return Judgment(
            id=f"{comparison.id}/{order}/{completion.sample}",
            pair_id=comparison.id,
            order=order,
            sample=completion.sample,
            text=text,
            tokens=tokens,
            verdict=verdict.label,
            status=verdict.status,
            forced=completion.forced,
            correct=None if right is None else verdict.label == right,
            finish=completion.finish,
            log_odds=self._log_odds(completion, text, verdict),
        )

    def _verdict(self, tokens: Sequence[int], *, truncated: bool) -> tuple[str, Verdict]:
        text = self._tokenizer.decode(tokens)
        return text, parse_verdict(text, truncated=truncated)

    def _log_odds(self, completion: Completion, text: str, verdict: Verdict) -> float | None:
        """Returns log P(A) - log P(B) at the verdict letter, or None if it is not a token of its own."""
        if verdict.label is None or completion.choice_logprobs is None or not self.choices:
            return None
        if completion.forced:
            index = len(completion.tokens) - 1
        else:
            index = self._token_at(completion.tokens, letter_position(text))
        if completion.tokens[index] != self.choices[_LETTERS.index(verdict.label)]:
            return None
        first, second = completion.choice_logprobs[index]
        return float(first) - float(second)

    def _token_at(self, tokens: Sequence[int], position: int) -> int:
        """Returns the index of the token that writes the character at a position of the decoded text."""
        end = len(tokens)
        while end > 1 and len(self._tokenizer.decode(tokens[: end - 1])) > position:
            end -= 1
        return end - 1


def _verdict_ids(settings: JudgeSettings, tokenizer: Tokenizer) -> ForcedVerdict | None:
    """Returns the ids of a forced verdict; None if the tokenizer has none and none is needed."""
    try:
        return verdict_suffix(tokenizer.encode_plain)
    except SteError:
        if settings.force_verdict:
            raise
        return None
