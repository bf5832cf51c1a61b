"""The records that stages exchange: the only shapes that cross a stage's border.

Every record is a frozen dataclass of plain JSON values with an `id` that is unique in its record set.
Generated text is kept beside the token ids that it was decoded from.
"""

import dataclasses
import functools
from typing import Any, Literal, Self

from ste_jax.errors import SteError

Label = Literal["A", "B"]
Outcome = Literal["A", "B", "tie"]
Order = Literal["as_given", "swapped"]
ORDERS: tuple[Order, Order] = ("as_given", "swapped")


def opposite(label: Label) -> Label:
    """Returns the other one of the two labels."""
    return "B" if label == "A" else "A"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """Base of all records: JSON in, JSON out."""

    id: str

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a JSON-ready dict."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Builds the record of a dict that `to_json` made.

        Raises:
          SteError: "data_invalid": a field is missing or unknown.
        """
        known, required = _field_names(cls)
        if value.keys() <= known and value.keys() >= required:
            return cls(**value)
        unknown, missing = sorted(value.keys() - known), sorted(required - value.keys())
        raise SteError(
            "data_invalid", f"not a {cls.__name__} (unknown fields: {unknown}, missing fields: {missing})"
        )


@functools.cache
def _field_names(cls: type) -> tuple[frozenset[str], frozenset[str]]:
    """Returns the names of all fields and of those without a default."""
    absent, fields = dataclasses.MISSING, dataclasses.fields(cls)
    required = [f.name for f in fields if f.default is absent and f.default_factory is absent]
    return frozenset(f.name for f in fields), frozenset(required)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instruction(Record):
    """An unlabelled instruction, and what the selecting model said of it (None: unparsable or not asked)."""

    text: str
    source: str
    category: str | None = None
    complexity: int | None = None
    length: str | None = None


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
      votes: number of people who preferred A, B and neither, where single votes are known.
      metadata: anything else that belongs to the comparison, as JSON values.
    """

    instruction: str
    response_a: str
    response_b: str
    label: Outcome | None = None
    prompt_id: str = ""
    reference: str | None = None
    subset: str = ""
    category: str | None = None
    votes: dict[str, int] = dataclasses.field(default_factory=dict)
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

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
    """One sampled or greedy judgment of a pair in one order.

    `status` says how the verdict was read (see judging/verdict.py); `forced` is True where the verdict
    opening was appended for the model. `tokens` are all completion ids, forced ones included, the
    end-of-turn id excluded; `finish` is "length" where the budget ended it.
    """

    pair_id: str
    order: Order
    sample: int
    text: str
    tokens: list[int]
    verdict: Label | None
    status: str
    forced: bool
    correct: bool
    finish: Literal["stop", "length"] = "stop"


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
