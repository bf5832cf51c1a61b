"""Stage 2, `ste pairs`: instructions -> a better and a worse response each (the paper, section 3.2).

y_w answers the instruction x; y_l is made as the modules of `ste_jax.pairs` describe. Built once, for all
iterations. Writes `pairs/` (records: Comparison) and, below it, one record set per kind of model call.
"""

from collections import Counter
from collections.abc import Mapping

from ste_jax.config import PairMode, PairsConfig
from ste_jax.pairs.construction import check_pair
from ste_jax.pairs.kinds import KINDS
from ste_jax.pairs.rejected import PairInputs, RejectedCandidate
from ste_jax.randomness import generator
from ste_jax.records import Comparison, Generation, Instruction
from ste_jax.stages.context import Context
from ste_jax.stages.generation import ModelSampler
from ste_jax.storage.readers import read_records
from ste_jax.storage.record_set import RecordSet
from ste_jax.storage.success import read_success, require_success
from ste_jax.text.chat import Message


def run(context: Context, instructions: list[Instruction]) -> list[Comparison]:
    """Returns the pairs of the run, made now or before."""
    folder, settings = context.workdir / "pairs", context.config.pairs
    fingerprint = made_from(context)
    records = RecordSet(folder, Comparison, fingerprint)
    if read_success(folder):
        return read_records(folder, Comparison)

    sampler = ModelSampler(context, folder, settings.sampling, fingerprint)
    questions = {i.id: [Message("user", i.text)] for i in instructions}
    chosen = sampler.sample("answers", questions, max_new_tokens=settings.max_response_tokens)
    inputs = PairInputs(
        instructions=[i for i in instructions if i.id in chosen],
        answers=chosen,
        sampler=sampler,
        tokenizer=context.seed_model.tokenizer,
        seed=context.config.seed,
        checks=settings.checks,
        max_response_tokens=settings.max_response_tokens,
        max_modified_tokens=settings.max_modified_tokens,
        high_temperature=settings.high_temperature,
    )
    pairs, rejected = [], Counter()
    for mode in settings.modes:
        candidates = KINDS[mode](inputs)
        for instruction in instructions:
            pair = _pair(context, instruction, mode, chosen.get(instruction.id), candidates)
            if isinstance(pair, Comparison):
                pairs.append(pair)
            else:
                rejected[pair] += 1
    work = [call.work for name in sampler.names if (call := read_success(folder / name))]
    # Set, not added: a run that was killed here comes by again.
    records.work.done = 0
    records.work.prompt_tokens = sum(one["prompt_tokens"] for one in work)
    records.work.generated_tokens = sum(one["generated_tokens"] for one in work)
    for pair in pairs:
        records.add(pair.id, [pair])
    records.finish([p.id for p in pairs], _summary(settings, len(instructions), pairs, rejected))
    return pairs


def made_from(context: Context) -> dict:
    """Returns the fingerprint of the pairs."""
    return context.fingerprint(
        "pairs",
        select=require_success(context.workdir / "select").content_hash,
        model=context.seed_model.digest(),
    )


def _pair(
    context: Context,
    instruction: Instruction,
    mode: PairMode,
    chosen: Generation | None,
    candidates: Mapping[str, RejectedCandidate | None],
) -> Comparison | str:
    """Returns the pair of an instruction, or the reason why there is none."""
    settings = context.config.pairs
    if chosen is None:
        return "too_long"
    if instruction.id not in candidates:
        return "no_candidate"
    candidate = candidates[instruction.id]
    if candidate is None:
        return "modified_unparsable"
    reason = check_pair(instruction.text, candidate.modified, chosen.text, candidate.text, settings.checks)
    if reason:
        return reason
    # With one mode, an instruction has one pair, and they share the id.
    id_ = instruction.id if settings.modes == (mode,) else f"{instruction.id}.{mode}"
    label = "A" if generator(context.config.seed, "place", id_).random() < 0.5 else "B"
    better, worse = (chosen.text, chosen.tokens), (candidate.text, candidate.tokens)
    first, second = (better, worse) if label == "A" else (worse, better)
    return Comparison(
        id=id_,
        prompt_id=instruction.id,
        instruction=instruction.text,
        response_a=first[0],
        response_b=second[0],
        label=label,
        category=instruction.category,
        subset=mode,
        metadata={
            "generator": context.seed_model.name,
            "modified_instruction": candidate.modified,
            "tokens_a": first[1],
            "tokens_b": second[1],
        },
    )


def _summary(settings: PairsConfig, instructions: int, pairs: list[Comparison], rejected: Counter) -> dict:
    tokens = [(len(p.metadata["tokens_a"]), len(p.metadata["tokens_b"])) for p in pairs]
    better = [a if p.label == "A" else b for p, (a, b) in zip(pairs, tokens, strict=True)]
    worse = [b if p.label == "A" else a for p, (a, b) in zip(pairs, tokens, strict=True)]
    return {
        "asked": instructions * len(settings.modes),
        "made": len(pairs),
        "rejected": dict(sorted(rejected.items())),
        "mode": ", ".join(settings.modes),
        "chosen_tokens_mean": sum(better) / max(1, len(better)),
        "rejected_tokens_mean": sum(worse) / max(1, len(worse)),
    }
