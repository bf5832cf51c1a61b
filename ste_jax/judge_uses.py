"""Rankings, scores and rewards as methods of `Judge`; all of them follow from comparisons."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from ste_jax.checks import as_list
from ste_jax.data.comparisons import Ranking, Scoring, ranking_from_row, scoring_from_row
from ste_jax.data.fields import check_unique, unique_id
from ste_jax.data.named_columns import NamedColumns
from ste_jax.errors import SteError
from ste_jax.judging.batches import (
    CHUNK,
    chunks,
    rank_rows,
    record_of,
    score_rows,
)
from ste_jax.judging.protocol import JudgeSettings
from ste_jax.judging.ranking import Method, RankResult, schedule_of
from ste_jax.judging.reward import RewardFunction
from ste_jax.judging.scoring import ScaleScorer, ScoreResult, levels_of, score_on_scale
from ste_jax.model import Model
from ste_jax.progress import Progress
from ste_jax.records import ComparisonResult
from ste_jax.storage.files import digest
from ste_jax.storage.jsonl_output import JsonlOutput, check_output

SCALE = (1, 5)
Instruction = str | Sequence[Mapping[str, Any]]
Rows = Iterable[Mapping[str, Any]]
R = TypeVar("R", RankResult, ScoreResult)
Item = TypeVar("Item", Ranking, Scoring)


class JudgeUses:
    """Base class of `Judge` with the methods that are built on `compare_many`.

    Attributes:
      model: the language model.
      settings: prompt, token budget, verdict forcing and seed.
    """

    model: Model
    settings: JudgeSettings

    @property
    def is_pointwise(self) -> bool:
        """True if the judge sees one response at a time."""
        raise NotImplementedError

    def is_trained_with(self, rubric: str | None) -> bool:
        """Returns True if the model was trained as a judge with this prompt and rubric."""
        raise NotImplementedError

    def grades(self, rows: Sequence[Scoring], *, rubric: str | None, votes: int) -> list[ScoreResult]:
        """Returns the probability that each response is good, by a pointwise judge."""
        raise NotImplementedError

    def compare_many(self, pairs: Any, **options: Any) -> list[ComparisonResult]:
        """Returns the results of many comparisons, in input order."""
        raise NotImplementedError

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the data that the prompt shows."""
        raise NotImplementedError

    @property
    def named(self) -> NamedColumns:
        """The columns that the prompt shows, for readers of rows."""
        return NamedColumns(shown=self.columns)

    def given_texts(self, name: str, texts: Mapping[str, str] | None) -> dict[str, str]:
        """Returns the argument `texts` of a call.

        Args:
          name: name of the method, for errors.
          texts: its argument.

        Raises:
          SteError: "argument_invalid": the prompt does not show one of the texts.
        """
        if unknown := sorted((texts or {}).keys() - {*self.columns}):
            shown = ", ".join(self.columns) or "none"
            raise SteError(
                "argument_invalid",
                f"{name}: texts has {unknown[0]!r}, which the prompt does not show (its columns: {shown})",
            )
        return dict(texts or {})

    def check_reference(self, reference: str | None) -> None:
        """Refuses a reference that cannot be shown to this judge."""
        raise NotImplementedError

    def check_shown(self, row: Any) -> None:
        """Refuses a row whose reference cannot be shown, or without a text that the prompt shows."""
        raise NotImplementedError

    def check_call(self, rubric: str | None, votes: int) -> None:
        """Refuses a rubric or a number of votes before anything is judged."""
        raise NotImplementedError

    def call_settings(self, rubric: str | None, votes: int) -> dict[str, Any]:
        """Returns everything that the results of a call depend on, as a JSON-ready dict."""
        raise NotImplementedError

    def rank(
        self,
        instruction: Instruction,
        responses: Sequence[str],
        *,
        reference: str | None = None,
        texts: Mapping[str, str] | None = None,
        rubric: str | None = None,
        votes: int = 1,
        method: Method | None = None,
        max_comparisons: int | None = None,
    ) -> RankResult:
        """Returns the ranking of responses to an instruction.

        The result does not depend on the order of the responses; identical ones share a rank. Probabilities
        decide every comparison, also where the verdicts of the two orders disagree.

        Args:
          instruction: text, or a conversation as a list of {"role", "content"}.
          responses: at least one. A single response is ranked without a comparison.
          reference: a correct answer to show to the judge.
          texts: the texts of `columns`, if the prompt shows any.
          rubric: criteria for this call, in place of those of the prompt.
          votes: samples of each order; 1 is one greedy judgment.
          method: "round_robin", "swiss" or "knockout". Default: all pairs up to 4 distinct responses, Swiss
            rounds above; with `max_comparisons` the most thorough method that fits. A pointwise judge grades
            each response once, so that all pairs are the default for any number.
          max_comparisons: largest number of comparisons, each in both orders.

        Raises:
          SteError: an argument is invalid.
        """
        row = {
            **self.given_texts("rank", texts),
            "instruction": instruction,
            "responses": as_list("rank: responses", responses),
            "reference": reference,
        }
        ranking = ranking_from_row(row, "rank", default_id="rank", named=self.named)
        (result,) = self.rank_many(
            [ranking], rubric=rubric, votes=votes, method=method, max_comparisons=max_comparisons
        )
        return result

    def best_of(self, instruction: Instruction, responses: Sequence[str], **options: Any) -> str:
        """Returns the best of several responses; the options are those of `rank`."""
        texts = as_list("best_of: responses", responses)
        return texts[self.rank(instruction, texts, **options).best]

    def score(
        self,
        instruction: Instruction,
        response: str,
        *,
        baseline: str | None = None,
        anchors: Sequence[str] | None = None,
        scale: tuple[int, int] | None = None,
        reference: str | None = None,
        texts: Mapping[str, str] | None = None,
        rubric: str | None = None,
        votes: int = 1,
    ) -> ScoreResult:
        """Returns the score of a single response.

        Args:
          instruction: text, or a conversation as a list of {"role", "content"}.
          response: the response to score.
          baseline: an opponent; the score is the probability that the response beats it.
          anchors: several opponents; the score is the mean probability to beat them.
          scale: lowest and highest level, whole numbers; the score is the expected level. No judge of ste_jax
            is trained for it. Without baseline, anchors and scale, the score of a pointwise judge is the
            probability that the response is good, and that of others is on the scale (1, 5).
          reference: a correct answer to show to the judge.
          texts: the texts of `columns`, if the prompt shows any.
          rubric: criteria for this call; a question to grade by, with a scale.
          votes: samples of each order of a comparison.

        Raises:
          SteError: an argument is invalid. A response that does not fit the model is no exception: the result
            has no value and abstains with "too_long".
        """
        if sum(x is not None for x in (baseline, anchors, scale)) > 1:
            raise SteError("argument_invalid", "score: give one of baseline, anchors and scale")
        if anchors is not None:
            anchors = as_list("score: anchors", anchors)
            if not anchors or not all(isinstance(anchor, str) for anchor in anchors):
                raise SteError("argument_invalid", "score: anchors must be a list of at least one text")
        row = {
            **self.given_texts("score", texts),
            "instruction": instruction,
            "response": response,
            "baseline": baseline,
            "anchors": anchors,
            "reference": reference,
        }
        scoring = scoring_from_row(row, "score", default_id="score", named=self.named)
        (result,) = self.score_many([scoring], scale=scale, rubric=rubric, votes=votes)
        return result

    def rank_many(
        self,
        rows: Rows | Sequence[Ranking],
        *,
        out: str | os.PathLike[str] | None = None,
        rubric: str | None = None,
        votes: int = 1,
        method: Method | None = None,
        max_comparisons: int | None = None,
        progress: bool = False,
    ) -> list[RankResult]:
        """Returns the rankings of many rows, in input order. All rows are checked before the first is judged.

        Args:
          rows: dicts with "instruction", "responses", the `columns` of the prompt, and optionally "id",
            "reference" and further columns.
          out: file of JSON lines to write the results to, see `compare_many`.
          rubric, votes, method, max_comparisons: see `rank`.
          progress: show a progress bar on stderr.

        Raises:
          SteError: an argument or a row is invalid, or `out` was made with other settings.
        """
        if out is not None:
            check_output(out)
        rankings = _checked(rows, Ranking, partial(ranking_from_row, named=self.named), "rank")
        self.check_call(rubric, votes)
        if self.is_pointwise and method is None and max_comparisons is None:
            # Grades are made once per response, however many pairs are compared by them.
            method = "round_robin"
        for ranking in rankings:
            self.check_shown(ranking)
            schedule_of(ranking.responses, self.settings.seed, method, max_comparisons)
        run = partial(
            rank_rows,
            self,
            seed=self.settings.seed,
            method=method,
            max_comparisons=max_comparisons,
            rubric=rubric,
            votes=votes,
        )
        settings = {"method": method, "max_comparisons": max_comparisons}
        call = partial(self.call_settings, rubric, votes)
        return _in_chunks(rankings, run, RankResult, out, "ste-ranks", settings, call, progress)

    def score_many(
        self,
        rows: Rows | Sequence[Scoring],
        *,
        out: str | os.PathLike[str] | None = None,
        scale: tuple[int, int] | None = None,
        rubric: str | None = None,
        votes: int = 1,
        progress: bool = False,
    ) -> list[ScoreResult]:
        """Returns the scores of many rows, in input order. All rows are checked before the first is judged.

        Args:
          rows: dicts with "instruction", "response", the `columns` of the prompt, and optionally "baseline"
            or "anchors", "id", "reference" and further columns. A row with opponents is compared with them,
            the others are scored as by `score`.
          out: file of JSON lines to write the results to, see `compare_many`.
          scale, rubric, votes: see `score`.
          progress: show a progress bar on stderr.

        Raises:
          SteError: an argument or a row is invalid, or `out` was made with other settings.
        """
        if out is not None:
            check_output(out)
        scorings = _checked(rows, Scoring, partial(scoring_from_row, named=self.named), "score")
        graded = scale is None and self.is_pointwise
        levels_of(scale := scale or SCALE)
        alone: Callable[[Sequence[Scoring]], list[ScoreResult]] | None = None
        judged = [row for row in scorings if graded or row.opponents]
        for row in judged:
            self.check_shown(row)
        # On a scale, any rubric will do; only judgments are bound to the judge's own.
        own = rubric if judged else None
        self.check_call(own, votes)
        if graded:
            alone = partial(self.grades, rubric=rubric, votes=votes)
        elif len(judged) < len(scorings):
            alone = self._on_scale(ScaleScorer(self.model.source.tokenizer, scale=scale, rubric=rubric))
        trained = self.is_trained_with(own)
        run = partial(
            score_rows,
            self,
            alone=alone,
            trained=trained,
            with_reference=self.settings.prompt.needs_reference,
            rubric=rubric,
            votes=votes,
        )
        settings = {"scale": "pointwise" if graded else list(scale), "rubric": rubric}
        call = partial(self.call_settings, own, votes)

        def locked(part: Sequence[Scoring]) -> list[ScoreResult]:
            with self.model.lock:
                return run(part)

        return _in_chunks(scorings, locked, ScoreResult, out, "ste-scores", settings, call, progress)

    def _on_scale(self, scorer: ScaleScorer) -> Callable[[Sequence[Scoring]], list[ScoreResult]]:
        """Returns the function from rows to scores; the weights are loaded when it is called."""
        return lambda rows: score_on_scale(scorer, self.model.engine, rows)

    def reward_function(
        self,
        *,
        baseline: str | None = None,
        reference: str | None = None,
        on_abstain: float = 0.5,
        rubric: str | None = None,
        votes: int = 1,
    ) -> RewardFunction:
        """Returns a reward function for RL trainers: (prompts, completions, **columns) -> list of floats.

        TRL, tunix and MaxText call it as it is; see `RewardFunction.for_verl` and `for_areal` for others.

        Args:
          baseline: column with an opponent: the reward is the probability to beat it. Default: the mean
            probability to beat the other completions of the prompt in the batch.
          reference: column with a correct answer to show to the judge.
          on_abstain: reward of a completion that could not be compared.
          rubric, votes: see `compare`.
        """
        if reference is not None:
            self.check_reference(reference)
        self.check_call(rubric, votes)
        options = {"rubric": rubric, "votes": votes}
        return RewardFunction(
            self,
            baseline=baseline,
            reference=reference,
            shown=self.columns,
            on_abstain=on_abstain,
            **options,
        )


def _checked(rows: Iterable[Any], kind: type[Item], build: Callable[..., Item], name: str) -> list[Item]:
    """Returns the records of rows, which may be records already."""
    items, seen = list(rows), {}
    if all(isinstance(item, kind) for item in items):
        check_unique([item.id for item in items], "rows")
        return items
    found = []
    for index, item in enumerate(items):
        where = f"rows[{index}]"
        id_ = unique_id(item, f"{name}-rows-{index + 1}", where, seen) if isinstance(item, Mapping) else ""
        found.append(build(item, where, default_id=id_))
    return found


def _in_chunks(
    rows: Sequence[Any],
    run: Callable[[Sequence[Any]], list[R]],
    kind: type[R],
    out: str | os.PathLike[str] | None,
    schema: str,
    settings: dict[str, Any],
    call_settings: Callable[[], dict[str, Any]],
    progress: bool,
) -> list[R]:
    """Returns the results of all rows, by way of the file `out` if there is one."""
    with Progress("judge", len(rows), disable=not progress) as bar:
        if out is None:
            results = []
            for part in chunks(rows, CHUNK):
                results += run(part)
                bar.advance(records=len(part))
            return results
        content = digest([digest(dataclasses.asdict(row)) for row in rows])
        with JsonlOutput(out, call_settings() | settings | {"rows": content}, schema=schema) as output:
            if output.finished:
                bar.advance(records=len(rows))
            else:
                for part in chunks(rows, CHUNK):
                    # All of a part, so that the batches of a restart are those of the first start.
                    waiting = any(not output.is_done(row.id) for row in part)
                    for row, result in zip(part, run(part), strict=True) if waiting else ():
                        if not output.is_done(row.id):
                            output.add(row.id, [record_of(row, result)])
                    output.flush()
                    bar.advance(records=len(part))
                output.finish([row.id for row in rows])
            return output.results(rows, lambda _, record: kind.from_dict(record))
