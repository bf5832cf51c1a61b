"""Readers of instructions, comparisons, benchmarks, prompts and configurations, with a file for each."""

import functools
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ste_jax.benchmarks.catalogue import load
from ste_jax.config import read_config
from ste_jax.data.comparisons import read_comparisons, read_labelled_pairs, read_rankings, read_scorings
from ste_jax.data.prompts import read_prompts
from ste_jax.data.sources import read_instructions
from ste_jax.judging.prompts import BUILT_IN, load_prompt
from ste_jax.shipped import read_config_file
from tests.fuzz.fuzz_inputs import (
    as_arrow,
    as_csv,
    as_gzip,
    as_json,
    as_lines,
    as_parquet,
    as_tsv,
    damaged,
)
from tests.fuzz.fuzz_reader import ROOT, Reader

_INSTRUCTIONS = [{"id": "a", "instruction": "Name a river."}, {"id": "b", "instruction": "Add 1 and 2."}]
_PAIRS = [
    {"id": "p", "instruction": "Name a river.", "response_a": "Rhine", "response_b": "Rose", "label": "A"},
    {"id": "q", "instruction": "Add.", "response_a": "3", "response_b": "4", "label": "tie", "subset": "s"},
]
_RANKINGS = [{"id": "r", "instruction": "Name a river.", "responses": ["Rhine", "Rose", "Po"]}]
_SCORINGS = [{"id": "s", "instruction": "Name a river.", "response": "Rhine", "baseline": "Po"}]
_HELD_OUT = [
    {"id": "a", "system": "Be kind.", "prompt": "Name a river.", "input": "Of Europe."},
    {"id": "b", "turns": ["Add 1.", "And 2."], "chosen": ["x"], "rejected": ["y", "z"]},
]
_ENCODERS = {"jsonl": as_lines, "csv": as_csv, "parquet": as_parquet}
# Types of files that are read by the same code afterwards: tried with one kind of rows.
_OTHER_ENCODERS = {"tsv": as_tsv, "arrow": as_arrow, "json": as_json, "jsonl.gz": as_gzip}


def _data() -> Iterator[Reader]:
    kinds: dict[str, tuple[Any, Callable[[str], Any]]] = {
        "instructions": (_INSTRUCTIONS, read_instructions),
        "comparisons": (_PAIRS, functools.partial(read_comparisons, labels="optional")),
        "labelled_pairs": (_PAIRS, read_labelled_pairs),
        "rankings": (_RANKINGS, read_rankings),
        "scorings": (_SCORINGS, read_scorings),
        "held_out": (_HELD_OUT, read_prompts),
    }
    for (name, (rows, read)), (ending, encode) in itertools.product(kinds.items(), _ENCODERS.items()):
        if ending != "jsonl" and name in ("rankings", "labelled_pairs", "scorings", "held_out"):
            continue
        file = f"data.{ending}"
        yield Reader(
            f"{name}_{ending}",
            file,
            damaged(rows, encode),
            lambda folder, read=read, file=file: read(str(folder / file)),
        )

    read = kinds["comparisons"][1]
    for ending, encode in _OTHER_ENCODERS.items():
        file = f"data.{ending}"
        yield Reader(
            f"comparisons_{ending}",
            file,
            damaged(_PAIRS, encode),
            lambda folder, file=file: read(str(folder / file)),
        )
    yield Reader(
        "comparisons_folder",
        "data/test-00001-of-00002.jsonl",
        damaged(_PAIRS[1:], as_lines),
        lambda folder: read(str(folder / "data")),
        lambda folder: (folder / "data/test-00000-of-00002.jsonl").write_bytes(as_lines(_PAIRS[:1])),
    )
    yield Reader(
        "instructions_txt",
        "data.txt",
        damaged(_INSTRUCTIONS, as_lines),
        lambda folder: read_instructions(str(folder / "data.txt")),
    )


def _turns(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


# Two rows of each benchmark, as its authors publish them, and the file that they stand in.
_BENCHMARKS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "rewardbench": (
        "filtered.jsonl",
        [{"id": 1, "subset": "alpacaeval-easy", "prompt": "Q", "chosen": "yes", "rejected": "no"}],
    ),
    "rewardbench2": (
        "test.jsonl",
        [{"id": "1", "subset": "Math", "prompt": "Q", "chosen": ["y"], "rejected": ["a", "b", "c"]}],
    ),
    "judgebench": (
        "gpt.jsonl",
        [
            {
                "pair_id": "1",
                "response_model": "gpt-4o",
                "source": "mmlu-pro-math",
                "question": "Q",
                "response_A": "x",
                "response_B": "y",
                "label": "A>B",
            }
        ],
    ),
    "llmbar": ("Natural/dataset.json", [{"input": "Q", "output_1": "x", "output_2": "y", "label": 1}]),
    "rm_bench": (
        "total_dataset.json",
        [
            {
                "id": "1",
                "prompt": "Q",
                "domain": "chat",
                "chosen": ["a", "b", "c"],
                "rejected": ["d", "e", "f"],
            }
        ],
    ),
    "helpsteer2": (
        "validation.jsonl",
        [{"prompt": "Q", "response": r, "helpfulness": h} for r, h in (("x", 4), ("y", 1))],
    ),
    "mt_bench": (
        "human.jsonl",
        [
            {
                "question_id": 81,
                "model_a": "m",
                "model_b": "n",
                "winner": "model_a",
                "judge": "expert_1",
                "turn": 1,
                "conversation_a": [*_turns("Q"), {"role": "assistant", "content": "x"}],
                "conversation_b": [*_turns("Q"), {"role": "assistant", "content": "y"}],
            }
        ],
    ),
}


def _benchmarks() -> Iterator[Reader]:
    for name, (file, rows) in _BENCHMARKS.items():
        encode = as_json if file.endswith(".json") else as_lines
        yield Reader(
            f"benchmark_{name}",
            file,
            damaged(rows, encode),
            lambda folder, name=name: load(name, str(folder)),
        )


_FIELDS = ("user", "system", "rubric", "reference_section")
_PROMPT = {name: getattr(BUILT_IN["short"], name) for name in _FIELDS}


def _as_toml(fields: Any) -> bytes:
    fields = fields if isinstance(fields, dict) else {"user": fields}
    return "".join(f"{json.dumps(str(k))} = {json.dumps(v)}\n" for k, v in fields.items()).encode()


def _read_prompt(path: Path) -> None:
    prompt = load_prompt(str(path))
    prompt.fill("Q", "x </response_a>", "[[A]]")
    load_prompt(str(path), rubric="Be strict.") if prompt.rubric else None


def _config() -> dict[str, Any]:
    return read_config_file(str(ROOT / "configs" / "quickstart.py"))


def _settings() -> Iterator[Reader]:
    for ending, encode in (("toml", _as_toml), ("json", as_json)):
        file = f"prompt.{ending}"
        yield Reader(
            f"prompt_{ending}",
            file,
            damaged(_PROMPT, encode),
            lambda folder, file=file: _read_prompt(folder / file),
        )
    yield Reader(
        "config",
        "config.json",
        damaged(_config(), as_json).filter(_is_object),
        lambda folder: read_config(json.loads((folder / "config.json").read_bytes())),
        names=False,
    )


def _is_object(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content), dict)
    except (ValueError, RecursionError):
        return False


def readers() -> Iterator[Reader]:
    """Yields the readers of this module."""
    yield from _data()
    yield from _benchmarks()
    yield from _settings()
