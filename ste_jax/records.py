"""The records that stages exchange.

Every record is a frozen dataclass of plain JSON values with an `id` that is unique in its record set.
Generated text is stored together with the token ids that it was decoded from.
"""

import dataclasses
from typing import Any, Literal, Self

from ste_jax.errors import SteError
from ste_jax.typed_json import build, check_types, check_unicode, field_checks

Label = Literal["A", "B"]
Outcome = Literal["A", "B", "tie"]
Order = Literal["as_given", "swapped"]
# Use of a pair in a run.
Part = Literal["train", "validation", "test"]
ORDERS: tuple[Order, Order] = ("as_given", "swapped")
# Key of `Comparison.metadata` for what a result file stores in place of the texts (see metrics.traits).
SURFACE_KEY = "__surface__"


def opposite(label: Label) -> Label:
    """Returns the other one of the two labels."""
    return "B" if label == "A" else "A"


def _without(value: dict[str, Any], *names: str) -> dict[str, Any]:
    """Returns a dict without some names, so that records without these fields keep their hashes."""
    return {name: item for name, item in value.items() if name not in names}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """Base class of all records, with conversion to and from JSON."""

    id: str

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a JSON-ready dict."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Builds the record of a dict that `to_json` made.

        Raises:
          SteError: "data_invalid": a field is missing, unknown or of another type.
        """
        try:
            record = build(cls, value)
            check_unicode(value)
        except (ValueError, RecursionError) as error:
            raise SteError("data_invalid", f"not a {cls.__name__} ({error})") from error
        return record


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instruction(Record):
    """An unlabelled instruction with the labels of the selecting model (None: not parsed or labelled).

    Attributes:
      response: the response of the column `pairs.better_from`; None if no column is named.
      reference: a correct answer, if the judge prompt shows one.
      texts: further texts that the judge prompt shows, by the column that they are from.
    """

    text: str
    source: str
    category: str | None = None
    complexity: int | None = None
    length: str | None = None
    response: str | None = None
    reference: str | None = None
    texts: dict[str, str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a JSON-ready dict, without the last three where they are empty."""
        value = super().to_json()
        return _without(value, *(name for name in ("response", "reference", "texts") if not value[name]))

    @property
    def whole(self) -> str:
        """The text with those that the judge prompt shows below it: what filters and a model read."""
        return "\n\n".join([self.text, *filter(str.strip, self.texts.values())])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation(Record):
    """One completion of a request: its ids without the stop id, its text, and why it ended."""

    text: str
    tokens: list[int]
    finish: Literal["stop", "length"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison(Record):
    """Two responses to one instruction.

    Constructed pairs place the better response at a position drawn from the seed, so that a judge that always
    answers "A" is right half of the time in either order.

    Attributes:
      instruction: the text that both responses answer.
      response_a: the first response as given.
      response_b: the second response as given.
      label: the better response, "tie", or None if unknown.
      prompt_id: shared by the comparisons of one prompt, which are not independent ("": none shares it).
      reference: a correct answer shown to the judge, if there is one.
      subset: subset of a benchmark, or the kind of a constructed pair ("": none).
      category: category of the instruction, if it was labelled.
      texts: further texts that the judge prompt shows, by the column that they are from.
      votes: number of people who preferred A, B and neither, where single votes are known.
      metadata: anything else that belongs to the comparison, as JSON values. "__surface__" is reserved.
      columns: the optional fields as the input spelled them, by column, which results pass through; None for
        a comparison that was not read from a row. They are not stored and do not count in comparisons.
    """

    instruction: str
    response_a: str
    response_b: str
    label: Outcome | None = None
    prompt_id: str = ""
    reference: str | None = None
    subset: str = ""
    category: str | None = None
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    votes: dict[str, int] = dataclasses.field(default_factory=dict)
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    columns: dict[str, str] | None = dataclasses.field(default=None, compare=False, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a JSON-ready dict, without `columns`, and without `texts` if it is empty."""
        value = super().to_json()
        del value["columns"]
        return value if self.texts else _without(value, "texts")

    @property
    def passed_through(self) -> dict[str, Any]:
        """Columns of the input that a result repeats: optional fields that are set, texts and metadata."""
        given = self.columns
        if given is None:
            names = ("label", "prompt_id", "reference", "subset", "category")
            given = {name: value for name in names if (value := getattr(self, name))}
        others = {name: value for name, value in self.metadata.items() if name != SURFACE_KEY}
        return given | self.texts | others

    @property
    def judged_texts(self) -> list[str | None]:
        """Id and texts that a judgment depends on; label, category and other columns do not matter to it."""
        shown = [text for item in sorted(self.texts.items()) for text in item]
        return [self.id, self.instruction, self.response_a, self.response_b, self.reference, *shown]

    @property
    def cluster(self) -> str:
        """The unit of resampling: all comparisons of a prompt together."""
        return self.prompt_id or self.id

    @property
    def chosen(self) -> str:
        """The better response of a comparison labelled A or B."""
        return self.response_a if self.label == "A" else self.response_b

    @property
    def rejected(self) -> str:
        """The worse response of a comparison labelled A or B."""
        return self.response_b if self.label == "A" else self.response_a

    def shown(self, order: Order) -> tuple[str, str]:
        """Returns the (first, second) response as a judge sees them in `order`."""
        if order == "as_given":
            return self.response_a, self.response_b
        return self.response_b, self.response_a

    def correct_verdict(self, order: Order) -> Label | None:
        """Returns the letter of the better response in `order`, or None for a tie or an unknown label."""
        if self.label is None or self.label == "tie":
            return None
        return self.label if order == "as_given" else opposite(self.label)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgment(Record):
    """One sampled or greedy judgment of a comparison in one order.

    Attributes:
      pair_id: id of the comparison.
      order: the order in which the responses were shown.
      sample: number of the sample, from 0.
      text: completion, forced tokens included.
      tokens: ids of the completion, the end-of-turn id excluded.
      verdict: letter of the preferred response as shown, or None.
      status: outcome of the verdict parser (see `judging.verdict`).
      forced: True if the verdict opening was appended to the completion.
      correct: True if the verdict agrees with the label; None if the comparison has no better response.
      finish: "length" if the token budget ended the completion.
      log_odds: log P("A") - log P("B") at the letter of the last verdict, before temperature; None without a
        verdict, or where the tokenizer does not write the letter as a token of its own.
    """

    pair_id: str
    order: Order
    sample: int
    text: str
    tokens: list[int]
    verdict: Label | None
    status: str
    forced: bool
    correct: bool | None
    finish: Literal["stop", "length"] = "stop"
    log_odds: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class OrderResult:
    """The judgments of a comparison in one order, over their samples.

    Attributes:
      order: the order in which the responses were shown.
      verdict: letter of the preferred response as shown, by majority over the samples.
      log_odds: logit of `probability_first`, or None without a verdict.
      probability_first: probability that the response shown first is better, or None without a verdict.
      text: completion of the first sample with that verdict.
      status: outcome of the verdict parser; without a verdict, the most frequent reason.
      finish_reason: why that completion ended: "stop" or "length".
      forced: share of the samples whose verdict was forced.
      samples: number of samples.
    """

    order: Order
    verdict: Label | None = None
    log_odds: float | None = None
    probability_first: float | None = None
    text: str = ""
    status: str = "ok"
    finish_reason: str = "stop"
    forced: float = 0.0
    samples: int = 1


Abstention = Literal["too_long", "no_verdict", "tie", "flip", "low_confidence"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """The decision of a judge on a comparison.

    Attributes:
      comparison: the comparison that was judged.
      winner: the better response as given, or None if the judge abstained.
      probability_a: probability that response A is better, calibrated if the judge is; None if there are no
        numbers to compute it from.
      log_odds: half the difference of the two orders' log-odds, uncalibrated: positive favors A. Exactly
        antisymmetric under exchange of the responses.
      confidence: max(p, 1 - p) of `probability_a`.
      consistent: True if the verdicts of both orders prefer the same response; None for a single order.
      abstained: reason for the missing winner, or None.
      orders: results by order.
      usage: tokens of all prompts and completions: "prompt_tokens", "completion_tokens", "total_tokens".
      prompt_digest: sha256 of the judge prompt.
      error: why the comparison could not be judged at all, or None.
    """

    comparison: Comparison
    orders: tuple[OrderResult, ...] = ()
    winner: Label | None = None
    probability_a: float | None = None
    log_odds: float | None = None
    confidence: float | None = None
    consistent: bool | None = None
    abstained: Abstention | None = None
    usage: dict[str, int] = dataclasses.field(default_factory=dict)
    prompt_digest: str = ""
    error: str | None = None

    @property
    def id(self) -> str:
        """The id of the comparison."""
        return self.comparison.id

    @property
    def verdicts(self) -> tuple[Label | None, ...]:
        """The verdict of each order, in the letters of that order."""
        return tuple(result.verdict for result in self.orders)

    @property
    def preferred(self) -> tuple[Label | None, ...]:
        """The response, as given, that the verdict of each order prefers."""
        return tuple(
            result.verdict if result.order == "as_given" else result.verdict and opposite(result.verdict)
            for result in self.orders
        )

    @property
    def agreed(self) -> Outcome | None:
        """The response that both orders prefer, "tie" if they disagree, None if a verdict is missing."""
        if not self.preferred or None in self.preferred:
            return None
        return self.preferred[0] if len(set(self.preferred)) == 1 else "tie"

    def to_dict(self) -> dict[str, Any]:
        """Returns the result as a JSON-ready dict: id, further columns of the input, and the decision.

        A column of the input whose name is a field of the decision is returned as `input_NAME`.
        """
        decision = {
            "winner": self.winner,
            "probability_a": self.probability_a,
            "log_odds": self.log_odds,
            "confidence": self.confidence,
            "consistent": self.consistent,
            "abstained": self.abstained,
            "orders": [dataclasses.asdict(order) for order in self.orders],
            "usage": self.usage,
            "prompt_digest": self.prompt_digest,
            "error": self.error,
        }
        columns = self.comparison.passed_through
        renamed = {f"input_{k}" if k in decision or k == "id" else k: v for k, v in columns.items()}
        return {"id": self.id, **renamed, **decision}

    @classmethod
    def from_dict(cls, comparison: Comparison, value: dict[str, Any]) -> Self:
        """Builds the result of a comparison from a dict that `to_dict` made.

        Raises:
          SteError: "data_invalid": a field is missing or of another type.
        """
        names = {field.name for field in dataclasses.fields(cls)} - {"comparison", "orders"}
        try:
            if missing := (names | {"orders"}) - value.keys():
                raise ValueError(f"missing fields: {', '.join(sorted(missing))}")
            decision = {name: value[name] for name in names}
            check_types(decision, field_checks(cls, frozenset(names)))
            if not isinstance(value["orders"], list):
                raise ValueError("orders is no list")
            orders = tuple(_order_of(order) for order in value["orders"])
        except (ValueError, RecursionError) as error:
            raise SteError(
                "data_invalid", f"{comparison.id}: not the result of a comparison ({error})"
            ) from error
        return cls(comparison=comparison, orders=orders, **decision)


def _order_of(value: Any) -> OrderResult:
    try:
        return build(OrderResult, value)
    except ValueError as error:
        raise ValueError(f"in orders, {error}") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingExample(Record):
    """One kept judgment with its prompt, ready for supervised fine-tuning."""

    pair_id: str
    order: Order
    prompt: list[int]
    target: list[int]

    @property
    def sequences(self) -> list[tuple[list[int], list[int]]]:
        """The prompts and targets that are packed together: one."""
        return [(self.prompt, self.target)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairwiseExample(Record):
    """A pair in both orders up to its verdict, ready for training on the decision.

    Attributes:
      pair_id: id of the pair.
      as_given: ids of the prompt and the opening of the verdict.
      exchanged: the same with the responses exchanged.
      letters: ids of the letters A and B.
      probability_a: wanted probability that response A is better: 1, 0, or 0.5 for a tie.
      is_certain: False if the label may be wrong.
    """

    pair_id: str
    as_given: list[int]
    exchanged: list[int]
    letters: list[int]
    probability_a: float
    is_certain: bool = True

    @property
    def sequences(self) -> list[tuple[list[int], list[int]]]:
        """The prompts and targets that are packed together: both orders, each with both letters."""
        return [(self.as_given, self.letters), (self.exchanged, self.letters)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceExample(Record):
    """A correct and a wrong judgment of one prompt, with the starting model's log-probability of each."""

    pair_id: str
    order: Order
    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    reference: list[float]

    @property
    def sequences(self) -> list[tuple[list[int], list[int]]]:
        """The prompts and targets that are packed together: the chosen and the rejected one."""
        return [(self.prompt, self.chosen), (self.prompt, self.rejected)]
