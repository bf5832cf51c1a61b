"""How worse responses y_l are made: one function a mode of `pairs.mode`.

In the "modified" modes y_l answers a modified instruction x' and should thus be the worse answer to x; in the
mode "worse" the model is asked for a worse answer outright; in "hotter" for one more answer, at a higher
temperature. Three modes need no further call: y_l is the answer to another instruction of the run, "nearest"
to x or "random", or the better response y_w "shortened".
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from ste_jax.config import PairMode, PairsConfig
from ste_jax.decode.protocol import Sampling
from ste_jax.pairs.construction import (
    check_modified,
    modify_and_answer_prompt,
    modify_prompt,
    parse_modified,
    parse_modified_and_answer,
    worse_answer_prompt,
)
from ste_jax.pairs.similarity import nearest
from ste_jax.randomness import generator
from ste_jax.records import Generation, Instruction
from ste_jax.stages.context import Context
from ste_jax.stages.generation import generate_texts
from ste_jax.text.chat import Message, to_messages


@dataclasses.dataclass(frozen=True)
class Worse:
    """A candidate for y_l: the modified instruction (None: y_l answers x itself), the text and its ids."""

    modified: str | None
    text: str
    tokens: list[int]


class Asker:
    """Asks the seed model, one record set a kind of question.

    Attributes:
      asked: the names of the record sets, so far.
    """

    def __init__(self, context: Context, fingerprint: dict):
        self._context, self._fingerprint = context, fingerprint
        self.seed = context.config.seed
        self.tokenizer = context.seed_model.tokenizer
        self.asked: list[str] = []

    def ask(
        self,
        name: str,
        conversations: Mapping[str, list[Message]],
        most: int,
        sampling: Sampling | None = None,
    ) -> dict[str, Generation]:
        """Returns the answers by id, `most` tokens each; drawn as `pairs.sampling` says, or by `sampling`."""
        self.asked.append(name)
        answers, _ = generate_texts(
            self._context,
            self._context.seed_model,
            self._context.workdir / "pairs" / name,
            conversations,
            sampling=sampling or self._context.config.pairs.sampling,
            max_new_tokens=most,
            fingerprint=self._fingerprint,
        )
        return answers


def _modified(
    asker: Asker, instructions: list[Instruction], settings: PairsConfig, _
) -> dict[str, Worse | None]:
    """Two calls: x', then an ordinary answer to it. An x' that the checks refuse is not answered."""
    asked = {i.id: to_messages(modify_prompt(i.text)) for i in instructions}
    found = asker.ask("modified", asked, settings.max_modified_tokens)
    candidates: dict[str, Worse | None] = {}
    questions = {}
    for instruction in (i for i in instructions if i.id in found):
        completion = found[instruction.id]
        # What the budget cut short is not a whole instruction.
        modified = parse_modified(completion.text) if completion.finish == "stop" else None
        if modified is None:
            candidates[instruction.id] = None
        elif check_modified(instruction.text, modified, settings.checks):
            candidates[instruction.id] = Worse(modified, "", [])
        else:
            questions[instruction.id] = [Message("user", modified)]
    answers = asker.ask("modified_answers", questions, settings.max_response_tokens)
    for id_, answer in answers.items():
        candidates[id_] = Worse(questions[id_][0].content, answer.text, answer.tokens)
    return candidates


def _modified_one_call(
    asker: Asker, instructions: list[Instruction], settings: PairsConfig, chosen: dict[str, Generation]
) -> dict[str, Worse | None]:
    asked = {i.id: to_messages(modify_and_answer_prompt(i.text, chosen[i.id].text)) for i in instructions}
    # Not "modified": both modes may be asked for, and a record set answers one kind of question.
    most = settings.max_modified_tokens + settings.max_response_tokens
    found = asker.ask("modified_one_call", asked, most)
    # What the budget cut short is not a whole answer.
    read = {
        id_: parse_modified_and_answer(g.text) if g.finish == "stop" else None for id_, g in found.items()
    }
    return {
        id_: Worse(*both, asker.tokenizer.encode_plain(both[1])) if both else None
        for id_, both in read.items()
    }


def _worse(
    asker: Asker, instructions: list[Instruction], settings: PairsConfig, chosen: dict[str, Generation]
) -> dict[str, Worse | None]:
    asked = {i.id: to_messages(worse_answer_prompt(i.text, chosen[i.id].text)) for i in instructions}
    found = asker.ask("worse", asked, settings.max_response_tokens)
    return {id_: Worse(None, g.text, g.tokens) for id_, g in found.items()}


def _hotter(
    asker: Asker, instructions: list[Instruction], settings: PairsConfig, chosen: dict[str, Generation]
) -> dict[str, Worse | None]:
    asked = {i.id: [Message("user", i.text)] for i in instructions}
    found = asker.ask("hotter", asked, settings.max_response_tokens, settings.hotter)
    return {id_: Worse(None, g.text, g.tokens) for id_, g in found.items()}


def _nearest(
    asker: Asker, instructions: list[Instruction], settings: PairsConfig, chosen: dict[str, Generation]
) -> dict[str, Worse | None]:
    return _answers_of_others(instructions, nearest([i.text for i in instructions]), chosen)


def _random(
    asker: Asker, instructions: list[Instruction], settings: PairsConfig, chosen: dict[str, Generation]
) -> dict[str, Worse | None]:
    if len(instructions) < 2:
        return {}
    # From 1: never itself.
    steps = [generator(asker.seed, "other", i.id).integers(1, len(instructions)) for i in instructions]
    others = [(at + int(step)) % len(instructions) for at, step in enumerate(steps)]
    return _answers_of_others(instructions, others, chosen)


def _answers_of_others(
    instructions: list[Instruction], others: Sequence[int | None], chosen: dict[str, Generation]
) -> dict[str, Worse | None]:
    """Takes the answer to instruction `others[i]` for the worse one to instruction i."""
    answers = [Worse(i.text, chosen[i.id].text, chosen[i.id].tokens) for i in instructions]
    return {
        one.id: answers[other] for one, other in zip(instructions, others, strict=True) if other is not None
    }


def _shortened(
    asker: Asker, instructions: list[Instruction], settings: PairsConfig, chosen: dict[str, Generation]
) -> dict[str, Worse | None]:
    """Leaves the first 20 to 60% of the tokens of y_w."""
    shortened: dict[str, Worse | None] = {}
    for id_, answer in chosen.items():
        share = generator(asker.seed, "shorten", id_).uniform(0.2, 0.6)
        tokens = answer.tokens[: int(share * len(answer.tokens))]
        shortened[id_] = Worse(None, asker.tokenizer.decode(tokens), tokens)
    return shortened


# From the asker, the instructions that have an answer, the settings and y_w by id to candidates by id: None
# where the completion cannot be read, and no entry where a question was too long or no other text is like x.
Mode = Callable[[Asker, list[Instruction], PairsConfig, dict[str, Generation]], dict[str, Worse | None]]
MODES: dict[PairMode, Mode] = {
    "modified": _modified,
    "modified_one_call": _modified_one_call,
    "worse": _worse,
    "hotter": _hotter,
    "nearest": _nearest,
    "random": _random,
    "shortened": _shortened,
}
