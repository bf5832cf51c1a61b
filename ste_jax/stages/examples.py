"""What the trainings learn from: kept judgments as ids, alone or each against a wrong one."""

from collections.abc import Sequence

from ste_jax.checkpoint.source import ModelSource
from ste_jax.judging.protocol import JudgingProtocol
from ste_jax.records import Comparison, Judgment, PreferenceExample, TrainingExample
from ste_jax.stages.context import Context


def training_examples(
    context: Context, source: ModelSource, judgments: Sequence[Judgment], pairs: Sequence[Comparison]
) -> list[TrainingExample]:
    """Returns the judgments with their prompts, in the tokens of a model."""
    protocol, by_id = JudgingProtocol(context.judging, source.tokenizer), {pair.id: pair for pair in pairs}
    return [
        TrainingExample(
            id=j.id,
            pair_id=j.pair_id,
            order=j.order,
            prompt=list(protocol.prompt_ids(by_id[j.pair_id], j.order)),
            target=_target(j, source),
        )
        for j in judgments
    ]


def preference_examples(
    context: Context,
    source: ModelSource,
    matched: Sequence[tuple[Judgment, Judgment]],
    pairs: Sequence[Comparison],
) -> list[PreferenceExample]:
    """Returns (correct, wrong) judgments with the prompt of both, and no log-probabilities yet."""
    correct = training_examples(context, source, [good for good, _ in matched], pairs)
    return [
        PreferenceExample(
            id=e.id,
            pair_id=e.pair_id,
            order=e.order,
            prompt=e.prompt,
            chosen=e.target,
            rejected=_target(wrong, source),
            reference=[],
        )
        for e, (_, wrong) in zip(correct, matched, strict=True)
    ]


def _target(judgment: Judgment, source: ModelSource) -> list[int]:
    # What the budget cut short did not end there: the end of the turn is not taught.
    ended = judgment.finish == "stop"
    return [*judgment.tokens, source.tokenizer.turn_end_id] if ended else judgment.tokens
