"""Training examples are built from streams of judgments and read from disk."""

import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from etils import epath

from ste_jax.records import ORDERS, Comparison, Judgment, PreferenceExample, TrainingExample
from ste_jax.stages.context import Context
from ste_jax.stages.examples import (
    ExampleBuilder,
    store_preference_examples,
    store_training_examples,
)
from ste_jax.storage.readers import read_records
from ste_jax.storage.record_set import RecordSet

PAIRS = [
    Comparison(id=f"p{i}", instruction=f"Name {i} things.", response_a="One.", response_b="No.", label="A")
    for i in range(6)
]


def judgment(
    pair: str, order: str, sample: int, correct: bool, tokens: Sequence[int] = (5, 6, 7)
) -> Judgment:
    return Judgment(
        id=f"{pair}/{order}/{sample}",
        pair_id=pair,
        order=order,  # pyright: ignore[reportArgumentType]
        sample=sample,
        text="text",
        tokens=[*tokens, sample],
        verdict="A" if correct == (order == "as_given") else "B",
        status="final",
        forced=False,
        correct=correct,
        finish="length" if sample == 2 else "stop",
    )


JUDGMENTS = [judgment(p.id, order, i, i != 1) for p in PAIRS for order in ORDERS for i in range(3)]


@pytest.fixture
def context(make_context: Callable[..., Context]) -> Context:
    return make_context()


@pytest.fixture
def builder(context: Context) -> ExampleBuilder:
    return ExampleBuilder(context, context.seed_model, PAIRS)


def test_examples_are_stored_once_and_read_in_order(
    context: Context, builder: ExampleBuilder, tmp_path: Path
) -> None:
    selected = [j for j in reversed(JUDGMENTS) if j.sample in (0, 2)]
    ids = [j.id for j in selected]

    def stored(builder: ExampleBuilder):
        records = RecordSet(epath.Path(tmp_path), TrainingExample, {}, divided=True)
        return store_training_examples(builder, selected, records), records

    examples, _ = stored(builder)
    assert [e.id for e in examples] == ids
    end = context.seed_model.tokenizer.turn_end_id
    for example, source in zip(examples, selected, strict=True):
        assert example == builder.training_example(source)
        # What the budget cut short does not end there.
        assert example.target == source.tokens + ([end] if source.finish == "stop" else [])
    # A builder without pairs cannot build any example.
    again, records = stored(ExampleBuilder(context, context.seed_model, []))
    assert list(again) == list(examples)
    records.finish(again.ids, {})
    assert [e.id for e in read_records(epath.Path(tmp_path), TrainingExample)] == ids


def test_preference_examples_hold_both_judgments(
    context: Context, builder: ExampleBuilder, tmp_path: Path
) -> None:
    by_id = {j.id: j for j in JUDGMENTS}
    chosen = [j for j in JUDGMENTS if j.sample in (0, 2)]
    matched = [(j, by_id[f"{j.pair_id}/{j.order}/1"]) for j in chosen]
    expected = [builder.preference_example(good, bad) for good, bad in matched]
    records = RecordSet(epath.Path(tmp_path), PreferenceExample, {}, divided=True)
    assert list(store_preference_examples(builder, matched, records)) == expected
    builder = ExampleBuilder(context, context.seed_model, [])
    assert list(store_preference_examples(builder, matched, records)) == expected


class Streamed(Sequence[Judgment]):
    """Judgments that exist only while they are read."""

    def __len__(self) -> int:
        return 5 * len(PAIRS) * len(ORDERS)

    def __getitem__(self, index: int) -> Judgment:  # pyright: ignore[reportIncompatibleMethodOverride]
        if index >= len(self):
            raise IndexError(index)
        pair, number = PAIRS[index % len(PAIRS)], index // len(PAIRS)
        return judgment(pair.id, ORDERS[number % 2], number // 2, True, list(range(1000, 9000)))


def test_neither_judgments_nor_examples_are_all_in_memory(builder: ExampleBuilder, tmp_path: Path) -> None:
    """60 judgments of 8,000 tokens, and as many examples, take 17 MB each as lists of int."""
    tracemalloc.start()
    try:
        records = RecordSet(epath.Path(tmp_path), TrainingExample, {}, divided=True)
        examples = store_training_examples(builder, Streamed(), records)
        assert max(len(e.target) for e in examples) == 8002
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(examples) == 60
    assert peak < 8e6
