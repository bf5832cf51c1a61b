"""Rankings and scores of many rows with one judge, in batches that fill the engine."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from ste_jax.data.comparisons import Ranking, Scoring
from ste_jax.judging.ranking import Method, RankResult, rank_many, schedule_of
from ste_jax.judging.scoring import (
    ScoreResult,
    mean_win_probability,
    sum_usage,
)
from ste_jax.records import ComparisonResult

# Rows that are judged together and then stored.
CHUNK = 64


class Comparer(Protocol):
    """A judge, as far as this module needs it."""

    def compare_many(self, pairs: Iterable[Mapping[str, Any]], **options: Any) -> list[ComparisonResult]:
        """Returns the result of each pair, in order."""
        ...


def rank_rows(
    judge: Comparer,
    rows: Sequence[Ranking],
    *,
    seed: int,
    method: Method | None = None,
    max_comparisons: int | None = None,
    **options: Any,
) -> list[RankResult]:
    """Returns the ranking of each row. Rounds of all rows are judged together.

    Args:
      judge: the judge.
      rows: instructions with their responses.
      seed: seed of the brackets.
      method, max_comparisons: see `rank_responses`.
      **options: arguments of `Judge.compare_many`.

    Raises:
      SteError: an argument is invalid; nothing was compared.
    """
    rankings = [(row.responses, schedule_of(row.responses, seed, method, max_comparisons)) for row in rows]
    compared: list[list[ComparisonResult]] = [[] for _ in rows]

    def win_probabilities(games: list[tuple[int, int, int]]) -> list[float | None]:
        pairs = [
            _pair(f"{n}/{i}/{j}", rows[n], rows[n].responses[i], rows[n].responses[j]) for n, i, j in games
        ]
        results = judge.compare_many(pairs, **options)
        for (number, _, _), result in zip(games, results, strict=True):
            compared[number].append(result)
        return [result.probability_a for result in results]

    found = rank_many(rankings, win_probabilities)
    return [
        dataclasses.replace(
            result,
            flips=sum(comparison.consistent is False for comparison in comparisons),
            errors=[comparison.error for comparison in comparisons if comparison.error is not None],
            usage=sum_usage(comparison.usage for comparison in comparisons),
        )
        for result, comparisons in zip(found, compared, strict=True)
    ]


def score_against(
    judge: Comparer, rows: Sequence[Scoring], *, trained: bool, with_reference: bool = False, **options: Any
) -> list[ScoreResult]:
    """Returns the mean probability of each response to beat its opponents.

    Args:
      judge: the judge.
      rows: responses with a baseline or anchors.
      trained: True if the judge was trained on pairs with this prompt.
      with_reference: True if its prompt needs references; other judges are trained without.
      **options: arguments of `Judge.compare_many`.
    """
    pairs = [
        _pair(f"{n}/{k}", row, row.response, opponent)
        for n, row in enumerate(rows)
        for k, opponent in enumerate(row.opponents)
    ]
    results = iter(judge.compare_many(pairs, **options) if pairs else [])
    scores = []
    for row in rows:
        own = [next(results) for _ in row.opponents]
        usage = sum_usage(result.usage for result in own)
        known = trained and (with_reference or row.reference is None)
        method = "anchors" if row.anchors else "baseline"
        scores.append(mean_win_probability(own, method=method, trained=known, usage=usage))
    return scores


def score_rows(
    judge: Comparer,
    rows: Sequence[Scoring],
    *,
    alone: Callable[[Sequence[Scoring]], list[ScoreResult]] | None,
    trained: bool,
    with_reference: bool = False,
    **options: Any,
) -> list[ScoreResult]:
    """Returns the score of each row: against its opponents if it has any.

    Args:
      judge: the judge.
      rows: responses to score.
      alone: returns the scores of rows without opponents; None if there are none.
      trained, with_reference: see `score_against`.
      **options: arguments of `Judge.compare_many`.
    """
    against = [n for n, row in enumerate(rows) if row.opponents]
    others = [n for n, row in enumerate(rows) if not row.opponents]
    options |= {"trained": trained, "with_reference": with_reference}
    compared = score_against(judge, [rows[n] for n in against], **options)
    scores = dict(zip(against, compared, strict=True))
    if alone is not None:
        scores |= zip(others, alone([rows[n] for n in others]), strict=True)
    return [scores[n] for n in range(len(rows))]


def record_of(row: Ranking | Scoring, result: RankResult | ScoreResult) -> dict[str, Any]:
    """Returns the output record of a row: its id and further columns, and `to_dict()` of the result.

    A column of the input whose name is a field of the result is returned as `input_NAME`.
    """
    value = result.to_dict()
    taken = {field.name for field in dataclasses.fields(result)} | {"id"}
    renamed = {f"input_{name}" if name in taken else name: item for name, item in row.extra.items()}
    return {"id": row.id, **renamed, **value}


def chunks(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yields consecutive parts of `rows`."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _pair(id_: str, row: Ranking | Scoring, response_a: str, response_b: str) -> dict[str, Any]:
    return {
        **row.texts,
        "id": id_,
        "instruction": row.instruction,
        "response_a": response_a,
        "response_b": response_b,
        "reference": row.reference,
    }
