"""Record sets: folders of JSON-lines parts that survive being killed at any moment.

While a stage works, batches of records land in `journal/`, each written under a temporary name and renamed.
When every record is there, they are put in the order of the stage's inputs, written as `part-*.jsonl`, and
`SUCCESS.json` is written last: an interrupted and an uninterrupted run leave the same bytes in the parts. On
many hosts each writes journal files of its own, and the first puts them together.
"""

import dataclasses
import hashlib
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from etils import epath

from ste_jax.distributed import process
from ste_jax.records import Record
from ste_jax.storage.files import (
    canonical_json,
    differences,
    matching,
    parse_object,
    read_json,
    write_atomically,
)

# Where a line of a file stands, and its bytes.
_Line = tuple[str, bytes]
R = TypeVar("R", bound=Record)

SUCCESS = "SUCCESS.json"
PROGRESS = "PROGRESS"
_STARTED = "STARTED.json"
_PART_RECORDS = 4096
_FLUSH_RECORDS = 256
_FLUSH_SECONDS = 5.0


class StaleStage(ValueError):
    """A stage's folder was made from other inputs or another configuration than the ones at hand."""


@dataclasses.dataclass
class Work:
    """How far a record set is and what it cost so far, earlier processes included; kept beside the
    records.
    """

    done: int = 0
    total: int = 0
    seconds: float = 0.0
    prompt_tokens: int = 0
    generated_tokens: int = 0


@dataclasses.dataclass(frozen=True)
class Success:
    """What a finished record set says of itself; `fingerprint` holds its config and its inputs' hashes."""

    count: int
    content_hash: str
    fingerprint: dict[str, Any]
    summary: dict[str, Any]
    work: dict[str, Any]


def read_success(folder: epath.Path) -> Success | None:
    """Returns what the finished record set in `folder` says of itself, or None."""
    path = folder / SUCCESS
    return Success(**read_json(path, _redo(folder))) if path.exists() else None


def require_success(folder: epath.Path) -> Success:
    """Returns what the finished record set in `folder` says of itself.

    Raises:
      ValueError: it is not finished.
    """
    success = read_success(folder)
    if success is None:
        raise ValueError(f"{folder} is not finished; run its stage first")
    return success


def read_work(folder: epath.Path) -> Work:
    """Returns how far the record set in `folder` is; hosts work side by side, so their seconds count once."""
    hint = "delete it: only seconds and counts of tokens are lost"
    works = [Work(**read_json(path, hint)) for path in matching(folder, f"{PROGRESS}*.json")]
    return Work(
        done=sum(work.done for work in works),
        total=sum(work.total for work in works),
        seconds=max((work.seconds for work in works), default=0.0),
        prompt_tokens=sum(work.prompt_tokens for work in works),
        generated_tokens=sum(work.generated_tokens for work in works),
    )


def _redo(folder: epath.Path) -> str:
    """Returns how to make a folder again: the calls inside a stage go by the stage's name."""
    name, parent = folder.name, folder.parent.name
    if parent.startswith("iteration_"):
        name = f"{parent}/{name}"
    elif parent in ("select", "pairs"):
        name = parent
    return f"pass --redo={name} to make it again (everything that follows from it is made again too)"


def check_fingerprint(folder: epath.Path, fingerprint: dict[str, Any]) -> bool:
    """Returns whether `folder` holds this very stage, begun or finished; False where nothing was begun.

    Raises:
      StaleStage: it was made from something else; the text says what changed.
    """
    for name in (SUCCESS, _STARTED):
        path = folder / name
        if path.exists():
            found = read_json(path, _redo(folder))
            found = found["fingerprint"] if name == SUCCESS else found
            if found != json.loads(canonical_json(fingerprint)):
                changes = "\n  ".join(differences(found, json.loads(canonical_json(fingerprint))))
                raise StaleStage(
                    f"{folder} was made with other settings or inputs:\n  {changes}\n"
                    f"Start another --workdir, set these back, or {_redo(folder)}"
                )
            return True
    return False


class Journal(Protocol):
    """What a stage hands its records to, request by request."""

    work: Work

    @property
    def found(self) -> Mapping[str, Record]:
        """The records that are there already, by id."""
        ...

    def add(self, records: Sequence[Any], *, prompt_tokens: int = 0, generated_tokens: int = 0) -> None:
        """Takes the finished records of one request."""
        ...

    def flush(self) -> None:
        """Brings to the disk what was added."""
        ...


class RecordSet(Generic[R]):
    """A record set being written or read.

    Args:
      folder: where it lies.
      kind: the record class.
      fingerprint: what it is made from (config and parents' hashes); see `check_fingerprint`.
      divided: whether each host adds records of its own; else all add the same, which the first one writes.
    """

    def __init__(
        self, folder: epath.Path, kind: type[R], fingerprint: dict[str, Any], *, divided: bool = False
    ):
        self._folder, self._kind, self._fingerprint = folder, kind, fingerprint
        self._writes = divided or process.is_process_zero()
        self._read: set[str] = set()
        self._found: dict[str, R] = {}
        self._pending: list[R] = []
        self._flushed_at = time.monotonic()
        check_fingerprint(folder, fingerprint)
        process.on_process_zero(self._begin)
        self.work = read_work(folder) if process.is_process_zero() else Work()
        if self.success is None:
            self._read_journal()

    def _begin(self) -> None:
        """Makes the folder; takes up what the hosts of an earlier start say they did."""
        folder = self._folder
        if not check_fingerprint(folder, self._fingerprint):
            (folder / "journal").mkdir(parents=True, exist_ok=True)
            write_atomically(folder / _STARTED, canonical_json(self._fingerprint))
        total, first = read_work(folder), folder / f"{PROGRESS}.json"
        if others := [path for path in matching(folder, f"{PROGRESS}*.json") if path != first]:
            write_atomically(first, canonical_json(dataclasses.asdict(total)))
            for path in others:
                path.unlink()

    def _read_journal(self) -> None:
        for path in matching(self._folder / "journal", "*.jsonl"):
            if path.name not in self._read:
                self._read.add(path.name)
                self._found |= {record.id: record for record in _parsed(_read_lines(path), self._kind)}

    @property
    def success(self) -> Success | None:
        """What the finished set says of itself, or None."""
        return read_success(self._folder)

    @property
    def found(self) -> dict[str, R]:
        """The records that are safe on disk or waiting to be flushed, by id."""
        return self._found

    def add(self, records: Sequence[R], *, prompt_tokens: int = 0, generated_tokens: int = 0) -> None:
        """Takes the finished records of one request; they reach the disk together, within seconds."""
        self._found |= {record.id: record for record in records}
        self._pending += records
        self.work.done += 1
        self.work.prompt_tokens += prompt_tokens
        self.work.generated_tokens += generated_tokens
        late = time.monotonic() - self._flushed_at > _FLUSH_SECONDS
        if late or len(self._pending) >= _FLUSH_RECORDS:
            self.flush()

    def flush(self) -> None:
        """Writes what was added to the journal."""
        if self._writes and self._pending:
            name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}.jsonl"
            write_atomically(self._folder / "journal" / name, _lines(self._pending))
        self._pending = []
        now = time.monotonic()
        self.work.seconds += now - self._flushed_at
        self._flushed_at = now
        if self._writes:
            name = f"{PROGRESS}.json" if process.is_process_zero() else f"{PROGRESS}-{process.index()}.json"
            write_atomically(self._folder / name, canonical_json(dataclasses.asdict(self.work)))

    def gather(self) -> None:
        """Waits for the other hosts, and takes up what they added.

        Raises:
          StopRequested: it was asked to stop before all of them were done.
        """
        self.flush()
        process.barrier(stoppable=True)
        if process.count() > 1:
            self._read_journal()
            process.barrier()  # else the first might take the journal away before the others have read it

    def finish(self, order: Sequence[str], summary: dict[str, Any]) -> Success:
        """Writes the final parts with the records in `order`, and then SUCCESS.json.

        Raises:
          KeyError: an id of `order` was never added.
        """
        self.flush()
        process.on_process_zero(lambda: self._finish([self._found[id_] for id_ in order], summary))
        return require_success(self._folder)

    def _finish(self, records: list[R], summary: dict[str, Any]) -> None:
        total = max(1, -(-len(records) // _PART_RECORDS))
        hasher = hashlib.sha256()
        for number in range(total):
            text = _lines(records[number * _PART_RECORDS : (number + 1) * _PART_RECORDS])
            hasher.update(text.encode())
            write_atomically(self._folder / f"part-{number:05d}-of-{total:05d}.jsonl", text)
        work = dataclasses.asdict(read_work(self._folder))
        success = Success(len(records), hasher.hexdigest(), self._fingerprint, summary, work)
        write_atomically(
            self._folder / SUCCESS, json.dumps(dataclasses.asdict(success), indent=1, ensure_ascii=False)
        )
        (self._folder / "journal").rmtree()


def _lines(records: Sequence[Record]) -> str:
    return "".join(canonical_json(record.to_json()) + "\n" for record in records)


def _read_lines(path: epath.Path) -> Iterator[_Line]:
    # Not splitlines(): generated text may hold other line separators, which JSON leaves as they are.
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if line:
            yield f"{path}, line {number}", line


def _parsed(lines: Iterable[_Line], kind: type[R]) -> Iterator[R]:
    hint = "delete the file: what was in it is made again"
    return (kind.from_json(parse_object(line, where, hint)) for where, line in lines)


def read_records(folder: epath.Path, kind: type[R]) -> list[R]:
    """Returns the records of a finished set, in order.

    Raises:
      ValueError: the set is not finished, or its parts are not the bytes that it was finished with.
    """
    return list(_parsed(_finished_lines(folder), kind))


def read_some(folder: epath.Path, kind: type[R], places: Iterable[int]) -> list[R]:
    """Returns the records of a finished set that stand at these places, from 0, in order; see `read_records`.

    No other line is parsed: those of a large set take many times their bytes as objects.
    """
    wanted = set(places)
    lines = (line for place, line in enumerate(_finished_lines(folder)) if place in wanted)
    return list(_parsed(lines, kind))


def _finished_lines(folder: epath.Path) -> Iterator[_Line]:
    success, hasher = require_success(folder), hashlib.sha256()
    paths = matching(folder, "part-*.jsonl")
    for path in paths:
        hasher.update(path.read_bytes())
    if hasher.hexdigest() != success.content_hash:
        raise ValueError(f"{folder}: the parts are not those that {SUCCESS} was written for; redo the stage")
    return (line for path in paths for line in _read_lines(path))
