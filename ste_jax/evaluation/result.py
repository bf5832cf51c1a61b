"""The result file of an evaluation: JSON lines from which every number is computed again without a model.

The first line is the header: model, prompt, sampling, data and versions. Then comes one line for every
comparison, in input order: its label, subset and votes, the lengths and traits of its responses, and all
judgments with their raw completions. Texts of the comparison are not stored, but their hash is. The lines of
probes follow; they name the pair that each was made from.
"""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from ste_jax.benchmarks.names import BENCHMARKS
from ste_jax.errors import SteError
from ste_jax.evaluation.probes.probe import PROBE_KINDS, Probe
from ste_jax.judging.verdict import PARSER
from ste_jax.metrics.traits import Surface, from_stored, without_texts
from ste_jax.records import ORDERS, SURFACE_KEY, Comparison, Judgment
from ste_jax.storage.jsonl_output import iter_output, read_header
from ste_jax.typed_json import Check, accepts, check_types

SCHEMA = "ste-evaluation"
# Format of files written before schema versions: the header, then items, judgments and sessions as lines.
_FORMAT_1 = "ste-result-1"
_NAMES_OF_FORMAT_1 = {"judgment": ("pair_id", "id"), "item": ("id",), "too_long": ("id",)}
_JUDGMENTS, _TOO_LONG, _PROBE = "judgments", "too_long", "probe"
# The fields of the settings that numbers, or comparisons of results, are made from.
_RUN: dict[str, Check] = {
    **{name: accepts(str) for name in ("tokenizer_hash", "template_hash", "prompt_hash", "parser")},
    **{name: accepts(int) for name in ("samples", "seed")},
    **{name: accepts(Any) for name in ("sampling", "max_new_tokens", "force_verdict", "model", "data")},
    "benchmark": accepts(str | None),
}
_MODEL: dict[str, Check] = {"name": accepts(str), "hash": accepts(str), "parent": accepts(str | None)}
_DATA: dict[str, Check] = {
    "source": accepts(str),
    "hash": accepts(str),
    "limit": accepts(int | None),
    "notes": accepts(dict[str, Any]),
}


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of an evaluation.

    Attributes:
      path: the file.
      run: everything that the judgments depend on: model, prompt, sampling, data, versions.
      comparisons: the judged comparisons, without their texts.
      too_long: ids of the comparisons that do not fit the model; they were not judged.
      judgments: all judgments of the comparisons.
      probes: the probes, without their texts.
      probe_judgments: all judgments of the probes; those that do not fit the model have none.
    """

    path: Path
    run: dict[str, Any]
    comparisons: list[Comparison]
    too_long: list[str]
    judgments: list[Judgment]
    probes: list[Probe] = dataclasses.field(default_factory=list)
    probe_judgments: list[Judgment] = dataclasses.field(default_factory=list)

    @property
    def is_pointwise(self) -> bool:
        """True if the judge saw one response at a time."""
        prompt = self.run.get("prompt")
        return isinstance(prompt, dict) and "{response}" in str(prompt.get("user"))


def to_record(
    comparison: Comparison, judgments: Sequence[Judgment] | None, probe: Probe | None = None
) -> dict[str, Any]:
    """Returns the line of a comparison as a JSON-ready dict.

    Args:
      comparison: the comparison.
      judgments: its judgments, None if it is too long.
      probe: the probe whose comparison it is, if it is one.
    """
    made = [judgment.to_json() for judgment in judgments or ()]
    origin = {_PROBE: {"kind": probe.kind, "pair": probe.pair}} if probe else {}
    return without_texts(comparison) | origin | {_TOO_LONG: judgments is None, _JUDGMENTS: made}


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
    try:
        run, rows = _rows_of_format_1(path) if _is_format_1(path) else _rows(path)
        check_run(run, path)
        result = Result(path, run, [], [], [])
        _read_into(result, rows)
    except RecursionError as error:
        raise SteError("result_invalid", f"{path}: nested too deeply for a result file") from error
    return result


def check_run(run: Any, path: Path) -> None:
    """Raises SteError if the header of a result has not the fields that the numbers are computed from."""
    try:
        _check_fields(run, _RUN, "settings")
        _check_fields(run["model"], _MODEL, "settings.model")
        _check_fields(run["data"], _DATA, "settings.data")
    except ValueError as error:
        raise SteError("result_invalid", f"{path}, line 1: {error}; evaluate again") from error
    if run["parser"] != PARSER:
        raise SteError(
            "parser_differs",
            f"{path}: written for the parser {run['parser']}, this is {PARSER}; evaluate again",
        )
    if run["samples"] < 1 or run["seed"] < 0 or run["benchmark"] not in (None, *BENCHMARKS):
        raise SteError(
            "result_invalid",
            f"{path}, line 1: samples {run['samples']}, seed {run['seed']} or benchmark {run['benchmark']!r} "
            "is out of range; evaluate again",
        )


def _check_fields(value: Any, checks: dict[str, Check], name: str) -> None:
    if not isinstance(value, dict) or (missing := checks.keys() - value.keys()):
        what = f"lacks {', '.join(sorted(missing))}" if isinstance(value, dict) else "is no JSON object"
        raise ValueError(f"{name} {what}")
    try:
        check_types(value, checks)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _read_into(result: Result, rows: Iterator[dict[str, Any]]) -> None:
    """Adds what the lines of a file hold to a result."""
    seen: set[str] = set()
    samples = result.run["samples"]
    expected = {(order, sample) for order in ORDERS for sample in range(samples)}
    for number, row in enumerate(rows, 2):
        where = f"{result.path}, line {number}"
        try:
            comparison, made = _parsed(row)
            if made is not None and {(j.order, j.sample) for j in made} != expected:
                raise ValueError(f"the judgments are not {samples} of each order")
            probe = _probe_of(row, comparison)
        except (SteError, ValueError) as error:
            raise SteError("result_invalid", f"{where}: not a line of a result file ({error})") from error
        if comparison.id in seen:
            raise SteError("result_invalid", f"{where}: {comparison.id!r} occurs twice")
        seen.add(comparison.id)
        if probe is not None:
            result.probes.append(probe)
            result.probe_judgments.extend(made or ())
        elif made is None:
            result.too_long.append(comparison.id)
        else:
            result.comparisons.append(comparison)
            result.judgments.extend(made)


def _probe_of(row: dict[str, Any], comparison: Comparison) -> Probe | None:
    """Returns the probe of a line, or None for the line of a pair."""
    if _PROBE not in row:
        return None
    value = row[_PROBE]
    if (
        not isinstance(value, dict)
        or value.get("kind") not in PROBE_KINDS
        or not accepts(str)(value.get("pair"))
    ):
        raise ValueError(f"{_PROBE} is not the kind and the pair of a probe")
    return Probe(kind=value["kind"], pair=value["pair"], comparison=comparison)


def _parsed(row: dict[str, Any]) -> tuple[Comparison, list[Judgment] | None]:
    """Returns the comparison of a line, and its judgments; None if it is too long."""
    fields = {name: value for name, value in row.items() if name not in (_JUDGMENTS, _TOO_LONG, _PROBE)}
    is_too_long, values = row.get(_TOO_LONG), row.get(_JUDGMENTS)
    if type(is_too_long) is not bool or type(values) is not list:
        raise ValueError(f"{_TOO_LONG} and {_JUDGMENTS} must be true or false, and a list")
    if is_too_long:
        # Lines of format 1 hold nothing but the id.
        if not accepts(str)(row.get("id")):
            raise ValueError("the id is not text")
        return Comparison(id=row["id"], instruction="", response_a="", response_b=""), None
    comparison, made = from_stored(fields), [Judgment.from_json(value) for value in values]
    if any(judgment.pair_id != comparison.id for judgment in made):
        raise ValueError("a judgment is of another comparison")
    if len({(judgment.order, judgment.sample) for judgment in made}) < len(made):
        raise ValueError("a sample occurs twice")
    return comparison, made


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
            kinds.setdefault(_text(row, "kind"), []).append(row)
            for name in _NAMES_OF_FORMAT_1.get(row.pop("kind"), ()):
                _text(row, name)
        except ValueError as error:
            raise SteError(
                "result_invalid", f"{path}, line {number}: not a line of a result file ({error})"
            ) from error
    header = kinds.get("header", [{}])[0]
    run, source = header.get("run"), header.get("data_source")
    if not isinstance(run, dict) or not isinstance(run.get("data"), dict):
        raise SteError("result_invalid", f"{path}, line 1: the header has no settings; evaluate again")
    run["data"]["source"] = source
    check_run(run, path)
    by_pair: dict[str, dict[str, dict[str, Any]]] = {}
    for row in kinds.get("judgment", []):
        # The last judgment wins: a request that a crash interrupted was made again.
        by_pair.setdefault(row["pair_id"], {})[row["id"]] = row
    items = kinds.get("item", [])
    if any(len(by_pair.get(item["id"], {})) != 2 * run["samples"] for item in items):
        raise SteError("result_unfinished", f"{path}: judgments are missing; evaluate again")
    return run, (_row_of_format_1(item, by_pair) for item in items + kinds.get("too_long", []))


def _text(row: Any, name: str) -> str:
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, str):
        raise ValueError(f"{name} is missing or not text")
    return value


def _row_of_format_1(item: dict[str, Any], by_pair: dict[str, dict[str, Any]]) -> dict[str, Any]:
    judgments = by_pair.get(item["id"])
    names = [field.name for field in dataclasses.fields(Surface) if field.name in item]
    surface = {name: item.pop(name) for name in names}
    return item | {
        SURFACE_KEY: surface,
        _TOO_LONG: judgments is None,
        _JUDGMENTS: list((judgments or {}).values()),
    }
