"""What a judge knows beneath its verdicts: the log-odds of A against B, right where the verdict is forced.

  python scripts/verdict_margins.py --models=SEED,RUN/iteration_1/model --pairs=pairs.jsonl [--limit=150]

A verdict is the sign of the log-odds, so a judge that leans to A says A in both orders and its verdicts show
nothing of what it saw. The lean is the same in both orders, and falls out of their difference: `pooled` takes
the response that the log-odds of both orders together prefer. Prints a row a model, the tests against the
first one. Differences in accuracy by a sign-flip test over prompts, intervals by a bootstrap over prompts.
"""

import argparse
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from ste_jax.benchmarks.benchmark import read_pairs_file
from ste_jax.checkpoint.source import ModelSource, open_model
from ste_jax.judging.judge import Judge, JudgeSettings
from ste_jax.judging.prompts import load_prompt
from ste_jax.metrics.stats import bootstrap_interval, difference_interval, sign_flip_test
from ste_jax.models.llama import Llama, hidden_states
from ste_jax.records import ORDERS, Comparison
from ste_jax.report.formats import interval, p_value, percent, signed
from ste_jax.sharding import TRAIN, make_mesh, put_on_mesh

Array = jax.Array
# Positions of a row end at a multiple of this, so that few programs are compiled.
STEP = 64
TOKENS = 1024


@partial(jax.jit, static_argnames="choices")
def log_odds(model: Llama, tokens: Array, length: Array, choices: tuple[int, ...]) -> Array:
    """Returns logit(A) - logit(B) after the first length[b] of the tokens int32 [b, T], float32 [b];
    `choices` are the ids of A and B.
    """
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32)[None], tokens.shape)
    segments = (positions < length[:, None]).astype(jnp.int32)
    hidden = hidden_states(model, tokens, positions, segments)
    last = jnp.take_along_axis(hidden, length[:, None, None] - 1, axis=1)
    logits = model.unembed_hidden(last)[:, 0]
    return logits[:, choices[0]] - logits[:, choices[1]]


def margins(source: ModelSource, items: Sequence[Comparison], prompt: str) -> np.ndarray:
    """Returns the log-odds for the first response shown, [pairs, orders]."""
    judge = Judge(JudgeSettings(load_prompt(prompt), 0, True, 0), source.tokenizer)
    suffix = judge.forced_suffix
    assert suffix, "verdicts are forced"
    rows = [[*judge.prompt_ids(item, order), *suffix.prefix_ids] for item in items for order in ORDERS]
    found, mesh = np.zeros(len(rows)), make_mesh((1, 1, 1))
    by_length = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    with jax.set_mesh(mesh):
        model = source.load(TRAIN, mesh, param_dtype="float32", dtype="float32")
        while by_length:
            longest = -(-len(rows[by_length[-1]]) // STEP) * STEP
            size = max(1, TOKENS // longest)
            some, by_length = by_length[-size:], by_length[:-size]
            tokens, length = np.zeros((size, longest), np.int32), np.ones(size, np.int32)
            for at, i in enumerate(some):
                tokens[at, : len(rows[i])], length[at] = rows[i], len(rows[i])
            arrays = (put_on_mesh(tokens, mesh, jax.P(None, None)), put_on_mesh(length, mesh, jax.P(None)))
            found[some] = np.asarray(log_odds(model, *arrays, choices=suffix.allowed_ids))[: len(some)]
    return found.reshape(len(items), len(ORDERS))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", required=True, help="by commas")
    parser.add_argument("--pairs", required=True, help="a file of labelled pairs")
    parser.add_argument("--limit", type=int, default=0, help="pairs, drawn at random by prompt; 0: all")
    parser.add_argument("--prompt", default="verdict")
    parser.add_argument("--seed", type=int, default=0, help="of --limit, the intervals and the tests")
    a = parser.parse_args()

    items = [i for i in read_pairs_file(a.pairs).limited(a.limit, a.seed) if i.label != "tie"]
    clusters = [item.prompt_id for item in items]
    # As given, the first response is A; swapped, it is B: +1 where the log-odds should be positive.
    signs = np.array([[1.0, -1.0] if item.label == "A" else [-1.0, 1.0] for item in items])
    columns = ("model", "pairs", "accuracy", "says A", "median log-odds", "spread", "pooled", "change", "p")
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns), flush=True)
    first = None
    for name in a.models.split(","):
        odds = margins(open_model(name), items, a.prompt)
        pooled = ((odds * signs).sum(axis=1) > 0).astype(float)
        first = pooled if first is None else first
        change = pooled - first
        row = [
            *(name, len(items), percent(float((odds * signs > 0).mean())), percent(float((odds > 0).mean()))),
            *(f"{np.median(odds):.2f}", f"{(odds[:, 0] - odds[:, 1]).std() / 2:.2f}"),
            f"{percent(float(pooled.mean()))} {interval(bootstrap_interval(pooled, clusters, seed=a.seed))}",
            f"{signed(100 * change.mean())} {interval(difference_interval(change, clusters, seed=a.seed))}",
            p_value(sign_flip_test(change, clusters, seed=a.seed)),
        ]
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
