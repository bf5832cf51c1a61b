"""Mode `degraded`: y_l is a deliberately worse answer to x itself, the ablation of the paper."""

from ste_jax.pairs.construction import degraded_answer_prompt
from ste_jax.pairs.rejected import Candidates, PairInputs, RejectedCandidate


def degraded(inputs: PairInputs) -> Candidates:
    """Returns answers that the model was instructed to make worse than y_w."""
    prompts = {i.id: degraded_answer_prompt(i.whole, inputs.answers[i.id].text) for i in inputs.instructions}
    answers = inputs.sampler.sample("degraded", prompts, max_new_tokens=inputs.max_response_tokens)
    return {id_: RejectedCandidate(None, g.text, g.tokens) for id_, g in answers.items()}
