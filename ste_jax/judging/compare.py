"""One call of `Judge.compare`: its settings, and its result from the judgments of all orders."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, cast, get_args

from ste_jax.checkpoint.source import ModelSource
from ste_jax.checks import as_list, check_whole
from ste_jax.data.comparisons import comparisons_from_rows
from ste_jax.data.fields import check_unique
from ste_jax.data.named_columns import NamedColumns
from ste_jax.decode.protocol import GREEDY, RequestLimits, Sampling
from ste_jax.errors import SteError
from ste_jax.judging.decision import DecisionRule, decide, order_result, undecided
from ste_jax.judging.protocol import JudgeSettings, JudgingProtocol
from ste_jax.judging.stream import Judged
from ste_jax.judging.verdict import PARSER
from ste_jax.records import ORDERS, Comparison, ComparisonResult, Order
from ste_jax.storage.files import digest

VOTES = Sampling(temperature=0.7, top_p=0.9)
Orders = Literal["both", "one"]
OnFlip = Literal["probability", "abstain"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Settings of one call of `compare` or `compare_many`.

    Attributes:
      votes: samples of each order; 1 is one greedy judgment.
      orders: "both" orders, or "one": as given only.
      on_flip: "abstain" to abstain where the verdicts of the orders disagree.
    """

    votes: int = 1
    orders: Orders = "both"
    on_flip: OnFlip = "probability"

    def __post_init__(self):
        check_whole("votes", self.votes, least=1)
        for name, kind in (("orders", Orders), ("on_flip", OnFlip)):
            if getattr(self, name) not in get_args(kind):
                choices = " or ".join(map(repr, get_args(kind)))
                raise SteError("argument_invalid", f"{name} must be {choices}, not {getattr(self, name)!r}")

    @property
    def shown(self) -> tuple[Order, ...]:
        """The orders to judge."""
        return ORDERS if self.orders == "both" else ORDERS[:1]

    @property
    def sampling(self) -> Sampling:
        """Greedy for a single judgment, that of the paper for votes."""
        return GREEDY if self.votes == 1 else VOTES


def result_of(found: Mapping[Order, Judged], rule: DecisionRule, prompt_digest: str) -> ComparisonResult:
    """Returns the decision from the judgments of all orders of a comparison."""
    items = [found[order] for order in ORDERS if order in found]
    comparison = items[0].comparison
    if any(item.skipped for item in items):
        return undecided(comparison, "too_long", prompt_digest=prompt_digest)
    if errors := [item.error for item in items if item.error is not None]:
        return undecided(comparison, "no_verdict", prompt_digest=prompt_digest, error=str(errors[0]))
    prompt_tokens = sum(item.prompt_tokens for item in items)
    completion_tokens = sum(item.completion_tokens for item in items)
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    orders = [
        order_result(content_key(comparison, item.order), item.order, item.judgments, seed=rule.seed)
        for item in items
    ]
    return decide(comparison, orders, rule, usage=usage, prompt_digest=prompt_digest)


def identical_result(
    comparison: Comparison, protocol: JudgingProtocol, limits: RequestLimits, orders: Sequence[Order]
) -> ComparisonResult:
    """Returns the result of identical responses, which are not judged: "too_long", else a tie."""
    prompt_digest = protocol.settings.prompt.digest(with_reference=comparison.reference is not None)
    try:
        fits = protocol.prompts(comparison, limits, orders) is not None
    except SteError as error:
        return undecided(comparison, "no_verdict", prompt_digest=prompt_digest, error=str(error))
    return undecided(comparison, "tie" if fits else "too_long", prompt_digest=prompt_digest)


def checked_comparisons(
    pairs: Iterable[Mapping[str, Any] | Comparison], named: NamedColumns
) -> list[Comparison]:
    """Returns the comparisons of dicts, or of `Comparison` records, whose ids must be unique.

    Args:
      pairs: dicts or records.
      named: the columns that the judge prompt shows.

    Raises:
      SteError: "argument_invalid" or "data_invalid".
    """
    if isinstance(pairs, str | bytes | Mapping):
        raise SteError(
            "argument_invalid", "pairs must be an iterable of dicts; load a file by ste.load_pairs"
        )
    items = as_list("pairs", pairs)
    if items and all(isinstance(item, Comparison) for item in items):
        comparisons = cast(list[Comparison], items)
        check_unique([comparison.id for comparison in comparisons], "pairs")
        return comparisons
    return list(comparisons_from_rows(cast(list[Mapping[str, Any]], items), named=named))


def content_key(comparison: Comparison, order: Order, *, pointwise: bool = False) -> str:
    """Returns the name that the random draws of a prompt belong to: exchanging the responses keeps it."""
    shown = comparison.shown(order)[: 1 if pointwise else 2]
    # Only where there are any, so that the draws of other comparisons stay.
    texts = [comparison.texts] if comparison.texts else []
    return digest([comparison.instruction, *shown, comparison.reference, *texts])


def content_hash(comparisons: Sequence[Comparison]) -> str:
    """Returns the sha256 of comparisons, computed over the hash of each."""
    return digest([digest(comparison.to_json()) for comparison in comparisons])


def source_settings(source: ModelSource, judging: JudgeSettings) -> dict[str, Any]:
    """Returns the part of a run's settings that identifies the model, its prompt and its parser."""
    return {
        "model": {
            "name": source.name,
            "hash": source.digest(),
            "parent": source.card.parent if source.card else None,
            "parameters": source.architecture.parameter_count,
        },
        "tokenizer_hash": source.tokenizer.fingerprint(),
        "template_hash": digest(source.tokenizer.chat_template),
        "stop_ids": list(source.tokenizer.stop_ids),
        "prompt": judging.prompt.to_json(),
        "prompt_hash": judging.prompt.digest(),
        "parser": PARSER,
        "max_new_tokens": judging.max_new_tokens,
        "force_verdict": judging.force_verdict,
        "seed": judging.seed,
    }
