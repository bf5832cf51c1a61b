"""The result file of an evaluation: JSON lines from which every number is computed again without a model.

The first line is the header: model, prompt, sampling, data and versions. Then comes one line for every
comparison, in input order: its label, subset and votes, the lengths and traits of its responses, and all
judgments with their raw completions. Texts of the comparison are not stored, but their hash is.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from ste_jax.errors import SteError
from ste_jax.judging.verdict import PARSER
from ste_jax.metrics.traits import Surface, from_stored, without_texts
from ste_jax.records import SURFACE_KEY, Comparison, Judgment
from ste_jax.storage.jsonl_output import iter_output, read_header

SCHEMA = "ste-evaluation"
# Format of files written before schema versions: the header, then items, judgments and sessions as lines.
_FORMAT_1 = "ste-result-1"
_JUDGMENTS, _TOO_LONG = "judgments", "too_long"


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of an evaluation.

    Attributes:
      path: the file.
      run: everything that the judgments depend on: model, prompt, sampling, data, versions.
      comparisons: the judged comparisons, without their texts.
      too_long: ids of the comparisons that do not fit the model; they were not judged.
      judgments: all judgments.
    """

    path: Path
    run: dict[str, Any]
    comparisons: list[Comparison]
    too_long: list[str]
    judgments: list[Judgment]


def to_record(comparison: Comparison, judgments: Sequence[Judgment] | None) -> dict[str, Any]:
    """Returns the line of a comparison as a JSON-ready dict; judgments are None if it is too long."""
    made = [judgment.to_json() for judgment in judgments or ()]
    return without_texts(comparison) | {_TOO_LONG: judgments is None, _JUDGMENTS: made}


def read_result(path: str | Path) -> Result:
    """Reads a result file.

    Raises:
      SteError: it is missing ("file_not_found"), damaged or no result ("result_invalid"), unfinished
        ("result_unfinished"), or written for another version of the verdict parser ("parser_differs").
    """
    path = Path(path)
    if not path.is_file():
        partial = path.parent / f".{path.name}.partial"
        if partial.exists():
            raise SteError(
                "result_unfinished", f"{path}: the evaluation is not finished; run the same command again"
            )
        raise SteError(
            "file_not_found", f"{path}: no such result file; `ste evaluate --out={path}` writes it"
        )
    run, rows = _rows_of_format_1(path) if _is_format_1(path) else _rows(path)
    if run.get("parser") != PARSER:
        raise SteError(
            "parser_differs",
            f"{path}: written for the parser {run.get('parser')}, this is {PARSER}; evaluate again",
        )
    comparisons, too_long, judgments = [], [], []
    for number, row in enumerate(rows, 2):
        try:
            made = [Judgment.from_json(value) for value in row.pop(_JUDGMENTS)]
            if row.pop(_TOO_LONG):
                too_long.append(row["id"])
                continue
            comparisons.append(from_stored(row))
        except (KeyError, TypeError, AttributeError) as error:
            raise SteError(
                "result_invalid", f"{path}, line {number}: not a line of a result file ({error})"
            ) from error
        judgments += made
    return Result(path, run, comparisons, too_long, judgments)


def _rows(path: Path) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    header = read_header(epath.Path(path))
    if header.get("schema") != SCHEMA:
        raise SteError(
            "result_invalid",
            f"{path}: holds {header.get('schema')}, not {SCHEMA}; give a file that `ste evaluate` wrote",
        )
    return header["settings"], iter_output(epath.Path(path))


def _is_format_1(path: Path) -> bool:
    with path.open("rb") as file:
        return f'"format":"{_FORMAT_1}"'.encode() in file.readline()


def _rows_of_format_1(path: Path) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Returns the run and the rows of a finished file of format 1."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
            kinds.setdefault(row.pop("kind"), []).append(row)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise SteError(
                "result_invalid", f"{path}, line {number}: not a line of a result file ({error})"
            ) from error
    header = kinds["header"][0]
    run = header["run"]
    run["data"]["source"] = header["data_source"]
    by_pair: dict[str, dict[str, dict[str, Any]]] = {}
    for row in kinds.get("judgment", []):
        # The last judgment wins: a request that a crash interrupted was made again.
        by_pair.setdefault(row["pair_id"], {})[row["id"]] = row
    items = kinds.get("item", [])
    if any(len(by_pair.get(item["id"], {})) != 2 * run["samples"] for item in items):
        raise SteError("result_unfinished", f"{path}: judgments are missing; evaluate again")
    return run, (_row_of_format_1(item, by_pair) for item in items + kinds.get("too_long", []))


def _row_of_format_1(item: dict[str, Any], by_pair: dict[str, dict[str, Any]]) -> dict[str, Any]:
    judgments = by_pair.get(item["id"])
    names = [field.name for field in dataclasses.fields(Surface) if field.name in item]
    surface = {name: item.pop(name) for name in names}
    return item | {
        SURFACE_KEY: surface,
        _TOO_LONG: judgments is None,
        _JUDGMENTS: list((judgments or {}).values()),
    }
