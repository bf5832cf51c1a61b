"""Modes `modified` and `modified_one_call`: y_l is a good answer to a modified instruction x'.

It should thus be the worse answer to x. The first mode makes two calls, x' and an ordinary answer to it; the
second makes one call for both, as in the paper.
"""

from ste_jax.pairs.construction import (
    check_modified,
    modify_and_answer_prompt,
    modify_prompt,
    parse_modified,
    parse_modified_and_answer,
)
from ste_jax.pairs.rejected import Candidates, PairInputs, RejectedCandidate
from ste_jax.text.chat import Message


def modified(inputs: PairInputs) -> Candidates:
    """Returns answers to modified instructions; an x' that fails the checks is not answered."""
    prompts = {i.id: modify_prompt(i.text) for i in inputs.instructions}
    completions = inputs.sampler.sample("modified", prompts, max_new_tokens=inputs.max_modified_tokens)
    candidates: Candidates = {}
    questions: dict[str, list[Message]] = {}
    for instruction in (i for i in inputs.instructions if i.id in completions):
        completion = completions[instruction.id]
        # A completion that was cut off by the budget is not a whole instruction.
        new = parse_modified(completion.text) if completion.finish == "stop" else None
        if new is None:
            candidates[instruction.id] = None
        elif check_modified(instruction.text, new, inputs.checks):
            candidates[instruction.id] = RejectedCandidate(new, "", [])
        else:
            questions[instruction.id] = [Message("user", new)]
    answers = inputs.sampler.sample("modified_answers", questions, max_new_tokens=inputs.max_response_tokens)
    for id_, answer in answers.items():
        candidates[id_] = RejectedCandidate(questions[id_][0].content, answer.text, answer.tokens)
    return candidates


def modified_one_call(inputs: PairInputs) -> Candidates:
    """Returns answers to modified instructions, both from the same completion."""
    prompts = {i.id: modify_and_answer_prompt(i.text, inputs.answers[i.id].text) for i in inputs.instructions}
    completions = inputs.sampler.sample(
        "modified_one_call",
        prompts,
        max_new_tokens=inputs.max_modified_tokens + inputs.max_response_tokens,
    )
    candidates: Candidates = {}
    for id_, completion in completions.items():
        # A completion that was cut off by the budget is not a whole answer.
        parsed = parse_modified_and_answer(completion.text) if completion.finish == "stop" else None
        candidates[id_] = (
            RejectedCandidate(*parsed, inputs.tokenizer.encode_plain(parsed[1])) if parsed else None
        )
    return candidates
