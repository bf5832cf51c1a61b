"""The public `Judge`: compares two responses, and ranks, scores and rewards responses by comparisons."""

import dataclasses
import functools
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from ste_jax.checks import check_text
from ste_jax.data.comparisons import Ranking, Scoring, comparison_from_row
from ste_jax.distributed import monitor
from ste_jax.distributed.preemption import StopRequested
from ste_jax.errors import SteError
from ste_jax.judge_uses import JudgeUses
from ste_jax.judging.calibration import Calibration
from ste_jax.judging.compare import (
    CompareSettings,
    OnFlip,
    Orders,
    checked_comparisons,
    content_hash,
    content_key,
    identical_result,
    result_of,
    source_settings,
)
from ste_jax.judging.decision import DecisionRule
from ste_jax.judging.defaults import SHORT_BUDGET, judge_settings, stored_calibration
from ste_jax.judging.protocol import (
    JudgeSettings,
    JudgingProtocol,
    check_prompt,
    check_reference,
    is_trained_with,
)
from ste_jax.judging.scoring import ScoreResult, grade_of
from ste_jax.judging.stream import Judged, StreamSettings, judge_stream
from ste_jax.model import Model
from ste_jax.progress import Progress
from ste_jax.records import Comparison, ComparisonResult, Order
from ste_jax.storage.jsonl_output import JsonlOutput, check_output
from ste_jax.versions import versions

SCHEMA = "ste-verdicts"


class Judge(JudgeUses):
    """A judge of responses.

    Use `Judge.load`. The weights are loaded at the first judgment. Calls from several threads are safe and
    run one after another. The library prints nothing and installs no log handlers.

    Attributes:
      model: the language model.
      settings: prompt, token budget, verdict forcing and seed.
      calibration: temperature and abstention threshold, or None for an uncalibrated judge.
    """

    def __init__(
        self,
        model: Model,
        settings: JudgeSettings,
        *,
        calibration: Calibration | None = None,
        allow_untrained_prompt: bool = False,
    ):
        self.model = model
        self.settings = settings
        self.calibration = calibration
        self._allow_untrained_prompt = allow_untrained_prompt
        self._arguments: tuple[tuple[str, Any], ...] | None = None

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        *,
        prompt: str | None = None,
        rubric: str = "",
        max_new_tokens: int | None = None,
        force_verdict: bool | None = None,
        dtype: str | None = None,
        seed: int = 0,
        mesh: tuple[int, int, int] = (1, -1, 1),
        sequences: int = 32,
        allow_untrained_prompt: bool = False,
        chat_template: str | os.PathLike[str] = "",
        chat_date: str = "",
    ) -> Self:
        """Opens a judge.

        What is not given is taken from the model card of a judge that was trained by ste_jax. For other
        models: below one billion parameters the prompt "short", 32 new tokens and forced verdicts in float32;
        above, the prompt "standard", 2,048 new tokens and no forcing in bfloat16.

        Args:
          model: a model folder of a run, a Hugging Face folder or hub name, or a GGUF file.
          prompt: name of a built-in prompt, or a template file.
          rubric: criteria that replace those of the prompt.
          max_new_tokens: token budget of a judgment; 0, with forced verdicts, is the verdict alone.
          force_verdict: append the verdict opening to a judgment that ended without a verdict.
          dtype: "float32" or "bfloat16", of weights and caches.
          seed: seed of sampled votes.
          mesh: sizes of the mesh axes data, fsdp and tensor; -1 takes the remaining devices.
          sequences: judgments in flight.
          allow_untrained_prompt: accept a prompt, rubric or reference that the judge was not trained with.
          chat_template: file of a chat template that replaces that of the model.
          chat_date: see `Model.load`.

        Raises:
          SteError: the model cannot be opened, its chat template cannot render the prompt, or the prompt is
            not that of its training.
        """
        template = os.fspath(chat_template)
        opened = Model.load(
            model, dtype=dtype, mesh=mesh, sequences=sequences, chat_template=template, chat_date=chat_date
        )
        settings = judge_settings(
            opened.source,
            prompt=prompt,
            rubric=rubric,
            max_new_tokens=max_new_tokens,
            force_verdict=force_verdict,
            seed=seed,
        )
        if not allow_untrained_prompt:
            check_prompt(opened.source, settings.prompt)
        if settings.max_new_tokens <= SHORT_BUDGET:
            # Short judgments end together, so the prompts of many are read at once.
            opened.settings = dataclasses.replace(opened.settings, prefill_tokens=2048)
        judge = cls(opened, settings, allow_untrained_prompt=allow_untrained_prompt)
        judge.protocol().check_template()
        calibration = stored_calibration(opened.source)
        if calibration is not None and calibration.settings == judge.calibration_settings():
            judge.calibration = calibration
        judge._arguments = (
            *(("model", os.fspath(model)), ("prompt", prompt), ("rubric", rubric)),
            *(("max_new_tokens", max_new_tokens), ("force_verdict", force_verdict), ("dtype", dtype)),
            *(("seed", seed), ("mesh", mesh), ("sequences", sequences)),
            *(("chat_template", template), ("chat_date", chat_date)),
            ("allow_untrained_prompt", allow_untrained_prompt),
        )
        return judge

    def __reduce__(self):
        # Weights stay behind: another process opens the model again, once.
        if self._arguments is None:
            raise TypeError("only a judge made by Judge.load can be pickled")
        return _reopened, (self._arguments,)

    @property
    def trained(self) -> bool:
        """True if the model was trained as a judge by ste_jax."""
        card = self.model.source.card
        return card is not None and card.judge_prompt is not None

    @property
    def is_pointwise(self) -> bool:
        """True if the judge sees one response at a time: its prompt is pointwise."""
        return self.settings.prompt.is_pointwise

    def is_trained_with(self, rubric: str | None) -> bool:
        """Returns True if the model was trained as a judge with this prompt and rubric."""
        return is_trained_with(self.model.source, self._settings_with(rubric).prompt)

    def calibration_settings(self) -> dict[str, Any]:
        """Returns the settings that a calibration holds for: another prompt or budget needs another one."""
        settings = {
            "prompt_digest": self.settings.prompt.digest(),
            "max_new_tokens": self.settings.max_new_tokens,
            "force_verdict": self.settings.force_verdict,
        }
        source = self.model.source
        return settings | ({"tokenizer": source.tokenizer.fingerprint()} if source.chat.is_set else {})

    def compare(
        self,
        instruction: str | Sequence[Mapping[str, Any]],
        response_a: str,
        response_b: str,
        *,
        reference: str | None = None,
        texts: Mapping[str, str] | None = None,
        rubric: str | None = None,
        votes: int = 1,
        orders: Orders = "both",
        on_flip: OnFlip = "probability",
    ) -> ComparisonResult:
        """Returns which of two responses to an instruction is better.

        Args:
          instruction: text, or a conversation as a list of {"role", "content"}.
          response_a: the first response.
          response_b: the second response.
          reference: a correct answer to show to the judge.
          texts: the texts of `columns`, if the prompt shows any.
          rubric: criteria for this call, in place of those of the prompt.
          votes: samples of each order; 1 is one greedy judgment.
          orders: "both" orders, or "one" (as given; half the cost, with the judge's position bias), which a
            pointwise judge refuses.
          on_flip: "abstain" to abstain where the verdicts of the orders disagree, "probability" to decide by
            the pooled probability.

        Raises:
          SteError: an argument is invalid. A comparison that does not fit the model is no exception: the
            result abstains with "too_long".
        """
        settings = self._compare_settings(votes, orders, on_flip)
        row = {
            **self.given_texts("compare", texts),
            "instruction": instruction,
            "response_a": response_a,
            "response_b": response_b,
            "reference": reference,
        }
        comparison = comparison_from_row(row, "compare", default_id="compare", named=self.named)
        self.check_shown(comparison)
        (result,) = list(self._results([comparison], settings, self.protocol(rubric)))
        return result

    def compare_many(
        self,
        pairs: Iterable[Mapping[str, Any] | Comparison],
        *,
        out: str | os.PathLike[str] | None = None,
        rubric: str | None = None,
        votes: int = 1,
        orders: Orders = "both",
        on_flip: OnFlip = "probability",
        progress: bool = False,
    ) -> list[ComparisonResult]:
        """Returns the results of many comparisons, in input order.

        All pairs are checked before the first is judged.

        Args:
          pairs: dicts with "instruction", "response_a", "response_b", the `columns` of the prompt, and
            optionally "id", "reference", "label" and further columns, which are passed through; or
            `Comparison` records.
          out: file of JSON lines to write the results to. An interrupted call with the same arguments
            continues where it ended; a finished file is read back without judging again.
          rubric, votes, orders, on_flip: see `compare`.
          progress: show a progress bar on stderr.

        Raises:
          SteError: an argument or a pair is invalid, or `out` was made with another model or other settings.
        """
        settings = self._compare_settings(votes, orders, on_flip)
        if out is not None:
            check_output(out)
        comparisons = self._checked(pairs)
        protocol = self.protocol(rubric)
        with Progress("judge", len(comparisons), disable=not progress) as bar:
            if out is None:
                found = {r.id: r for r in self._results(comparisons, settings, protocol, bar)}
                return [found[comparison.id] for comparison in comparisons]
            run = self.run_settings(protocol, settings) | {"pairs": content_hash(comparisons)}
            with JsonlOutput(out, run, schema=SCHEMA) as output:
                if output.finished:
                    bar.advance(records=len(comparisons))
                else:
                    self._judge_into(output, comparisons, settings, protocol, bar)
                return output.results(comparisons, ComparisonResult.from_dict)

    def _compare_settings(self, votes: int, orders: Orders, on_flip: OnFlip) -> CompareSettings:
        if orders == "one" and self.is_pointwise:
            raise SteError(
                "argument_invalid",
                'orders="one" would grade the first response alone: this judge sees one response at a time, '
                "and comparisons need both grades",
            )
        return CompareSettings(votes=votes, orders=orders, on_flip=on_flip)

    def _judge_into(
        self,
        output: JsonlOutput,
        comparisons: Sequence[Comparison],
        settings: CompareSettings,
        protocol: JudgingProtocol,
        bar: Progress,
    ) -> None:
        is_leader = self.model.engine.replica_group.is_leader
        for result in self._results(comparisons, settings, protocol, bar, output.is_done):
            if is_leader and not output.is_done(result.id):
                output.add(
                    result.id,
                    [result.to_dict()],
                    prompt_tokens=result.usage["prompt_tokens"],
                    generated_tokens=result.usage["completion_tokens"],
                )
        output.finish([comparison.id for comparison in comparisons])

    def run_settings(self, protocol: JudgingProtocol, settings: CompareSettings) -> dict[str, Any]:
        """Returns everything that the results of a call depend on, as a JSON-ready dict."""
        return {
            **source_settings(self.model.source, protocol.settings),
            "samples": settings.votes,
            "sampling": dataclasses.asdict(settings.sampling),
            "orders": list(settings.shown),
            "on_flip": settings.on_flip,
            "temperature": self.calibration.temperature if self.calibration else 1.0,
            "threshold": self.calibration.threshold if self.calibration else 0.0,
            # Bits may differ between programs of other shapes, and between versions.
            "decode": {**dataclasses.asdict(self.model.settings), "mesh": list(self.model.mesh_shape)},
            "versions": versions(),
        }

    def call_settings(self, rubric: str | None, votes: int) -> dict[str, Any]:
        """Returns the `run_settings` of comparisons with this rubric and number of votes."""
        return self.run_settings(self.protocol(rubric), CompareSettings(votes=votes))

    def check_call(self, rubric: str | None, votes: int) -> None:
        """Refuses a rubric or a number of votes before anything is judged.

        Raises:
          SteError: "argument_invalid" or "untrained_prompt".
        """
        CompareSettings(votes=votes)
        self.protocol(rubric)

    def protocol(self, rubric: str | None = None) -> JudgingProtocol:
        """Returns the prompts and the parser of this judge, with another rubric if one is given.

        Raises:
          SteError: "argument_invalid" or "untrained_prompt".
        """
        settings = self._settings_with(rubric)
        if settings is not self.settings and not self._allow_untrained_prompt:
            check_prompt(self.model.source, settings.prompt)
        return JudgingProtocol(settings, self.model.source.tokenizer)

    def _settings_with(self, rubric: str | None) -> JudgeSettings:
        if rubric is None or rubric == self.settings.prompt.rubric:
            return self.settings
        check_text("rubric", rubric)
        prompt = dataclasses.replace(self.settings.prompt, rubric=rubric)
        return dataclasses.replace(self.settings, prompt=prompt)

    def _checked(self, pairs: Iterable[Mapping[str, Any] | Comparison]) -> list[Comparison]:
        comparisons = checked_comparisons(pairs, self.named)
        for comparison in comparisons:
            self.check_shown(comparison)
        return comparisons

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the data that the prompt shows; see `JudgePrompt.columns`."""
        return self.settings.prompt.columns

    def check_shown(self, row: Comparison | Ranking | Scoring) -> None:
        """Refuses a row whose reference cannot be shown, or without a text that the prompt shows.

        Raises:
          SteError: as `check_reference`, or "data_invalid"; names the row.
        """
        try:
            self.check_reference(row.reference)
            self.settings.prompt.check_columns(row.texts)
        except SteError as error:
            raise SteError(error.code, f"{row.id}: {error}") from error

    def check_reference(self, reference: str | None) -> None:
        """Refuses a reference that the prompt cannot show, or that the judge was not trained to read.

        Raises:
          SteError: "prompt_no_reference", "reference_missing" or "untrained_prompt".
        """
        untrained = self._allow_untrained_prompt
        check_reference(self.model.source, self.settings.prompt, reference, untrained=untrained)

    def judge(
        self,
        protocol: JudgingProtocol,
        comparisons: Iterable[Comparison],
        settings: CompareSettings,
        *,
        is_done: Callable[[str], bool] = lambda _: False,
        on_tokens: Callable[[int], None] | None = None,
    ) -> Iterator[Judged]:
        """Yields the judgments of every comparison and order as they end.

        Args:
          protocol, comparisons: see `judge_stream`.
          settings: votes and orders.
          is_done: returns True for the ids of comparisons that were judged before.
          on_tokens: called with the number of new tokens as they are made.

        Raises:
          StopRequested: a stop of the process was requested.
        """
        stream = StreamSettings(
            stage="compare",
            samples=settings.votes,
            sampling=settings.sampling,
            orders=settings.shown,
            key_of=functools.partial(content_key, pointwise=protocol.settings.prompt.is_pointwise),
        )
        with self.model.lock:
            engine = self.model.engine

            def count(tokens: int) -> None:
                if on_tokens:
                    on_tokens(tokens)
                if monitor.stop_requested_anywhere(engine.replica_group.mesh):
                    raise StopRequested

            yield from judge_stream(
                protocol,
                engine,
                comparisons,
                stream,
                is_done=lambda id_: is_done(id_.rpartition("/")[0]),
                on_tokens=count,
            )

    def _results(
        self,
        comparisons: Sequence[Comparison],
        settings: CompareSettings,
        protocol: JudgingProtocol,
        bar: Progress | None = None,
        is_done: Callable[[str], bool] = lambda _: False,
    ) -> Iterator[ComparisonResult]:
        """Yields the results of comparisons as they end; identical responses are not judged."""
        rule, prompt = self._rule(settings), protocol.settings.prompt
        identical = [c for c in comparisons if c.response_a == c.response_b]
        different = [c for c in comparisons if c.response_a != c.response_b]
        if bar:
            bar.advance(records=len(identical) + sum(is_done(c.id) for c in different))
        for comparison in identical:
            yield identical_result(comparison, protocol, self.model.limits, settings.shown)
        if not different:
            return
        on_tokens = (lambda tokens: bar.advance(tokens=tokens)) if bar else None
        found: dict[str, dict[Order, Judged]] = defaultdict(dict)
        for item in self.judge(protocol, different, settings, is_done=is_done, on_tokens=on_tokens):
            id_ = item.comparison.id
            if is_done(id_):
                continue
            found[id_][item.order] = item
            if len(found[id_]) == len(settings.shown):
                if bar:
                    bar.advance(records=1)
                digest_ = prompt.digest(with_reference=item.comparison.reference is not None)
                yield result_of(found.pop(id_), rule, digest_)

    def grades(self, rows: Sequence[Scoring], *, rubric: str | None, votes: int) -> list[ScoreResult]:
        """Returns the probability that each response is good, by a pointwise judge."""
        assert self.is_pointwise
        comparisons = [
            Comparison(
                id=str(n),
                instruction=row.instruction,
                response_a=row.response,
                response_b="",
                reference=row.reference,
                texts=row.texts,
            )
            for n, row in enumerate(rows)
        ]
        protocol = self.protocol(rubric)
        prompt_digest = protocol.settings.prompt.digest()
        rule, settings = DecisionRule(seed=self.settings.seed), CompareSettings(votes=votes, orders="one")
        found = {
            item.comparison.id: result_of({item.order: item}, rule, prompt_digest)
            for item in self.judge(protocol, comparisons, settings)
        }
        trained, with_reference = self.is_trained_with(rubric), self.settings.prompt.needs_reference
        return [
            grade_of(found[str(n)], trained=trained and (with_reference or row.reference is None))
            for n, row in enumerate(rows)
        ]

    def _rule(self, settings: CompareSettings) -> DecisionRule:
        calibration = self.calibration
        return DecisionRule(
            temperature=calibration.temperature if calibration else 1.0,
            threshold=calibration.threshold if calibration else 0.0,
            on_flip=settings.on_flip,
            seed=self.settings.seed,
        )


@functools.lru_cache(maxsize=4)
def _reopened(arguments: tuple[tuple[str, Any], ...]) -> Judge:
    """Returns the judge that `Judge.load` opens with these arguments."""
    return Judge.load(**dict(arguments))
