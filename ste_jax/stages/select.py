"""Stage 1, `ste select`: filters instructions, labels them with the model and samples them by quota.

See section 3.1 of the paper. Reads an instruction source; writes `select/` (records: Instruction) and the
answers of the labelling model to `select/labels`.
"""

import dataclasses

from etils import epath

from ste_jax.checkpoint.source import ModelSource
from ste_jax.config import SelectConfig
from ste_jax.data.sources import read_instructions
from ste_jax.decode.protocol import GREEDY
from ste_jax.instructions.filters import FunnelStep, filter_instructions
from ste_jax.instructions.labels import label_prompt, parse_label
from ste_jax.instructions.sampler import Selection, sample
from ste_jax.randomness import generator
from ste_jax.records import Generation, Instruction
from ste_jax.stages.context import Context
from ste_jax.stages.generation import generate_texts
from ste_jax.storage.files import digest
from ste_jax.storage.readers import read_records
from ste_jax.storage.record_set import RecordSet
from ste_jax.storage.sink import Work
from ste_jax.storage.success import read_success, require_success
from ste_jax.text.chat import to_messages


def run(context: Context) -> list[Instruction]:
    """Returns the selected instructions, selected now or by an earlier start."""
    config, settings = context.config, context.config.select
    folder = context.workdir / "select"
    read = read_instructions(config.instructions)
    source = context.seed_model
    fingerprint = context.fingerprint(
        "select", instructions=digest([i.to_json() for i in read]), model=source.digest()
    )
    records = RecordSet(folder, Instruction, fingerprint)
    if read_success(folder):
        return read_records(folder, Instruction)

    kept, funnel = filter_instructions(read, settings.filters)
    kept = _drop_long(kept, source, settings.max_tokens, funnel)
    kept = _draw_pool(kept, settings.pool, config.seed, funnel)
    to_label = kept if settings.categories else []
    conversations = {i.id: to_messages(label_prompt(i.text, settings.categories)) for i in to_label}
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
    selection = sample(
        labelled,
        settings.size,
        settings.quotas,
        config.seed,
        min_complexity=settings.min_complexity or None,
        prefer_complex=settings.prefer_complex,
    )
    chosen = list(selection.instructions)
    funnel.append(FunnelStep("selected", len(kept) - len(chosen), len(chosen)))
    records.work = _add_work(records, folder)
    for instruction in chosen:
        records.add(instruction.id, [instruction])
    # The name of the seed model, for readers of the run that do not open its models.
    summary = {"model": source.name, **_summary(len(read), len(to_label), funnel, labelled, selection)}
    records.finish([i.id for i in chosen], summary)
    return chosen


def _add_work(records: RecordSet, folder: epath.Path) -> Work:
    """Returns the work of the stage, which is that of labelling."""
    work = require_success(folder / "labels").work
    return dataclasses.replace(
        records.work, done=0, prompt_tokens=work["prompt_tokens"], generated_tokens=work["generated_tokens"]
    )


def _drop_long(
    instructions: list[Instruction], source: ModelSource, max_tokens: int, funnel: list[FunnelStep]
) -> list[Instruction]:
    kept = [i for i in instructions if len(source.tokenizer.encode_plain(i.text)) <= max_tokens]
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
