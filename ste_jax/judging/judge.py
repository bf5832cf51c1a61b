"""Judging pairs in both orders: the one way in which judgments are made, for annotation, evaluation and
validation.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from ste_jax.checkpoint.source import ModelSource
from ste_jax.decode.protocol import Backend, Completion, ForcedSuffix, Group, Limits, Request, Sampling
from ste_jax.judging.prompts import JudgePrompt
from ste_jax.judging.verdict import PARSER, parse_verdict, verdict_tail
from ste_jax.randomness import sample_keys
from ste_jax.records import ORDERS, Comparison, Judgment, Order
from ste_jax.text.chat import Message, encode_chat
from ste_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class JudgeSettings:
    """How judgments are made: prompt, budget of tokens, what ends one without a verdict, seed."""

    prompt: JudgePrompt
    max_new_tokens: int
    force_verdict: bool
    seed: int


def check_prompt(source: ModelSource, prompt: JudgePrompt) -> None:
    """Refuses to use a judge with another prompt or parser than those that it was trained with.

    Raises:
      ValueError: they are not its own.
    """
    card = source.card
    if card is None or card.judge_prompt is None:
        return
    if not prompt.is_same_template(JudgePrompt.from_json(card.judge_prompt)) or card.parser != PARSER:
        raise ValueError(
            f"{source.path}: this judge was trained with another prompt or parser "
            f"({card.judge_prompt['name']}, {card.parser}) than what is asked for ({prompt.name}, "
            f"{PARSER}); set judge_prompt and rubric (--prompt and --rubric) to its own"
        )


class Judge:
    """Turns pairs into requests and completions into judgments, with one prompt and one parser."""

    def __init__(self, settings: JudgeSettings, tokenizer: Tokenizer):
        self._seed = settings.seed
        self._prompt = settings.prompt
        self._tokenizer = tokenizer
        self._max_new_tokens = settings.max_new_tokens
        self._forced = verdict_tail(tokenizer.encode_plain) if settings.force_verdict else None

    @property
    def forced_suffix(self) -> ForcedSuffix | None:
        """The suffix of judgments without a verdict, or None where verdicts are not forced."""
        if self._forced is None:
            return None
        return ForcedSuffix(
            self._forced.opening, self._forced.choices, lambda tokens: self._verdict(tokens, True)[1] is None
        )

    def _verdict(self, tokens: Sequence[int], truncated: bool):
        text = self._tokenizer.decode(tokens)
        verdict = parse_verdict(text, truncated=truncated)
        return text, verdict.label, verdict.status

    def prompt_ids(self, pair: Comparison, order: Order) -> tuple[int, ...]:
        """Returns the prompt that shows `pair` in `order`."""
        first, second = pair.shown(order)
        messages = [Message("user", self._prompt.fill(pair.instruction, first, second))]
        if self._prompt.system:
            messages.insert(0, Message("system", self._prompt.system))
        return tuple(encode_chat(self._tokenizer, messages))

    def requests(
        self, pairs: Sequence[Comparison], stage: str, samples: int, limits: Limits
    ) -> tuple[list[Request], list[str]]:
        """Returns a request for every pair and order, and the ids of pairs that do not fit (both orders left
        out).
        """
        room = self._max_new_tokens + (len(self._forced.opening) + 1 if self._forced else 0)
        requests, too_long = [], []
        for pair in pairs:
            prompts = {order: self.prompt_ids(pair, order) for order in ORDERS}
            if any(limits.refusal(len(prompt), room) for prompt in prompts.values()):
                too_long.append(pair.id)
                continue
            for order, prompt in prompts.items():
                id_ = f"{pair.id}/{order}"
                keys = sample_keys(self._seed, stage, id_, samples)
                requests.append(Request(id_, prompt, keys, self._max_new_tokens))
        return requests, too_long

    def maker(self, pairs: Sequence[Comparison]) -> Callable[[Group], list[Judgment]]:
        """Returns the function that makes the judgments of a group."""
        by_id: dict[str, tuple[Comparison, Order]] = {
            f"{pair.id}/{order}": (pair, order) for pair in pairs for order in ORDERS
        }
        return lambda group: [
            self._judgment(*by_id[group.id], completion) for completion in group.completions
        ]

    def _judgment(self, pair: Comparison, order: Order, completion: Completion) -> Judgment:
        tokens = list(completion.tokens)
        if completion.forced and self._forced:
            tokens += self._forced.closing
        text, label, status = self._verdict(tokens, completion.finish == "length")
        return Judgment(
            id=f"{pair.id}/{order}/{completion.sample}",
            pair_id=pair.id,
            order=order,
            sample=completion.sample,
            text=text,
            tokens=tokens,
            verdict=label,
            status=status,
            forced=completion.forced,
            correct=label == pair.correct_verdict(order),
            finish=completion.finish,
        )

    def is_correct(self, pair: Comparison, order: Order, completion: Completion) -> bool:
        """Says whether a completion judges `pair` right."""
        return self._judgment(pair, order, completion).correct


def judge_now(
    judge: Judge, backend: Backend, pairs: Sequence[Comparison], stage: str, sampling: Sampling
) -> Iterator[Judgment]:
    """Yields one judgment of each pair and order assigned to the replica group of `backend`; stores none."""
    requests, _ = judge.requests(pairs, stage, 1, backend)
    make, others = judge.maker(pairs), {r.id for r in requests if not backend.replica_group.is_assigned(r.id)}
    for group in backend.generate(requests, sampling, done=others, suffix=judge.forced_suffix):
        if group.error is not None:
            raise group.error
        yield from make(group)
