"""Stage 5, `ste evaluate`: a model judges the held-out pairs greedily in both orders, and by majority vote
if `evaluate.votes` is set; of `evaluate.probes` of them it judges altered versions.

Reads `pairs/` (and the labelled pairs), writes `iteration_k/evaluate`, `iteration_k/votes` and
`iteration_k/probes` (records: Judgment), and what the model decides by into its card.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ste_jax.decode.protocol import GREEDY, Sampling
from ste_jax.errors import SteError
from ste_jax.judging.decision import results_of, votes_by_example
from ste_jax.judging.protocol import JudgingProtocol
from ste_jax.judging.stream import StreamSettings, judge_into, not_judged, request_id
from ste_jax.metrics.length import length_balance
from ste_jax.metrics.policy import WRONG
from ste_jax.metrics.stats import Metrics, evaluate_judgments
from ste_jax.metrics.vote import vote_curve
from ste_jax.pairs.splits import Splits
from ste_jax.records import ORDERS, Comparison, ComparisonResult, Instruction, Judgment
from ste_jax.stages.context import Context
from ste_jax.stages.pair_inputs import judged_digest
from ste_jax.stages.shortcuts import probes_of, shortcuts_of, write_card
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
    """Returns the numbers of a model whose judgments are there, without any model.

    Numbers are computed from verdicts and the labels of now: judgments stay where only labels were changed.
    The key `labelled` holds the same numbers on the labelled pairs; None if there are none.
    """
    seed, folder = context.config.seed, context.iteration(iteration)
    success = require_success(folder / "evaluate")
    pairs = [*splits.test, *splits.labelled]
    if success.fingerprint["inputs"]["pairs"] != judged_digest(folder / "evaluate", pairs):
        raise SteError(
            "stage_stale",
            f"{folder / 'evaluate'} judged other pairs than the configuration's: seed, pairs.test or "
            f"labelled_pairs were changed; set them back, or pass --redo={folder.name}/evaluate",
        )
    categories = _categories(context)
    result = _numbers(results(context, iteration, splits.test), seed, categories)
    result["labelled"] = _labelled(results(context, iteration, splits.labelled), seed, categories)
    result["majority"] = None
    result["shortcuts"] = shortcuts_of(context, iteration, splits)
    result["too_long"] = len(success.summary["too_long"])
    if context.config.evaluate.votes and read_success(folder / "votes"):
        votes = read_records(folder / "votes", Judgment)
        result["majority"] = _majority(seed, splits.test, votes)
    return result


def results(context: Context, iteration: int, pairs: Sequence[Comparison]) -> list[ComparisonResult]:
    """Returns the decisions of the finished greedy evaluation; pairs without judgments have none."""
    judgments = read_records(context.iteration(iteration) / "evaluate", Judgment)
    return list(results_of(pairs, judgments, seed=context.config.seed))


def greedy_evaluation(context: Context, iteration: int, pairs: Sequence[Comparison]) -> Metrics | None:
    """Returns the finished greedy evaluation, for paired tests; None if none of the pairs counts."""
    judged = results(context, iteration, pairs)
    return evaluate_judgments(judged, seed=context.config.seed) if _has_labels(judged) else None


def _has_labels(judged: Sequence[ComparisonResult]) -> bool:
    return any(result.comparison.label in ("A", "B") for result in judged)


def _judge(
    context: Context, iteration: int, name: str, pairs: Sequence[Comparison], samples: int, sampling: Sampling
) -> None:
    folder = context.iteration(iteration) / name
    source = context.model(iteration)
    fingerprint = context.fingerprint(
        name,
        pairs=judged_digest(folder, pairs),
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


def _numbers(judged: Sequence[ComparisonResult], seed: int, categories: Mapping[str, str]) -> dict[str, Any]:
    """Returns the metrics of decisions, as a whole, by subset and by category."""

    def category(pair: Comparison) -> str:
        return pair.category or categories.get(pair.prompt_id, "")

    metrics = evaluate_judgments(judged, seed=seed)
    return {
        **metrics.to_json(),
        "prompts": len(set(metrics.clusters.values())),
        "kinds": _by_group(judged, seed, lambda pair: pair.subset),
        "categories": _by_group(judged, seed, category),
    }


def _labelled(
    judged: Sequence[ComparisonResult], seed: int, categories: Mapping[str, str]
) -> dict[str, Any] | None:
    if not _has_labels(judged):
        return None
    balance = length_balance(judged, WRONG, seed=seed)["pooled"]
    return {**_numbers(judged, seed, categories), "length_balance": balance, "majority": None}


def _categories(context: Context) -> dict[str, str]:
    """Returns the category of each selected instruction that has one, by its id."""
    folder = context.workdir / "select"
    if not read_success(folder):
        return {}
    return {one.id: one.category for one in read_records(folder, Instruction) if one.category}


def _by_group(
    judged: Sequence[ComparisonResult], seed: int, name: Callable[[Comparison], str]
) -> dict[str, dict[str, Any]]:
    """Returns the accuracy on each group of pairs; {} if there is one group only, "none" has no name."""
    labelled = [one for one in judged if one.comparison.label in ("A", "B")]
    groups = sorted({name(one.comparison) or "none" for one in labelled})
    found = {}
    for group in groups if len(groups) > 1 else ():
        members = [one for one in labelled if (name(one.comparison) or "none") == group]
        numbers = evaluate_judgments(members, seed=seed).to_json()
        keys = ("n", "accuracy", "interval95", "accuracy_pooled", "pooled_interval95")
        found[group] = {key: numbers[key] for key in keys}
    return found
