"""Mode `high_temperature`: y_l is one more answer to x, sampled at a higher temperature than y_w."""

from ste_jax.pairs.rejected import Candidates, PairInputs, RejectedCandidate
from ste_jax.records import Generation
from ste_jax.text.chat import Message


def high_temperature(inputs: PairInputs) -> Candidates:
    """Returns answers sampled with the settings `high_temperature`."""
    answers = second_answers(inputs)
    return {id_: RejectedCandidate(None, g.text, g.tokens) for id_, g in answers.items()}


def second_answers(inputs: PairInputs) -> dict[str, Generation]:
    """Returns one more answer to each instruction, sampled once for all kinds that need them."""
    return inputs.sampler.sample(
        "high_temperature",
        {i.id: [Message("user", i.whole)] for i in inputs.instructions},
        max_new_tokens=inputs.max_response_tokens,
        sampling=inputs.high_temperature,
    )
