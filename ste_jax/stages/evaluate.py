"""Stage 5, `ste evaluate`: a model judges the held-out pairs greedily in both orders, and by majority vote
if `evaluate.votes` is set; of `evaluate.probes` of them it judges altered versions.

Reads `pairs/` (and the labelled pairs), writes `iteration_k/evaluate`, `iteration_k/votes` and
`iteration_k/probes` (records: Judgment), and what the model decides by into its card.
"""

from collections.abc import Sequence
from typing import Any

from ste_jax.decode.protocol import GREEDY, Sampling
from ste_jax.errors import SteError
from ste_jax.judging.decision import results_of, votes_by_example
from ste_jax.judging.protocol import JudgingProtocol
from ste_jax.judging.stream import StreamSettings, judge_into, not_judged, request_id
from ste_jax.metrics.stats import Metrics, evaluate_judgments
from ste_jax.metrics.vote import vote_curve
from ste_jax.pairs.splits import Splits
from ste_jax.records import ORDERS, Comparison, ComparisonResult, Judgment
from ste_jax.stages.context import Context
from ste_jax.stages.shortcuts import probes_of, shortcuts_of, write_card
from ste_jax.storage.files import digest
from ste_jax.storage.readers import read_records
from ste_jax.storage.record_set import RecordSet
from ste_jax.storage.success import read_success, require_success


def run(context: Context, iteration: int, splits: Splits) -> dict[str, Any]:
    """Evaluates the model of an iteration, and returns its numbers."""
    settings = context.config.evaluate
    _judge(context, iteration, "evaluate", [*splits.test, *splits.labelled], 1, GREEDY)
    if settings.votes:
        _judge(context, iteration, "votes", splits.test, settings.votes, settings.sampling)
    if settings.probes:
        altered = [probe.comparison for probe in probes_of(context, splits)]
        _judge(context, iteration, "probes", altered, 1, GREEDY)
    result = finished(context, iteration, splits)
    write_card(context, iteration, result["shortcuts"]["panel"])
    return result


def finished(context: Context, iteration: int, splits: Splits) -> dict[str, Any]:
    """Returns the numbers of a model whose judgments are there, without any model."""
    seed, folder = context.config.seed, context.iteration(iteration)
    success = require_success(folder / "evaluate")
    if success.fingerprint["inputs"]["pairs"] != _digest_of([*splits.test, *splits.labelled]):
        raise SteError(
            "stage_stale",
            f"{folder / 'evaluate'} judged other pairs than the configuration's: seed, pairs.test or "
            f"labelled_pairs were changed; set them back, or pass --redo={folder.name}/evaluate",
        )
    judgments = read_records(folder / "evaluate", Judgment)
    results = list(results_of(splits.test, judgments, seed=seed))
    result = evaluate_judgments(results, seed=seed).to_json()
    labelled = _evaluation_of(splits.labelled, judgments, seed).to_json() if splits.labelled else None
    result["kinds"] = _by_kind(results, seed)
    result["benchmarks"] = {"labelled": labelled} if labelled else {}
    result["majority"] = None
    result["shortcuts"] = shortcuts_of(context, iteration, splits)
    result["too_long"] = len(success.summary["too_long"])
    if context.config.evaluate.votes and read_success(folder / "votes"):
        votes = read_records(folder / "votes", Judgment)
        result["majority"] = _majority(seed, splits.test, votes)
    return result


def greedy_evaluation(context: Context, iteration: int, splits: Splits) -> Metrics:
    """Returns the finished greedy evaluation on the test pairs, for paired tests."""
    judgments = read_records(context.iteration(iteration) / "evaluate", Judgment)
    return _evaluation_of(splits.test, judgments, context.config.seed)


def _digest_of(pairs: Sequence[Comparison]) -> str:
    return digest([pair.to_json() for pair in pairs])


def _judge(
    context: Context, iteration: int, name: str, pairs: Sequence[Comparison], samples: int, sampling: Sampling
) -> None:
    folder = context.iteration(iteration) / name
    source = context.model(iteration)
    fingerprint = context.fingerprint(
        name,
        pairs=_digest_of(pairs),
        model=source.digest(),
        prompt=context.prompt.digest(),
    )
    records = RecordSet(folder, Judgment, fingerprint, divided=True)
    if read_success(folder):
        return
    protocol = JudgingProtocol(context.judging, source.tokenizer)
    # Every model draws the same samples, so that only the model differs.
    judging = StreamSettings(stage=name, samples=samples, sampling=sampling)
    label = f"{name} {'seed' if iteration == 0 else iteration}"
    judge_into(records, protocol, context.engine(source), pairs, judging, label=label)
    order = [request_id(pair, order) for pair in pairs for order in ORDERS]
    records.finish(
        order, lambda judgments: {"iteration": iteration, "too_long": not_judged(pairs, judgments)}
    )


def _majority(seed: int, pairs: Sequence[Comparison], judgments: Sequence[Judgment]) -> dict[str, Any]:
    """Returns the numbers of the vote, and its accuracy by the number of votes."""
    numbers = evaluate_judgments(list(results_of(pairs, judgments, seed=seed)), seed=seed).to_json()
    curve = vote_curve(*votes_by_example(pairs, judgments), seed=seed)
    return {"k": len(curve), **numbers, "curve": curve}


def _by_kind(judged: Sequence[ComparisonResult], seed: int) -> dict[str, dict[str, Any]]:
    """Returns the accuracy of the pooled decisions on each kind of pairs; {} if there is one kind only."""
    results = [one for one in judged if one.comparison.label != "tie"]
    kinds = sorted({one.comparison.subset for one in results})
    found = {}
    for kind in kinds if len(kinds) > 1 else ():
        numbers = evaluate_judgments([one for one in results if one.comparison.subset == kind], seed=seed)
        found[kind] = {
            "n": numbers.n,
            "accuracy_pooled": numbers.accuracy_pooled,
            "pooled_interval95": list(numbers.pooled_interval95 or ()) or None,
        }
    return found


def _evaluation_of(pairs: Sequence[Comparison], judgments: Sequence[Judgment], seed: int) -> Metrics:
    """Returns the numbers of one judgment a pair and order; pairs without judgments are not counted."""
    return evaluate_judgments(list(results_of(pairs, judgments, seed=seed)), seed=seed)
