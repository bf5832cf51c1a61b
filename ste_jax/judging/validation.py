"""Accuracy of a model in training on the validation pairs, by which its checkpoints are chosen."""

from typing import Literal

from ste_jax.decode.engine import Engine
from ste_jax.decode.protocol import GREEDY
from ste_jax.distributed import monitor, preemption, process
from ste_jax.judging.decision import results_of
from ste_jax.judging.protocol import JudgingProtocol
from ste_jax.judging.stream import StreamSettings, judge_stream
from ste_jax.metrics.policy import WRONG
from ste_jax.metrics.stats import pooled_score
from ste_jax.records import Comparison


def validation_accuracy(
    protocol: JudgingProtocol,
    engine: Engine,
    validation: list[Comparison],
    choose_by: Literal["accuracy", "accuracy_pooled"],
) -> float:
    """Returns the accuracy of a model on the validation pairs, of all processes together.

    Args:
      protocol: prompt and parser.
      engine: engine of the model.
      validation: pairs with a better response.
      choose_by: "accuracy" of the single verdicts, or "accuracy_pooled" over both orders.

    Raises:
      StopRequested: a stop was requested; every process raises it.
    """

    def check_stop(_: int) -> None:
        if monitor.stop_requested_anywhere(engine.replica_group.mesh):
            raise preemption.StopRequested

    judging = StreamSettings(stage="validate", samples=1, sampling=GREEDY)
    judgments, stopped = [], False
    try:
        for item in judge_stream(protocol, engine, validation, judging, on_tokens=check_stop):
            if item.error is not None:
                raise item.error
            judgments += item.judgments
    except preemption.StopRequested:
        stopped = True
    if not engine.replica_group.is_leader:
        judgments = []
    if choose_by == "accuracy":
        scores = [float(bool(judgment.correct)) for judgment in judgments]
    else:
        scores = [pooled_score(r, WRONG) for r in results_of(validation, judgments, seed=0)]
    # All processes take part in the exchange, so that none of them waits for one that stopped.
    counts = process.exchange([sum(scores), len(scores), stopped])
    total, number, stops = map(sum, zip(*counts, strict=True))
    if stops:
        raise preemption.StopRequested
    return total / number
