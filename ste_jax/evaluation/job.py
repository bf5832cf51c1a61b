"""What an evaluation is, and what it says of itself in the header of its result."""

import dataclasses
from typing import Any

import jax

from ste_jax.benchmarks.benchmark import Benchmark
from ste_jax.checkpoint.source import ModelSource, open_model
from ste_jax.decode.settings import DecodeSettings
from ste_jax.evaluation.estimate import buckets_below
from ste_jax.evaluation.settings import EvaluationSettings
from ste_jax.judging.judge import JudgeSettings, check_prompt
from ste_jax.judging.prompts import JudgePrompt
from ste_jax.judging.verdict import PARSER
from ste_jax.records import ORDERS, Comparison
from ste_jax.storage.files import digest
from ste_jax.versions import versions

# New tokens of a judgment that ends within two looks of the engine.
_SHORT = 32


@dataclasses.dataclass(frozen=True)
class Job:
    """A model, the comparisons it is to judge, and how; made by `open_job`."""

    source: ModelSource
    benchmark: Benchmark
    items: list[Comparison]
    settings: EvaluationSettings
    judging: JudgeSettings
    decode: DecodeSettings

    def run(self) -> dict[str, Any]:
        """Returns what the judgments depend on: the part of the header that a restart must agree with."""
        tokenizer, prompt = self.source.tokenizer, self.judging.prompt
        return {
            "model": self._model(),
            "tokenizer_hash": tokenizer.fingerprint(),
            "template_hash": digest(tokenizer.chat_template),
            "stop_ids": list(tokenizer.stop_ids),
            "prompt": prompt.to_json(),
            "prompt_hash": prompt.digest(),
            "parser": PARSER,
            "benchmark": self.benchmark.name or None,
            "data": self._data(),
            "orders": list(ORDERS),
            "samples": self.settings.votes,
            "sampling": vars(self.settings.sampling),
            "max_new_tokens": self.judging.max_new_tokens,
            "force_verdict": self.judging.force_verdict,
            "seed": self.settings.seed,
            # Bits, and with them draws, may differ between programs of other shapes or other versions.
            "decode": {**vars(self.decode), "mesh": list(self.settings.mesh)},
            "versions": versions(),
            "device": jax.devices()[0].device_kind,
        }

    def about(self) -> dict[str, Any]:
        """Returns what else the header says: where things lay. Of the data, their hash is what counts."""
        return {
            "model_path": str(self.source.path),
            "data_source": self.benchmark.source,
            "data_revision": self.benchmark.revision,
        }

    def _model(self) -> dict[str, Any]:
        return {
            "name": self.source.name,
            "hash": self.source.digest(),
            "parent": self.source.card.parent if self.source.card else None,
            "parameters": self.source.architecture.parameter_count,
        }

    def _data(self) -> dict[str, Any]:
        return {
            "hash": self.benchmark.content,
            "notes": self.benchmark.notes,
            "comparisons": len(self.benchmark.items),
            "limit": self.settings.limit or None,
            "judged_hash": digest([item.to_json() for item in self.items]),
        }


def open_job(model: str, benchmark: Benchmark, settings: EvaluationSettings) -> Job:
    """Opens a model for an evaluation; its weights are not read yet.

    Raises:
      ValueError: the model cannot be used, or not with this prompt.
    """
    source = open_model(model)
    judging = settings.judging(source.architecture.parameter_count, _trained_prompt(source))
    check_prompt(source, judging.prompt)
    decode = DecodeSettings(
        sequences=settings.sequences,
        # Short judgments end together, and many prompts have a place at once.
        prefill_tokens=2048 if judging.max_new_tokens <= _SHORT else 512,
        samples_per_slot=min(settings.votes, 16, settings.sequences),
        buckets=buckets_below(source.architecture.context_length),
        dtype=settings.dtype,
    )
    items = benchmark.limited(settings.limit, settings.seed)
    return Job(source, benchmark, items, settings, judging, decode)


def _trained_prompt(source: ModelSource) -> JudgePrompt | None:
    card = source.card
    return JudgePrompt.from_json(card.judge_prompt) if card and card.judge_prompt else None
