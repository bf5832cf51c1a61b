"""Settings of a judge that are not given: those of its training, else defaults by the size of the model."""

import dataclasses
from typing import TypeVar

from ste_jax.checkpoint.source import CARD, ModelSource
from ste_jax.checks import check_bool, check_whole
from ste_jax.errors import SteError
from ste_jax.judging.calibration import Calibration, calibration_of, read_calibration
from ste_jax.judging.prompts import JudgePrompt, load_prompt
from ste_jax.judging.protocol import JudgeSettings, trained_prompt

# Budgets up to this end within two polls of the engine, so more prompts are read at once.
SHORT_BUDGET = 32
_LONG_BUDGET = 2048

T = TypeVar("T")


def judge_settings(
    source: ModelSource,
    *,
    prompt: str | None,
    rubric: str,
    max_new_tokens: int | None,
    force_verdict: bool | None,
    seed: int,
) -> JudgeSettings:
    """Returns the settings of a judge; for the arguments see `Judge.load`.

    Raises:
      SteError: "argument_invalid" for a budget that leaves no verdict, or the prompt cannot be read.
    """
    if max_new_tokens is not None:
        check_whole("max_new_tokens", max_new_tokens, least=0)
        longest = source.architecture.context_length
        if max_new_tokens >= longest:
            raise SteError(
                "argument_invalid",
                f"max_new_tokens {max_new_tokens} leaves no room for a prompt in the model's context of "
                f"{longest} tokens",
            )
    check_whole("seed", seed)
    if force_verdict is not None:
        check_bool("force_verdict", force_verdict)
    card, small = source.card, source.is_small
    budget = _given(max_new_tokens, card and card.max_new_tokens, SHORT_BUDGET if small else _LONG_BUDGET)
    forced = _given(force_verdict, card and card.force_verdict, small)
    if budget < (0 if forced else 1):
        raise SteError(
            "argument_invalid", f"max_new_tokens must be 1 or more, or 0 with force_verdict, not {budget}"
        )
    return JudgeSettings(_prompt(source, prompt, rubric), budget, forced, seed)


def stored_calibration(source: ModelSource) -> Calibration | None:
    """Returns the calibration in the card of a model, or the one stored under its fingerprint, if any.

    Raises:
      SteError: it is broken or of a newer version; the message names the file.
    """
    if source.card and source.card.calibration:
        return calibration_of(source.card.calibration, source.path / CARD)
    return read_calibration(source.digest())


def _prompt(source: ModelSource, prompt: str | None, rubric: str) -> JudgePrompt:
    trained = trained_prompt(source)
    if trained is None:
        return load_prompt(prompt or ("short" if source.is_small else "standard"), rubric)
    if prompt:
        return load_prompt(prompt, rubric).with_sanitizer_of(trained)
    return dataclasses.replace(trained, rubric=rubric or trained.rubric)


def _given(given: T | None, of_training: T | None, default: T) -> T:
    """Returns the first value that is not None."""
    return next(value for value in (given, of_training, default) if value is not None)
