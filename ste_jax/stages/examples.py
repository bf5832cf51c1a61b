"""Builds the examples of training: tokenized prompts with one or two judgments, or pairs up to their verdict.

Judgments and pairs are read one at a time and examples are stored in a record set, each process building its
share, so that none of them need to fit into memory.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Generic, TypeVar

from ste_jax.checkpoint.source import ModelSource
from ste_jax.distributed import process
from ste_jax.judging.protocol import JudgingProtocol
from ste_jax.judging.selection import select_for_training
from ste_jax.pairs.kinds import UNCERTAIN
from ste_jax.records import Comparison, Judgment, Outcome, PairwiseExample, PreferenceExample, TrainingExample
from ste_jax.stages.context import Context
from ste_jax.storage.record_set import RecordSet

E = TypeVar("E", TrainingExample, PreferenceExample, PairwiseExample)
_PROBABILITY_A: dict[Outcome, float] = {"A": 1.0, "B": 0.0, "tie": 0.5}


def select(
    context: Context, judgments: Sequence[Judgment], pairs: Sequence[Comparison]
) -> Sequence[Judgment]:
    """Returns the judgments that training uses: the objective "pairwise" learns from the labels of all."""
    if context.config.train.objective == "pairwise":
        return judgments
    return select_for_training(judgments, pairs, seed=context.config.seed, **context.selection)


class StoredExamples(Sequence[E], Generic[E]):
    """The examples of a record set that is being written, read from disk one at a time.

    Args:
      records: Record set with one example per request; all examples are readable (see `RecordSet.share`).
      ids: Ids of the examples in order.
    """

    def __init__(self, records: RecordSet[E], ids: Sequence[str]):
        self._records, self.ids = records, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> E:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns one example."""
        return self._records.read(self.ids[index])[0]


class ExampleBuilder:
    """Builds examples in the tokens of a model."""

    def __init__(self, context: Context, source: ModelSource, pairs: Sequence[Comparison]):
        self._protocol = JudgingProtocol(context.judging, source.tokenizer)
        self._turn_end_id = source.tokenizer.turn_end_id
        self._pairs, self._index = pairs, {pair.id: index for index, pair in enumerate(pairs)}

    def training_example(self, judgment: Judgment) -> TrainingExample:
        """Returns the example of a correct judgment."""
        return TrainingExample(
            id=judgment.id,
            pair_id=judgment.pair_id,
            order=judgment.order,
            prompt=self._prompt(judgment),
            target=self._target(judgment),
        )

    def preference_example(self, chosen: Judgment, rejected: Judgment) -> PreferenceExample:
        """Returns the example of a correct and a wrong judgment of one prompt, without log-probabilities."""
        return PreferenceExample(
            id=chosen.id,
            pair_id=chosen.pair_id,
            order=chosen.order,
            prompt=self._prompt(chosen),
            chosen=self._target(chosen),
            rejected=self._target(rejected),
            reference=[],
        )

    def pairwise_example(self, pair: Comparison) -> PairwiseExample:
        """Returns the example of a pair with a label."""
        assert pair.label is not None
        return PairwiseExample(
            id=pair.id,
            pair_id=pair.id,
            as_given=list(self._protocol.verdict_ids(pair, "as_given")),
            exchanged=list(self._protocol.verdict_ids(pair, "swapped")),
            letters=list(self._protocol.choices),
            probability_a=_PROBABILITY_A[pair.label],
            is_certain=pair.subset not in UNCERTAIN,
        )

    def _prompt(self, judgment: Judgment) -> list[int]:
        return list(self._protocol.prompt_ids(self._pairs[self._index[judgment.pair_id]], judgment.order))

    def _target(self, judgment: Judgment) -> list[int]:
        # A judgment that the budget cut short did not end there: the model must not learn to end it.
        ended = judgment.finish == "stop"
        return [*judgment.tokens, self._turn_end_id] if ended else judgment.tokens


def store_training_examples(
    builder: ExampleBuilder, selected: Sequence[Judgment], records: RecordSet[TrainingExample]
) -> StoredExamples[TrainingExample]:
    """Stores the examples of judgments, unless an earlier process did, and returns them in order.

    Args:
      builder: Builds each example.
      selected: Correct judgments; they are read one at a time.
      records: Divided record set that receives the examples; all processes call this function together.
    """
    return _store(((j.id, partial(builder.training_example, j)) for j in selected), records)


def store_preference_examples(
    builder: ExampleBuilder,
    matched: Sequence[tuple[Judgment, Judgment]],
    records: RecordSet[PreferenceExample],
) -> StoredExamples[PreferenceExample]:
    """Stores the examples of pairs of judgments, unless an earlier process did, and returns them in order.

    Args:
      builder: Builds each example.
      matched: Pairs of a correct and a wrong judgment of one prompt; they are read one at a time.
      records: Divided record set that receives the examples; all processes call this function together.
    """
    made = ((good.id, partial(builder.preference_example, good, bad)) for good, bad in matched)
    return _store(made, records)


def store_pairwise_examples(
    builder: ExampleBuilder, pairs: Sequence[Comparison], records: RecordSet[PairwiseExample]
) -> StoredExamples[PairwiseExample]:
    """Stores the examples of pairs, unless an earlier process did, and returns them in order.

    Args:
      builder: Builds each example.
      pairs: Pairs with labels; they are read one at a time.
      records: Divided record set that receives the examples; all processes call this function together.
    """
    return _store(((p.id, partial(builder.pairwise_example, p)) for p in pairs), records)


def _store(examples: Iterable[tuple[str, Callable[[], E]]], records: RecordSet[E]) -> StoredExamples[E]:
    """Stores this process's share of examples, given as ids and functions that build them."""
    ids = []
    for id_, build in examples:
        if len(ids) % process.count() == process.index() and not records.is_done(id_):
            records.add(id_, [build()])
        ids.append(id_)
    records.share()
    return StoredExamples(records, ids)
