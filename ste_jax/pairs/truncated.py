"""Mode `truncated`: y_l is the beginning of y_w."""

from ste_jax.pairs.rejected import Candidates, PairInputs, RejectedCandidate
from ste_jax.randomness import generator


def truncated(inputs: PairInputs) -> Candidates:
    """Returns the first 20 to 60% of the tokens of y_w; the share is drawn for each instruction."""
    candidates: Candidates = {}
    for id_, answer in inputs.answers.items():
        share = generator(inputs.seed, "shorten", id_).uniform(0.2, 0.6)
        tokens = answer.tokens[: int(share * len(answer.tokens))]
        candidates[id_] = RejectedCandidate(None, inputs.tokenizer.decode(tokens), tokens)
    return candidates
