"""Result files with planted judgments: made through the same writer, without a model."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ste_jax.evaluation.probes.probe import Probe
from ste_jax.evaluation.result import SCHEMA, Result, read_result, to_record
from ste_jax.judging.verdict import PARSER
from ste_jax.records import ORDERS, Comparison, Judgment, Order
from ste_jax.storage.jsonl_output import JsonlOutput

Texts = Callable[[Comparison, Order, int], str]


def run_of(samples: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "model": {"name": "planted", "hash": "m", "parent": None, "parameters": 1},
        "tokenizer_hash": "t",
        "template_hash": "c",
        "prompt_hash": "p",
        "parser": PARSER,
        "benchmark": None,
        "data": {"source": "planted.jsonl", "hash": "d", "notes": {}, "limit": None},
        "samples": samples,
        "sampling": {"temperature": 0.0, "top_p": 1.0},
        "max_new_tokens": 64,
        "force_verdict": False,
        "seed": 0,
        **changes,
    }


def item(i: int, label: str, **fields: Any) -> Comparison:
    texts = {"instruction": f"question {i}", "response_a": f"a {i}", "response_b": f"b {i}"}
    values: dict[str, Any] = {"id": f"i{i:04d}", "prompt_id": f"p{i}", "label": label, **texts, **fields}
    return Comparison(**values)


def judgment(one: Comparison, order: Order, sample: int, text: str, finish: str = "stop") -> Judgment:
    # The recorded verdict is left wrong on purpose: numbers must come from the text.
    return Judgment(
        id=f"{one.id}/{order}/{sample}",
        pair_id=one.id,
        order=order,
        sample=sample,
        text=text,
        tokens=[],
        verdict=None,
        status="missing",
        forced=False,
        correct=False,
        finish="length" if finish == "length" else "stop",
    )


def result(
    path: Path,
    items: Sequence[Comparison],
    texts: Texts,
    samples: int = 1,
    finish: str = "stop",
    **changes: Any,
) -> Result:
    """Writes and reads a result file whose judgment texts are `texts(item, order, sample)`."""
    with JsonlOutput(path, run_of(samples, **changes), schema=SCHEMA) as output:
        for one in items:
            made = [
                judgment(one, order, i, texts(one, order, i), finish)
                for order in ORDERS
                for i in range(samples)
            ]
            output.add(one.id, [to_record(one, made)])
        output.finish([one.id for one in items])
    return read_result(path)


# The log-odds that the first of two responses to an instruction is better.
LogOdds = Callable[[str, str, str], float]


def probed_result(
    path: Path, items: Sequence[Comparison], probes: Sequence[Probe], log_odds: LogOdds, **changes: Any
) -> Result:
    """Writes and reads a result file of a judge that is a function of the texts that it is shown.

    A pointwise judge is given one response and an empty text.
    """
    pointwise = "{response}" in changes.get("prompt", {}).get("user", "")
    by_id = {probe.comparison.id: probe for probe in probes}
    comparisons = [*items, *(probe.comparison for probe in probes)]
    with JsonlOutput(path, run_of(**changes), schema=SCHEMA) as output:
        for one in comparisons:
            made = [decision(one, order, log_odds, pointwise) for order in ORDERS]
            output.add(one.id, [to_record(one, made, by_id.get(one.id))])
        output.finish([one.id for one in comparisons])
    return read_result(path)


def decision(one: Comparison, order: Order, log_odds: LogOdds, pointwise: bool = False) -> Judgment:
    first, second = one.shown(order)
    value = log_odds(one.instruction, first, "" if pointwise else second)
    verdict = "A" if value > 0 else "B"
    text = says(verdict)
    return dataclasses.replace(judgment(one, order, 0, text), verdict=verdict, status="ok", log_odds=value)


def says(verdict: str) -> str:
    return f"Because. Verdict: [[{verdict}]]"


def right(one: Comparison, order: Order) -> str:
    """Returns the text of a right judgment; of a tie, one that prefers response A in both orders."""
    return says(one.correct_verdict(order) or ("A" if order == "as_given" else "B"))


def wrong(one: Comparison, order: Order) -> str:
    return says("B" if one.correct_verdict(order) == "A" else "A")
