"""Stage 2, `ste pairs`: makes a better and a worse response to each instruction.

See section 3.2 of the paper. The better response y_w answers the instruction x; the worse one y_l is made as
the modules of `ste_jax.pairs` describe. Pairs are made once, for all iterations. Writes `pairs/` (records:
Comparison) and, below it, one record set per kind of model call.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

from ste_jax.config import PairMode, PairsConfig, RunConfig
from ste_jax.data.named_columns import BY_NAME, NamedColumns
from ste_jax.errors import SteError
from ste_jax.pairs.candidate import Answered, Candidate
from ste_jax.pairs.certain import CERTAIN, OF_TWO_ANSWERS
from ste_jax.pairs.construction import check_pair
from ste_jax.pairs.high_temperature import second_answers
from ste_jax.pairs.kinds import ACROSS_INSTRUCTIONS, KINDS
from ste_jax.pairs.mixture import SOURCES, mixed
from ste_jax.pairs.rejected import Candidates, PairInputs
from ste_jax.pairs.splits import (
    HeldOut,
    Part,
    Splits,
    build_within_parts,
    split_pairs,
)
from ste_jax.pairs.verified import VERIFIED, read_references, references_digest, verified
from ste_jax.randomness import generator
from ste_jax.records import Comparison, Generation, Instruction
from ste_jax.stages.context import Context
from ste_jax.stages.generation import ModelSampler
from ste_jax.stages.held_out import check_labelled_pairs, pair_id
from ste_jax.storage.readers import read_records
from ste_jax.storage.record_set import RecordSet
from ste_jax.storage.success import read_success, require_success
from ste_jax.text.chat import Message


def run(context: Context, instructions: list[Instruction]) -> list[Comparison]:
    """Returns the pairs of the run, made now or by an earlier start.

    Raises:
      SteError: "no_pairs" with the reasons, or an error of the files that the configuration names.
    """
    pairs = _made(context, instructions)
    if not pairs:
        rejected = require_success(context.workdir / "pairs").summary["rejected"]
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(rejected.items()))
        raise SteError(
            "no_pairs", f"pairs: none was made of {len(instructions)} instructions: {reasons} (docs/PAIRS.md)"
        )
    return pairs


def _made(context: Context, instructions: list[Instruction]) -> list[Comparison]:
    folder, settings = context.workdir / "pairs", context.config.pairs
    fingerprint = made_from(context)
    records = RecordSet(folder, Comparison, fingerprint)
    if read_success(folder):
        return read_records(folder, Comparison)

    check_labelled_pairs(context.config, instructions, context.named)
    sampler = ModelSampler(context, folder, settings.sampling, fingerprint)
    answers = _better_responses(context, sampler, instructions)
    inputs = PairInputs(
        instructions=[i for i in instructions if i.id in answers],
        answers=answers,
        sampler=sampler,
        tokenizer=context.seed_model.tokenizer,
        seed=context.config.seed,
        checks=settings.checks,
        max_response_tokens=settings.max_response_tokens,
        max_modified_tokens=settings.max_modified_tokens,
        high_temperature=settings.high_temperature,
    )
    if OF_TWO_ANSWERS.intersection(settings.modes):
        inputs = dataclasses.replace(inputs, others=second_answers(inputs))
    pairs, rejected = _build(context, inputs)
    calls = {name: call for name in sampler.names if (call := read_success(folder / name))}
    work = [call.work for call in calls.values()]
    invalid = len(calls["answers"].summary.get("chat_invalid", ())) if "answers" in calls else 0
    unanswered = {"chat_invalid": invalid, "too_long": len(instructions) - len(inputs.instructions) - invalid}
    for reason, number in unanswered.items():
        if number:
            rejected[reason] += number * sum(mode in KINDS for mode in settings.modes)
    # Assigned, not added: a run that was killed here gets here again.
    records.work.done = 0
    records.work.prompt_tokens = sum(one["prompt_tokens"] for one in work)
    records.work.generated_tokens = sum(one["generated_tokens"] for one in work)
    for pair in pairs:
        records.add(pair.id, [pair])
    records.finish([p.id for p in pairs], _summary(settings, len(instructions), pairs, rejected))
    return pairs


def _better_responses(
    context: Context, sampler: ModelSampler, instructions: list[Instruction]
) -> dict[str, Generation]:
    """Returns the better responses by the id of their instruction: those of a column, or of the model."""
    settings = context.config.pairs
    if not settings.better_from:
        questions = {i.id: [Message("user", i.whole)] for i in instructions}
        return sampler.sample("answers", questions, max_new_tokens=settings.max_response_tokens)
    encode = context.seed_model.tokenizer.encode_plain
    given = {i.id: i.response or "" for i in instructions}
    return {
        id_: Generation(id=id_, text=text, tokens=encode(text), finish="stop") for id_, text in given.items()
    }


def held_out(config: RunConfig) -> HeldOut:
    """Returns the minimum numbers of pairs to hold out; labelled pairs replace those for validation."""
    return HeldOut(test=config.pairs.test, validation=0 if config.labelled_pairs else config.pairs.validation)


def split(config: RunConfig, pairs: Sequence[Comparison], named: NamedColumns = BY_NAME) -> Splits:
    """Returns the pairs of a run by use (see `split_pairs`)."""
    return split_pairs(config.seed, pairs, held_out(config), config.labelled_pairs, named)


def made_from(context: Context) -> dict:
    """Returns the fingerprint of the pairs.

    How many of them are held out changes them only where a worse response answers another instruction.
    """
    inputs = {
        "select": require_success(context.workdir / "select").content_hash,
        "model": context.seed_model.digest(),
    }
    if is_divided(context.config.pairs):
        sizes = held_out(context.config)
        inputs["held_out"] = f"test {sizes.test}, validation {sizes.validation}"
    for mode, (field, path) in context.config.pairs.references.items():
        inputs[field] = references_digest(read_references(mode, path))
    return context.fingerprint("pairs", **inputs)


def _build(context: Context, inputs: PairInputs) -> tuple[list[Comparison], Counter[str]]:
    """Returns the pairs of all modes, by mode and instruction, and the reasons of the others, counted."""
    config, builder = context.config, _Builder(context, inputs)
    modes, ids = config.pairs.modes, [instruction.id for instruction in inputs.instructions]
    if is_divided(config.pairs):
        parts = build_within_parts(
            config.seed, ids, held_out(config), builder.build, pairs_per_instruction=len(modes)
        )
        pairs = [pair for part in parts.values() for pair in part]
    else:
        pairs = builder.build("train", ids)
    modes_rank = {mode: rank for rank, mode in enumerate(modes)}
    ids_rank = {id_: rank for rank, id_ in enumerate(ids)}
    # A pair without an instruction of the run, such as one of arithmetic, comes first.
    order = {pair.id: (modes_rank[pair.subset], ids_rank.get(pair.prompt_id, -1), pair.id) for pair in pairs}
    return sorted(pairs, key=lambda pair: order[pair.id]), builder.rejected


class _Builder:
    """Makes the pairs of parts of the instructions, and keeps why there is no pair of an instruction."""

    def __init__(self, context: Context, inputs: PairInputs):
        self._context, self._inputs = context, inputs
        # Made of all instructions at once, since some are sampled.
        self._fixed = {
            mode: KINDS[mode](inputs)
            for mode in context.config.pairs.modes
            if mode in KINDS and mode not in ACROSS_INSTRUCTIONS
        }
        references = context.config.pairs.references
        self._references = {mode: read_references(mode, path) for mode, (_, path) in references.items()}
        # The last outcome of each instruction: a part that grows is built more than once.
        self._outcomes: dict[tuple[PairMode, str], Comparison | str] = {}

    @property
    def rejected(self) -> Counter[str]:
        """Numbers of candidates without a pair, by reason."""
        return Counter(outcome for outcome in self._outcomes.values() if isinstance(outcome, str))

    def build(self, part: Part, ids: Sequence[str]) -> list[Comparison]:
        """Returns the pairs made from the instructions with these ids."""
        config, within = self._context.config, self._inputs.restricted_to(ids)
        modes = config.pairs.modes_of(part)
        made = self._one_each(within, modes) | self._certain(within, part, modes)
        if shares := config.pairs.shares_of(part):
            return mixed(made, shares, config.seed)
        return [pair for mode in modes for pair in made[mode]]

    def _one_each(self, within: PairInputs, modes: Sequence[PairMode]) -> dict[PairMode, list[Comparison]]:
        """Returns the pairs of the modes that make one candidate per instruction."""
        of_one: list[PairMode] = [mode for mode in modes if mode in KINDS]
        across = {mode: KINDS[mode](within) for mode in of_one if mode in ACROSS_INSTRUCTIONS}
        candidates = self._fixed | across
        made: dict[PairMode, list[Comparison]] = {}
        for mode in of_one:
            outcomes: dict[tuple[PairMode, str], Comparison | str] = {
                (mode, i.id): _pair(self._context, i, mode, within.answers, candidates[mode])
                for i in within.instructions
            }
            self._outcomes.update(outcomes)
            made[mode] = [pair for pair in outcomes.values() if isinstance(pair, Comparison)]
        return made

    def _certain(
        self, within: PairInputs, part: Part, modes: Sequence[PairMode]
    ) -> dict[PairMode, list[Comparison]]:
        """Returns the pairs of the modes whose label is certain."""
        answered = within.answered()
        return {
            mode: [
                _certain_pair(self._context, within, mode, candidate)
                for candidate in self._candidates(mode, answered, part)
            ]
            for mode in modes
            if mode in CERTAIN or mode in VERIFIED
        }

    def _candidates(self, mode: PairMode, answered: Sequence[Answered], part: Part) -> list[Candidate]:
        """Returns the candidates of a mode whose label is certain; references make one per instruction."""
        seed = self._context.config.seed
        if mode in CERTAIN:
            return CERTAIN[mode](answered, seed=seed, part=part)
        return verified(mode, self._references[mode], len(answered), seed=seed, part=part)


def is_divided(settings: PairsConfig) -> bool:
    """Returns True if the instructions are divided into parts before pairs are made of them."""
    divided = {*ACROSS_INSTRUCTIONS, *CERTAIN, *VERIFIED}
    return bool(settings.test_mode) or not divided.isdisjoint(settings.modes)


def _pair(
    context: Context,
    instruction: Instruction,
    mode: PairMode,
    answers: Mapping[str, Generation],
    candidates: Candidates,
) -> Comparison | str:
    """Returns the pair of an instruction, or the reason why there is none."""
    settings, chosen = context.config.pairs, answers[instruction.id]
    if instruction.id not in candidates:
        return "no_candidate"
    candidate = candidates[instruction.id]
    if candidate is None:
        return "modified_unparsable"
    reason = check_pair(instruction.text, candidate.modified, chosen.text, candidate.text, settings.checks)
    if reason:
        return reason
    id_ = pair_id(settings, instruction.id, mode)
    label = "A" if generator(context.config.seed, "place", id_).random() < 0.5 else "B"
    better, worse = (chosen.text, chosen.tokens), (candidate.text, candidate.tokens)
    first, second = (better, worse) if label == "A" else (worse, better)
    return Comparison(
        id=id_,
        prompt_id=instruction.id,
        instruction=instruction.text,
        reference=instruction.reference,
        texts=instruction.texts,
        response_a=first[0],
        response_b=second[0],
        label=label,
        category=instruction.category,
        subset=mode,
        metadata={
            "generator": context.seed_model.name,
            "modified_instruction": candidate.modified,
            # Their number alone: the ids would take ten times the bytes of the texts.
            "num_tokens_a": len(first[1]),
            "num_tokens_b": len(second[1]),
        },
    )


def _certain_pair(context: Context, inputs: PairInputs, mode: PairMode, candidate: Candidate) -> Comparison:
    """Returns the pair of a candidate, with the better response at a drawn position."""
    id_ = pair_id(context.config.pairs, candidate.key, mode)
    swapped = generator(context.config.seed, "place", id_).random() >= 0.5
    first, second = candidate.better, candidate.worse
    if swapped:
        first, second = second, first
    encode = inputs.tokenizer.encode_plain
    # A composite is made from several instructions, of which the judge sees all texts.
    sources = candidate.sources if mode == "composite" else candidate.sources[:1]
    known = {i.id: i for i in inputs.instructions}
    shown = [known[id_] for id_ in sources if id_ in known]
    references = [i.reference for i in shown if i.reference]
    return Comparison(
        id=id_,
        prompt_id=candidate.sources[0] if candidate.sources else candidate.key,
        instruction=candidate.instruction,
        reference="\n\n".join(references) or None,
        texts={
            name: "\n\n".join(filter(None, (i.texts[name] for i in shown))) for name in context.prompt.columns
        },
        response_a=first,
        response_b=second,
        label="tie" if candidate.is_tie else "B" if swapped else "A",
        subset=mode,
        metadata={
            "generator": context.seed_model.name,
            SOURCES: list(candidate.sources),
            "details": candidate.details,
            "num_tokens_a": len(encode(first)),
            "num_tokens_b": len(encode(second)),
        },
    )


def _summary(settings: PairsConfig, instructions: int, pairs: list[Comparison], rejected: Counter) -> dict:
    tokens = [(p.metadata["num_tokens_a"], p.metadata["num_tokens_b"]) for p in pairs]
    better = [a if p.label == "A" else b for p, (a, b) in zip(pairs, tokens, strict=True)]
    worse = [b if p.label == "A" else a for p, (a, b) in zip(pairs, tokens, strict=True)]
    of_one = [mode for mode in settings.modes if mode in KINDS]
    certain = sum(pair.subset in CERTAIN or pair.subset in VERIFIED for pair in pairs)
    return {
        "asked": instructions * len(of_one) + certain,
        "made": len(pairs),
        "made_by_mode": dict(Counter(pair.subset for pair in pairs)),
        "rejected": dict(sorted(rejected.items())),
        "mode": ", ".join(settings.modes),
        "chosen_tokens_mean": sum(better) / max(1, len(better)),
        "rejected_tokens_mean": sum(worse) / max(1, len(worse)),
    }
