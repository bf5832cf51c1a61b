"""Stage 1, `ste select`: filters instructions, labels them with the model and samples them by quota.

See section 3.1 of the paper. Reads an instruction source; writes `select/` (records: Instruction) and the
answers of the labelling model to `select/labels`.
"""

import dataclasses

from etils import epath

from ste_jax.checkpoint.source import ModelSource
from ste_jax.config import RunConfig, SelectConfig
from ste_jax.data.sources import read_source
from ste_jax.decode.protocol import GREEDY
from ste_jax.errors import SteError
from ste_jax.instructions.filters import OTHER_LANGUAGE, FunnelStep, filter_instructions
from ste_jax.instructions.labels import label_prompt, parse_label
from ste_jax.instructions.sampler import Selection, sample
from ste_jax.randomness import generator
from ste_jax.records import Generation, Instruction
from ste_jax.stages.context import Context
from ste_jax.stages.generation import generate_texts
from ste_jax.stages.held_out import IN_BENCHMARKS, IN_LABELLED, HeldOutTexts, check_labelled_pairs
from ste_jax.storage.files import digest
from ste_jax.storage.readers import read_records
from ste_jax.storage.record_set import RecordSet
from ste_jax.storage.sink import Work
from ste_jax.storage.success import read_success, require_success

NO_RESPONSE, NO_REFERENCE = "without a better response", "without a reference"
# The setting that decides what a step of the funnel removes.
_SETTINGS = {
    NO_RESPONSE: "pairs.better_from",
    NO_REFERENCE: "judge_prompt, which shows {reference}",
    IN_LABELLED: "labelled_pairs",
    IN_BENCHMARKS: "select.decontaminate",
    "exact duplicate": "always removed",
    "too long": "select.filters.max_chars",
    "near duplicate": "select.filters.near_duplicate_threshold",
    "personal data": "select.filters.personal_data",
    "too many tokens": "select.max_tokens",
    "not drawn into the pool": "select.pool",
}


@dataclasses.dataclass(frozen=True)
class Preview:
    """Instructions as they are before the model labels any.

    Attributes:
      read: number of instructions that were read.
      columns_left_out: columns of the file that are not read.
      kept: instructions that the filters keep.
      funnel: what each filter removes.
    """

    read: int
    columns_left_out: list[str]
    kept: list[Instruction]
    funnel: list[FunnelStep]


def preview(context: Context) -> Preview:
    """Reads and filters the instructions, and writes nothing.

    Raises:
      SteError: as `run`.
    """
    config = context.config
    read, columns_left_out = read_source(config.instructions, context.instruction_columns)
    kept, funnel = _filtered(context, read, HeldOutTexts.read(config))
    return Preview(len(read), columns_left_out, kept, funnel)


def run(context: Context) -> list[Instruction]:
    """Returns the selected instructions, selected now or by an earlier start."""
    config, settings = context.config, context.config.select
    folder = context.workdir / "select"
    read, columns_left_out = read_source(config.instructions, context.instruction_columns)
    held_out = HeldOutTexts.read(config)
    source = context.seed_model
    fingerprint = context.fingerprint(
        "select",
        instructions=digest([i.to_json() for i in read]),
        model=source.digest(),
        **held_out.inputs(),
    )
    records = RecordSet(folder, Instruction, fingerprint)
    if read_success(folder):
        return read_records(folder, Instruction)

    kept, funnel = _filtered(context, read, held_out)
    to_label = kept if settings.categories else []
    conversations = {i.id: label_prompt(i.whole, settings.categories) for i in to_label}
    answers, _ = generate_texts(
        context,
        source,
        folder / "labels",
        conversations,
        sampling=GREEDY,
        max_new_tokens=settings.max_new_tokens,
        fingerprint=fingerprint,
    )
    labelled = [_labelled(i, answers.get(i.id), settings) for i in kept]
    selection = _sampled(config, labelled, len(read), funnel)
    chosen = list(selection.instructions)
    funnel.append(FunnelStep("selected", len(kept) - len(chosen), len(chosen)))
    records.work = _add_work(records, folder)
    for instruction in chosen:
        records.add(instruction.id, [instruction])
    # The name of the seed model, for readers of the run that do not open its models.
    summary = {
        "model": source.name,
        "columns_left_out": columns_left_out,
        **_summary(len(read), len(to_label), funnel, labelled, selection),
    }
    records.finish([i.id for i in chosen], summary)
    return chosen


def _filtered(
    context: Context, read: list[Instruction], held_out: HeldOutTexts
) -> tuple[list[Instruction], list[FunnelStep]]:
    """Returns the instructions for the model to label, and the funnel so far."""
    config, settings, funnel = context.config, context.config.select, []
    kept = _drop_blank(read, funnel)
    kept = held_out.left_out_of(kept, settings.filters.near_duplicate_threshold, funnel)
    kept, steps = filter_instructions(kept, settings.filters)
    funnel += steps
    kept = _drop_long(kept, context.seed_model, settings.max_tokens, funnel)
    kept = _draw_pool(kept, settings.pool, config.seed, funnel)
    _check_left(config, kept, len(read), funnel)
    check_labelled_pairs(config, kept, context.named)
    return kept, funnel


def _drop_blank(instructions: list[Instruction], funnel: list[FunnelStep]) -> list[Instruction]:
    """Returns the instructions but those without a response or a reference that the run needs."""
    for name, field in ((NO_RESPONSE, "response"), (NO_REFERENCE, "reference")):
        kept = [i for i in instructions if getattr(i, field) != ""]
        if len(kept) < len(instructions):
            funnel.append(FunnelStep(name, len(instructions) - len(kept), len(kept)))
        instructions = kept
    return instructions


def _check_left(config: RunConfig, kept: list[Instruction], read: int, funnel: list[FunnelStep]) -> None:
    """Refuses a run without an instruction to train on, before the model labels any."""
    pairs = min(len(kept), config.select.size) * len(config.pairs.modes)
    if pairs <= config.held_out:
        left = (
            f"{len(kept)} instructions are left, which make {pairs} pairs at most, but {config.held_out} are "
            "to be held out (pairs.test, pairs.validation)"
        )
        raise SteError(
            "no_training_pairs" if kept else "data_invalid",
            f"{config.instructions}: {left if kept else 'no instruction is left'}; {_in_words(read, funnel)}",
        )


def _sampled(
    config: RunConfig, labelled: list[Instruction], read: int, funnel: list[FunnelStep]
) -> Selection:
    settings = config.select
    try:
        return sample(
            labelled,
            settings.size,
            settings.quotas,
            config.seed,
            min_complexity=settings.min_complexity or None,
            prefer_complex=settings.prefer_complex,
        )
    except SteError as error:
        raise SteError(error.code, f"{error} ({_in_words(read, funnel)})") from error


def _in_words(read: int, funnel: list[FunnelStep]) -> str:
    """Returns what each step of the funnel removed, and the setting of the step."""
    removed = [f"{step.removed} {step.name} ({_setting(step.name)})" for step in funnel if step.removed]
    return f"of {read} read: {', '.join(removed) or 'none was removed'}"


def _setting(step: str) -> str:
    return "select.filters.languages" if step.startswith(OTHER_LANGUAGE) else _SETTINGS[step]


def _add_work(records: RecordSet, folder: epath.Path) -> Work:
    """Returns the work of the stage, which is that of labelling."""
    work = require_success(folder / "labels").work
    return dataclasses.replace(
        records.work, done=0, prompt_tokens=work["prompt_tokens"], generated_tokens=work["generated_tokens"]
    )


def _drop_long(
    instructions: list[Instruction], source: ModelSource, max_tokens: int, funnel: list[FunnelStep]
) -> list[Instruction]:
    kept = [i for i in instructions if len(source.tokenizer.encode_plain(i.whole)) <= max_tokens]
    funnel.append(FunnelStep("too many tokens", len(instructions) - len(kept), len(kept)))
    return kept


def _draw_pool(
    instructions: list[Instruction], pool: int, seed: int, funnel: list[FunnelStep]
) -> list[Instruction]:
    kept = instructions
    if pool and len(instructions) > pool:
        ranks = {i.id: generator(seed, "pool", i.id).random() for i in instructions}
        drawn = set(sorted(ranks, key=ranks.__getitem__)[:pool])
        kept = [i for i in instructions if i.id in drawn]
    funnel.append(FunnelStep("not drawn into the pool", len(instructions) - len(kept), len(kept)))
    return kept


def _labelled(instruction: Instruction, answer: Generation | None, settings: SelectConfig) -> Instruction:
    label = parse_label(answer.text if answer else "", settings.categories)
    return dataclasses.replace(instruction, **dataclasses.asdict(label))


def _summary(
    read: int, requested: int, funnel: list[FunnelStep], labelled: list[Instruction], selection: Selection
) -> dict:
    return {
        "funnel": [{"name": "read", "removed": 0, "left": read}, *map(dataclasses.asdict, funnel)],
        "labels": {
            "asked": requested,
            "parsed_category": sum(i.category is not None for i in labelled),
            "parsed_complexity": sum(i.complexity is not None for i in labelled),
            "parsed_length": sum(i.length is not None for i in labelled),
        },
        "categories": {
            q.category: {"wanted": q.wanted, "available": q.available, "taken": q.taken}
            for q in selection.quotas
        },
        "missing": selection.missing,
    }
