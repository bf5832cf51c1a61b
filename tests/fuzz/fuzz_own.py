"""Readers of what this program writes: results, record sets, outputs and metrics."""

import functools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from etils import epath

from ste_jax.evaluation.numbers import numbers
from ste_jax.evaluation.result import read_result, to_record
from ste_jax.judging.verdict import PARSER
from ste_jax.metrics.policy import WRONG
from ste_jax.records import Comparison, Generation, Judgment
from ste_jax.storage.jsonl_output import JsonlOutput
from ste_jax.storage.readers import read_records
from ste_jax.storage.record_set import RecordSet, read_work
from ste_jax.training.metrics import read_metrics
from tests.fuzz.fuzz_inputs import as_json, as_lines, changed_bytes, damaged
from tests.fuzz.fuzz_reader import ROOT, Reader

_FIXTURES = ROOT / "tests" / "evaluation" / "fixtures"


def _judgment(order: str) -> dict[str, Any]:
    return {
        "id": f"p/{order}/0",
        "pair_id": "p",
        "order": order,
        "sample": 0,
        "text": "[[A]]",
        "tokens": [1],
        "verdict": "A",
        "status": "ok",
        "forced": False,
        "correct": order == "as_given",
        "finish": "stop",
        "log_odds": 0.5,
    }


def _result_rows() -> list[dict[str, Any]]:
    comparison = Comparison(id="p", instruction="Q", response_a="x", response_b="y", label="A", subset="s")
    made = [Judgment(**_judgment(order)) for order in ("as_given", "swapped")]
    settings = {
        "model": {"name": "m", "hash": "0", "parent": None, "parameters": 1},
        **dict.fromkeys(("tokenizer_hash", "template_hash", "prompt_hash"), "0"),
        "parser": PARSER,
        "benchmark": None,
        "data": {"source": "d.jsonl", "hash": "0", "notes": {}, "limit": None},
        "samples": 1,
        "sampling": {"temperature": 0.0, "top_p": 1.0},
        "max_new_tokens": 64,
        "force_verdict": False,
        "seed": 0,
    }
    header = {"schema": "ste-evaluation", "schema_version": 2, "settings": settings, "records": 1}
    return [header, to_record(comparison, made)]


def _journal_of(folder: Path) -> RecordSet[Generation]:
    return RecordSet(epath.Path(folder / "set"), Generation, {"seed": 0})


def start_set(folder: Path) -> None:
    """Starts a record set of two requests."""
    records = _journal_of(folder)
    for id_ in "ab":
        made = Generation(id=id_, text="t", tokens=[1], finish="stop")
        records.add(id_, [made], prompt_tokens=3, generated_tokens=1)
    records.flush()


def finish_set(folder: Path) -> None:
    """Makes a finished record set."""
    start_set(folder)
    _journal_of(folder).finish("ab", {"n": 2})


@functools.cache
def _written(make: Callable[[Path], None], pattern: str) -> bytes:
    """Returns the content of the file that `make` writes, by the pattern of its name."""
    with tempfile.TemporaryDirectory() as name:
        make(Path(name))
        return next(Path(name).rglob(pattern)).read_bytes()


def read_set(folder: Path) -> None:
    """Reads the records of a finished set."""
    read_records(epath.Path(folder / "set"), Generation)


def continue_set(folder: Path) -> None:
    """Makes what is left of a record set, and reads it."""
    records = _journal_of(folder)
    for id_ in "ab":
        if not records.is_done(id_):
            records.add(id_, [Generation(id=id_, text="t", tokens=[1], finish="stop")])
    records.finish("ab", {})
    read_work(epath.Path(folder / "set"))
    read_set(folder)


def _output(folder: Path) -> None:
    with JsonlOutput(folder / "out.jsonl", {"model": "m"}, schema="comparisons") as output:
        if not output.finished:
            output.add("a", [{"id": "a"}])
            output.finish("a")
        list(output)


def _start_output(folder: Path) -> None:
    output = JsonlOutput(folder / "out.jsonl", {"model": "m"}, schema="comparisons")
    output.add("b", [{"id": "b"}])
    output.close()


def readers() -> Iterator[Reader]:
    """Yields the readers of this module."""
    yield Reader("result", "r.jsonl", damaged(_result_rows(), as_lines), lambda f: _numbers(f / "r.jsonl"))
    yield Reader(
        "result_format_1",
        "r.jsonl",
        damaged([json.loads(line) for line in _format_1().splitlines()], as_compact_lines),
        lambda f: _numbers(f / "r.jsonl"),
    )
    for file, prepare, read in (
        ("set/STARTED.json", start_set, continue_set),
        ("set/PROGRESS.json", start_set, continue_set),
        ("set/SUCCESS.json", finish_set, read_set),
        ("out.jsonl", _output, _output),
        (".out.jsonl.partial/STARTED.json", _start_output, _output),
    ):
        content = _written(prepare, Path(file).name)
        document = json.loads(content.splitlines()[0] if file.endswith(".jsonl") else content)
        documents = damaged(document, as_json) | changed_bytes(content)
        yield Reader(f"own_{Path(file).name}_{len(file)}", file, documents, read, prepare)
    yield Reader(
        "metrics",
        "metrics.jsonl",
        damaged([{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4}], as_lines),
        read_metrics,
    )
    part = _written(finish_set, "part-*.jsonl")
    yield Reader("own_part", "set/part-00000-of-00001.jsonl", changed_bytes(part), read_set, finish_set)
    journal = _written(start_set, "*.journal")
    yield Reader("own_journal", "set/journal/0.journal", changed_bytes(journal), continue_set, _empty_set)


def _empty_set(folder: Path) -> None:
    _journal_of(folder)
    (folder / "set" / "journal").mkdir(exist_ok=True)


def _format_1() -> bytes:
    return (_FIXTURES / "result_format_1.jsonl").read_bytes()


def as_compact_lines(rows: Any) -> bytes:
    """Returns lines of JSON without spaces, by which files of format 1 are recognised."""
    rows = rows if isinstance(rows, list) else [rows]
    return b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)


def _numbers(path: Path) -> None:
    """Reads a result and computes its numbers, as `ste stats` does."""
    numbers(read_result(path), WRONG)
