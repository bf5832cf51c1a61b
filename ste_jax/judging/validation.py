"""Accuracy of a model in training on the validation pairs, by which its checkpoints are chosen."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ste_jax.decode.engine import Engine
from ste_jax.decode.protocol import GREEDY
from ste_jax.distributed import monitor, preemption, process
from ste_jax.judging.decision import results_of
from ste_jax.judging.protocol import JudgingProtocol
from ste_jax.judging.stream import StreamSettings, judge_stream
from ste_jax.metrics.policy import WRONG
from ste_jax.metrics.stats import pooled_score
from ste_jax.records import Comparison, Judgment

_log = logging.getLogger(__name__)
ChooseBy = Literal["accuracy", "accuracy_pooled", "worst_kind"]


def validation_accuracy(
    protocol: JudgingProtocol,
    engine: Engine,
    validation: list[Comparison],
    choose_by: ChooseBy,
) -> float:
    """Returns the accuracy of a model on the validation pairs, of all processes together.

    Args:
      protocol: prompt and parser.
      engine: engine of the model.
      validation: pairs with a better response.
      choose_by: "accuracy" of the single verdicts, "accuracy_pooled" over both orders, or "worst_kind", the
        lowest accuracy_pooled of the kinds of pairs.

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
    # All processes take part in the exchange, so that none of them waits for one that stopped.
    found = process.exchange([validation_scores(validation, judgments, choose_by), stopped])
    if any(stops for _, stops in found):
        raise preemption.StopRequested
    totals: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
    for scores, _ in found:
        for name, sums in scores.items():
            totals[name] += sums
    shares = {name: float(score / number) for name, (score, number) in sorted(totals.items())}
    for name, share in shares.items():
        _log.info("validation%s: %.3f, n = %d", f", {name}" if name else "", share, totals[name][1])
    return min(shares.values())


def validation_scores(
    validation: Sequence[Comparison], judgments: Sequence[Judgment], choose_by: ChooseBy
) -> dict[str, tuple[float, int]]:
    """Returns the sum of the scores and their number, by kind of pairs for "worst_kind", else under ""."""
    if choose_by == "accuracy":
        scored = [("", float(bool(judgment.correct))) for judgment in judgments]
    else:
        by_kind = choose_by == "worst_kind"
        results = results_of(validation, judgments, seed=0)
        scored = [(r.comparison.subset if by_kind else "", pooled_score(r, WRONG)) for r in results]
    kinds = sorted({kind for kind, _ in scored})
    grouped = {kind: [score for name, score in scored if name == kind] for kind in kinds}
    return {kind: (sum(scores), len(scores)) for kind, scores in grouped.items()}
