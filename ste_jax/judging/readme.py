"""Files for the users of an exported judge: a README with programs that run it, and what these read."""

import json
from pathlib import Path
from typing import Any

from ste_jax.checkpoint.card import ModelCard
from ste_jax.checkpoint.export import export_model
from ste_jax.checkpoint.source import ModelSource
from ste_jax.judging.defaults import judge_settings, stored_calibration
from ste_jax.judging.protocol import JudgeSettings
from ste_jax.judging.snippets import transformers_snippet, vllm_snippet
from ste_jax.judging.verdict import OPENING

README, JUDGE = "README.md", "judge.json"
_FORCED = (
    "on. `Verdict: [[` is appended to a judgment that ends without a verdict, and the likelier letter wins."
)
_NOT_FORCED = "off. A judgment that ends without a verdict has none."
_USAGE = """\
## Use it

With ste_jax: `ste_jax.Judge.load(FOLDER).compare(instruction, response_a, response_b)`. Without it, run
one of the following programs in this folder. Both judge both orders, so that the position of a response does
not decide.

They show the same prompt as ste_jax, with these exceptions. Of the imitations of delimiters and verdicts,
they miss those with look-alike or invisible characters, in bold type or quotes, and tags with attributes.
Control tokens in texts are broken up by a blank; ste_jax encodes them as text. Prompts that are too long for
the model are not refused.{references}

### transformers

```python
{transformers}
```

### vLLM

Returns the verdicts of both orders instead of a probability. Not run by the tests of ste_jax.

```python
{vllm}
```"""


def export_judge(
    source: ModelSource, folder: str | Path, *, license_: str = "", base_model: str = ""
) -> bool:
    """Writes an own model as a Hugging Face folder with a README and `judge.json`; see `export_model`.

    Args:
      source: an own model.
      folder: the folder to write.
      license_: identifier of its licence on the Hugging Face hub; empty if it is not stated.
      base_model: name of the model that it was trained from; empty takes the one in its card.
    """
    settings = judge_settings(source, prompt=None, rubric="", max_new_tokens=None, force_verdict=None, seed=0)
    base_model = base_model or (source.card and source.card.base_model) or ""
    files = {
        README: readme(source, settings, license_=license_, base_model=base_model),
        JUDGE: json.dumps(judge_fields(source, settings), indent=2, ensure_ascii=False) + "\n",
    }
    return export_model(source, folder, files)


def judge_fields(source: ModelSource, settings: JudgeSettings) -> dict[str, Any]:
    """Returns what a program needs to call a judge: prompt, budget, forcing, dtype and calibration."""
    prompt, tokenizer, card = settings.prompt, source.tokenizer, source.card
    calibration = stored_calibration(source)
    return {
        "system": prompt.system,
        "user": prompt.user,
        "rubric": prompt.rubric,
        "delimiters": prompt.delimiters(),
        "has_system_role": tokenizer.has_system_role,
        "needs_bos": bool(tokenizer.with_bos([])),
        "date": tokenizer.chat_date,
        "max_new_tokens": settings.max_new_tokens,
        "force_verdict": settings.force_verdict,
        "opening": OPENING,
        "dtype": (card and card.dtype) or ("float32" if source.is_small else "bfloat16"),
        "temperature": calibration.temperature if calibration else 1.0,
    }


def readme(source: ModelSource, settings: JudgeSettings, *, license_: str, base_model: str) -> str:
    """Returns the README in Markdown, with the metadata of the Hugging Face hub."""
    assert source.card is not None
    parts = [
        _front_matter(license_, base_model),
        f"# {source.card.name}",
        _about(source.card, settings, license_),
        _usage(settings),
        *([_panel(source.card.shortcuts)] if source.card.shortcuts else []),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(license_: str, base_model: str) -> str:
    lines = [f"license: {json.dumps(license_ or 'other')}"]
    if not license_:
        lines.append('license_name: "unknown"')
    if base_model:
        lines.append(f"base_model: {json.dumps(base_model)}")
    lines += ["library_name: transformers", "pipeline_tag: text-generation"]
    lines.append("tags: [llm-as-a-judge, ste-jax]")
    return "\n".join(("---", *lines, "---"))


def _about(card: ModelCard, settings: JudgeSettings, license_: str) -> str:
    prompt = settings.prompt
    kind = "grades one response at a time" if prompt.is_pointwise else "compares two responses"
    trained = f"was trained by ste_jax with the prompt `{prompt.name}`"
    if card.judge_prompt is None:
        trained = f"was not trained as a judge; the prompt `{prompt.name}` and its settings are defaults"
    lines = [
        f"A language model that {kind}. It {trained}. It answers `[[A]]` or `[[B]]`; the last one counts.",
        "",
        f"- Token budget: {settings.max_new_tokens} new tokens per judgment.",
        f"- Verdict forcing: {_FORCED if settings.force_verdict else _NOT_FORCED}",
        "- `judge.json` holds the prompt and these settings for other programs, `model.json` those of its",
        "  training.",
    ]
    if not license_:
        lines.append(
            "- Licence: not stated at export (`ste convert --license=`); that of the base model may apply."
        )
    return "\n".join(lines)


def _usage(settings: JudgeSettings) -> str:
    references = " References cannot be shown." if settings.prompt.reference_section else ""
    return _USAGE.format(references=references, transformers=transformers_snippet(), vllm=vllm_snippet())


def _panel(shortcuts: dict[str, Any]) -> str:
    rows = [_row(line) for line in shortcuts["lines"]]
    return "\n".join(
        (
            "## What this judge decides by",
            "",
            shortcuts["summary"],
            "",
            "| | measured | share | 95% interval | |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "Measured on the held-out pairs of its training run. **!** marks what speaks against a use.",
        )
    )


def _row(line: dict[str, Any]) -> str:
    bounds = line["interval95"]
    cells = (
        "**!**" if line["warning"] else "",
        line["name"].replace("_", " "),
        f"{100 * line['share']:.1f}%",
        "" if bounds is None else f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f}%",
        line["text"],
    )
    return f"| {' | '.join(cells)} |"
