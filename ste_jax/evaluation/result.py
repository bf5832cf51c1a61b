"""The result file of an evaluation: JSON lines that say all that is needed to recompute every number.

The first line is the header: what was evaluated, with which model, prompt, sampling and versions. Then comes
a line for every comparison (its facts, or that it was too long), then one for every judgment with its raw
completion, in the order in which they were made, and one for every process that worked on it. Judgments are
appended as their requests end: a crash loses at most what was in flight, and the next start goes on.
"""

import dataclasses
import fcntl
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ste_jax.judging.verdict import PARSER
from ste_jax.metrics.traits import Surface, from_stored, without_texts
from ste_jax.records import ORDERS, Comparison, Judgment
from ste_jax.storage.files import canonical_json, differences, digest
from ste_jax.storage.sink import Work

FORMAT = "ste-result-1"


@dataclasses.dataclass(frozen=True)
class Result:
    """A result file as read.

    Attributes:
      path: of the file.
      header: what the file says of itself; `header["run"]` is what an interrupted run must agree with.
      comparisons: those that were judged or are still to be judged, without their texts.
      too_long: ids of those that do not fit the model; they were not judged, and nothing was cropped.
      judgments: of the requests all of whose samples are there.
      sessions: a line for every process: seconds it worked, seconds it said beforehand.
    """

    path: Path
    header: dict[str, Any]
    comparisons: list[Comparison]
    too_long: list[str]
    judgments: list[Judgment]
    sessions: list[dict[str, Any]]

    @property
    def run(self) -> dict[str, Any]:
        """What the judgments depend on."""
        return self.header["run"]

    @property
    def missing(self) -> int:
        """How many judgments are still to be made."""
        return len(self.comparisons) * len(ORDERS) * self.run["samples"] - len(self.judgments)


def read_result(path: str | Path) -> Result:
    """Reads a result file, finished or not.

    Raises:
      ValueError: there is none, it is damaged, or another version of the parser wrote it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: there is no such result file; make it with `ste evaluate --out={path}`")
    rows: dict[str, list[dict[str, Any]]] = {
        k: [] for k in ("header", "item", "too_long", "judgment", "session")
    }
    for number, line in enumerate(_whole_lines(path), 1):
        try:
            row = json.loads(line)
            rows[row.pop("kind")].append(row)
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number}: not of a result file ({error}); give one that `ste evaluate` wrote"
            ) from error
    if len(rows["header"]) != 1 or rows["header"][0].get("format") != FORMAT:
        raise ValueError(f"{path}: no header of format {FORMAT}; give a file that `ste evaluate` wrote")
    header = rows["header"][0]
    if header["run"]["parser"] != PARSER:
        raise ValueError(
            f"{path}: written for the parser {header['run']['parser']}, this is {PARSER}; evaluate again"
        )
    # The last one wins: a request that a crash cut in two is made again from its first sample.
    judgments = {row["id"]: Judgment.from_json(row) for row in rows["judgment"]}
    made = Counter((judgment.pair_id, judgment.order) for judgment in judgments.values())
    return Result(
        path,
        header,
        [_comparison_of(row) for row in rows["item"]],
        [row["id"] for row in rows["too_long"]],
        [j for j in judgments.values() if made[j.pair_id, j.order] == header["run"]["samples"]],
        rows["session"],
    )


def _comparison_of(row: dict[str, Any]) -> Comparison:
    """Returns the comparison of a row; files of format 1 hold the surface among its fields."""
    if "surface" not in row:
        names = [field.name for field in dataclasses.fields(Surface)]
        row = row | {"surface": {name: row.pop(name) for name in names}}
    return from_stored(row)


def _whole_lines(path: Path) -> Iterator[str]:
    """Yields the lines that end: what follows the last line feed was cut short by a crash."""
    try:
        yield from path.read_bytes().decode().split("\n")[:-1]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a result file ({error}); choose another --out") from error


def check_same(path: Path, before: dict[str, Any], run: dict[str, Any]) -> None:
    """Refuses to go on with what belongs to another run.

    Raises:
      ValueError: `before`, of the file, is not `run`.
    """
    if changes := differences(before, json.loads(canonical_json(run))):
        text = "\n  ".join(changes)
        raise ValueError(f"{path} holds another evaluation:\n  {text}\nChoose another --out, or delete it")


class JudgmentFile:
    """A file that judgments are appended to (a `Sink`).

    Args:
      path: of the file.
      found: the judgments that were made before.
    """

    def __init__(self, path: Path, found: dict[str, Judgment]):
        self._path, self._found = path, found
        self.work = Work()
        self._file = path.open("ab")

    @property
    def found(self) -> dict[str, Judgment]:
        """The judgments that are there, by id."""
        return self._found

    def is_done(self, request_id: str) -> bool:
        """Returns True if the judgments of this request are there."""
        return f"{request_id}/0" in self._found

    def add(
        self,
        request_id: str,
        records: Sequence[Judgment],
        *,
        prompt_tokens: int = 0,
        generated_tokens: int = 0,
    ) -> None:
        """Appends the judgments of one request."""
        self._append([{"kind": "judgment", **record.to_json()} for record in records])
        self._found |= {record.id: record for record in records}
        self.work.done += 1
        self.work.prompt_tokens += prompt_tokens
        self.work.generated_tokens += generated_tokens

    def flush(self) -> None:
        """Does nothing: judgments are not held back."""

    def close(self, session: dict[str, Any]) -> None:
        """Appends what this process says of itself, and lets the file go."""
        work = {"prompt_tokens": self.work.prompt_tokens, "generated_tokens": self.work.generated_tokens}
        self._append([{"kind": "session", "ended": _now(), **session, **work}])
        self._file.close()

    def _append(self, rows: Sequence[dict[str, Any]]) -> None:
        self._file.write("".join(canonical_json(row) + "\n" for row in rows).encode())
        self._file.flush()


class PartFile(JudgmentFile):
    """Where another process than the first writes its judgments, until that one takes them in.

    Its first line names the run: the result beside it may be deleted and begun anew with another one.

    Args:
      path: of the result file.
      host: index of this process, from 1.
      run: what the judgments depend on, JSON-ready.
      found: the judgments that were made before.
    """

    def __init__(self, path: Path, host: int, run: dict[str, Any], found: dict[str, Judgment]):
        super().__init__(path.with_name(f"{_parts(path)}{host}"), found)
        self._append([_part_head(run)])


def _parts(path: Path) -> str:
    """Returns what the names of a result's parts begin with."""
    return f".{path.name}.of-host-"


def _part_head(run: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "part", "run": digest(run)}


class ResultFile(JudgmentFile):
    """A result file being written, by the first process.

    Args:
      path: of the file. If it is there, it must be of the same run, and what it holds is kept.
      run: what the judgments depend on, JSON-ready.
      about: what else the header says.
      comparisons, too_long: see `Result`.

    Raises:
      ValueError: the file is of another run, is none of ours, or is being written by another process.
    """

    def __init__(
        self,
        path: Path,
        run: dict[str, Any],
        about: dict[str, Any],
        comparisons: Sequence[Comparison],
        too_long: Sequence[str],
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, {})
        head = [{"kind": "item", **without_texts(comparison)} for comparison in comparisons]
        head += [{"kind": "too_long", "id": id_} for id_ in too_long]
        try:
            self._found = self._begin(run, about, head)
        except BaseException:
            self._file.close()
            raise

    def _begin(self, run: dict[str, Any], about: dict[str, Any], head: list[dict]) -> dict[str, Judgment]:
        """Locks the file, writes its head if it has none, and returns the judgments that it holds."""
        path = self._path
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"{path}: another process writes it; wait for it, or choose another --out"
            ) from error
        if not self._mended(len(head)):
            header = {"kind": "header", "format": FORMAT, "created": _now(), **about, "run": run}
            self._append([header, *head])
        before = read_result(path)
        check_same(path, before.run, run)
        return {judgment.id: judgment for judgment in before.judgments}

    def take_in(self) -> None:
        """Moves the lines of the other processes, of earlier starts too, into this file.

        Raises:
          ValueError: a part is of another run.
        """
        head = _part_head(read_result(self._path).run)
        for path in [p for p in self._path.parent.iterdir() if p.name.startswith(_parts(self._path))]:
            lines = list(_whole_lines(path))
            if lines and lines[0] != canonical_json(head):
                raise ValueError(f"{path}: a part of another evaluation; delete it, or choose another --out")
            self._file.write("".join(line + "\n" for line in lines[1:]).encode())
            self._file.flush()
            path.unlink()
        self._found = {judgment.id: judgment for judgment in read_result(self._path).judgments}

    def _mended(self, items: int) -> bool:
        """Cuts off what a crash left half written; says whether there is a header with all its items."""
        content = self._path.read_bytes()
        if not content:
            return False
        lines = content.count(b"\n")
        if not lines or f'"format":"{FORMAT}"'.encode() not in content.split(b"\n", 1)[0]:
            raise ValueError(f"{self._path}: there already, and no result file; choose another --out")
        whole = lines > items or b'"kind":"judgment"' in content
        self._file.truncate(content.rfind(b"\n") + 1 if whole else 0)
        return whole


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
