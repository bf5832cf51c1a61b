"""Record sets: folders of JSON-lines parts that survive a kill at any moment.

While a stage runs, finished requests are appended to `journal/` (see storage/journal.py). At the end the
records are written as `part-*.jsonl` in the order of the stage's inputs, and `SUCCESS.json`, which lists the
parts with their hashes, is written last. The bytes of the parts depend neither on interruptions nor on the
number of processes: part boundaries follow from the records alone, and each process writes its share of the
parts, streaming from the journals of all. No process ever holds all records.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from etils import epath

from ste_jax.distributed import process
from ste_jax.errors import SteError
from ste_jax.records import Record
from ste_jax.storage.files import (
    canonical_json,
    differences,
    matching,
    read_json,
    remove_temporaries,
    sync_file,
    sync_folder,
    temporary_name,
    write_atomically,
)
from ste_jax.storage.journal import Entry, Journal
from ste_jax.storage.migration import migrate_journal
from ste_jax.storage.readers import IndexedRecords, parse_record
from ste_jax.storage.schema import SCHEMA_VERSION, check_version
from ste_jax.storage.sink import JournaledSink, Work
from ste_jax.storage.success import (
    SUCCESS,
    Part,
    Success,
    content_hash,
    read_success,
    redo_hint,
    require_success,
)

R = TypeVar("R", bound=Record)
# What `RecordSet.finish` stores as summary: a value, or a function of all records, in order.
Summary = Mapping[str, Any] | Callable[[IndexedRecords[R]], Mapping[str, Any]]

STARTED = "STARTED.json"
PROGRESS = "PROGRESS"
_PART_RECORDS = 65_536


def read_work(folder: epath.Path) -> Work:
    """Returns the progress of the record set in `folder`; seconds of concurrent processes count once."""
    hint = "delete it: only seconds and token counts are lost"
    works = []
    for path in matching(folder, f"{PROGRESS}*.json"):
        value = read_json(path, hint)
        if not _is_work(value):
            raise SteError("data_invalid", f"{path}: unexpected fields; {hint}")
        works.append(Work(**value))
    return Work(
        done=sum(work.done for work in works),
        total=sum(work.total for work in works),
        seconds=max((work.seconds for work in works), default=0.0),
        prompt_tokens=sum(work.prompt_tokens for work in works),
        generated_tokens=sum(work.generated_tokens for work in works),
    )


def _is_work(value: dict[str, Any]) -> bool:
    """Returns True for the fields of `Work`, or some of them, with sensible numbers."""
    fields = {field.name for field in dataclasses.fields(Work)}
    return value.keys() <= fields and all(
        type(number) in (int, float) and 0 <= number < math.inf for number in value.values()
    )


def check_fingerprint(folder: epath.Path, fingerprint: dict[str, Any]) -> bool:
    """Returns True if `folder` holds this very stage, started or finished; False if nothing was started.

    Raises:
      SteError: "stage_stale" if it was made from something else, the message lists the differences; or by
        an older version whose fingerprints cannot be compared.
    """
    found = stored_fingerprint(folder)
    if found is None:
        return False
    wanted = json.loads(canonical_json(fingerprint))
    if found.get("schema_version", 1) < wanted.get("schema_version", 1):
        raise SteError(
            "stage_stale",
            f"{folder} was made by an older version of ste_jax, which did not record all settings that its "
            f"records depend on. Use another --workdir, finish the run with that version, or "
            f"{redo_hint(folder)}",
        )
    if found != wanted:
        changes = "\n  ".join(differences(found, wanted))
        raise SteError(
            "stage_stale",
            f"{folder} was made with other settings or inputs:\n  {changes}\n"
            f"Use another --workdir, change these back, or {redo_hint(folder)}",
        )
    return True


def stored_fingerprint(folder: epath.Path) -> dict[str, Any] | None:
    """Returns the fingerprint of the stage in `folder`, started or finished; None if nothing was started."""
    if success := read_success(folder):
        return success.fingerprint
    path = folder / STARTED
    if not path.exists():
        return None
    value = read_json(path, redo_hint(folder))
    # In version 1 the whole file is the fingerprint.
    fingerprint = value if check_version(value, path) == 1 else value.get("fingerprint")
    if not isinstance(fingerprint, dict):
        raise SteError("data_invalid", f"{path}: the field fingerprint is missing; {redo_hint(folder)}")
    return fingerprint


class RecordSet(JournaledSink, Generic[R]):
    """A record set that is being written. All processes open and finish it together.

    Args:
      folder: folder of the record set.
      kind: the record class.
      fingerprint: configuration and hashes of the inputs; see `check_fingerprint`.
      divided: True if each process adds records of its own. Otherwise all add the same records, and process
        zero writes them.

    Raises:
      SteError: "stage_stale", see `check_fingerprint`.
    """

    def __init__(
        self, folder: epath.Path, kind: type[R], fingerprint: dict[str, Any], *, divided: bool = False
    ):
        self._writes = divided or process.is_process_zero()
        super().__init__(folder / "journal", writes=self._writes)
        self._folder, self._kind, self._fingerprint, self._divided = folder, kind, fingerprint, divided
        check_fingerprint(folder, fingerprint)
        process.on_process_zero(self._begin)
        self.work = read_work(folder) if process.is_process_zero() else Work()
        if self.success is None:
            self._load()

    def _begin(self) -> None:
        """Makes the folder, tidies up after killed processes, and adds up the work of an earlier start."""
        folder = self._folder
        folder.mkdir(parents=True, exist_ok=True)
        remove_temporaries(folder)
        remove_temporaries(folder / "journal")
        if not check_fingerprint(folder, self._fingerprint):
            started = {"schema_version": SCHEMA_VERSION, "kind": self._kind.__name__}
            write_atomically(folder / STARTED, canonical_json({**started, "fingerprint": self._fingerprint}))
        total, first = read_work(folder), folder / f"{PROGRESS}.json"
        migrate_journal(folder / "journal", self._kind.__name__, total, redo_hint(folder))
        if others := [path for path in matching(folder, f"{PROGRESS}*.json") if path != first]:
            write_atomically(first, canonical_json(dataclasses.asdict(total)))
            for path in others:
                path.unlink()

    @property
    def success(self) -> Success | None:
        """Description of the finished set, or None."""
        return read_success(self._folder)

    def read(self, request_id: str) -> list[R]:
        """Returns the records that were added for a request, before the set is finished."""
        where = f"{self._folder / 'journal'}, request {request_id!r}"
        lines = self._journal.read(request_id)
        hint = redo_hint(self._folder)
        return [parse_record(line, where, self._kind, SCHEMA_VERSION, hint) for line in lines]

    def share(self) -> None:
        """Makes the records that all processes added readable in each of them; all call it together.

        Raises:
          StopRequested: a stop was requested before all processes came.
        """
        self.flush()
        self._journal.share()

    def flush(self) -> None:
        """Writes everything added so far to the journal, and the progress."""
        super().flush()
        if self._writes:
            name = f"{PROGRESS}.json" if process.is_process_zero() else f"{PROGRESS}-{process.index()}.json"
            write_atomically(self._folder / name, canonical_json(dataclasses.asdict(self.work)))

    def _to_text(self, record: R) -> str:
        return canonical_json(record.to_json())

    def finish(self, request_ids: Iterable[str], summary: Summary[R]) -> Success:
        """Writes the final parts and then SUCCESS.json; all processes call it together.

        Args:
          request_ids: all requests of the set in their final order, the same on every process.
          summary: stored in SUCCESS.json. A function is called on process zero with all records, which
            stream from disk.

        Raises:
          RuntimeError: a request was never added: a defect of the calling program.
          SteError: "data_damaged" if the journal changed on disk.
          StopRequested: a stop was requested before all processes were done.
        """
        if self._divided:
            self.share()
        self.flush()
        writers = process.count() if self._divided else 1
        made = self._write_parts(request_ids, writers) if process.index() < writers else []
        gathered = [part for parts in process.exchange(made) for part in parts]
        parts = tuple(Part(**part) for part in sorted(gathered, key=lambda part: part["name"]))
        process.on_process_zero(lambda: self._succeed(parts, summary))
        return require_success(self._folder)

    def _write_parts(self, request_ids: Iterable[str], writers: int) -> list[dict[str, Any]]:
        """Writes the parts that fall to this process, and returns the fields of each `Part`."""
        located = self._journal.locate(request_ids)
        ranges = _part_ranges([entry for _, entry in located])
        made = []
        for number in range(process.index(), len(ranges), writers):
            path = self._folder / f"part-{number:05d}-of-{len(ranges):05d}.jsonl"
            part = write_part(path, self._journal, located[slice(*ranges[number])])
            made.append(dataclasses.asdict(part))
        return made

    def _succeed(self, parts: tuple[Part, ...], summary: Summary[R]) -> None:
        names = {part.name for part in parts}
        for path in matching(self._folder, "part-*.jsonl"):
            if path.name not in names:  # of a killed attempt with parts of another size
                path.unlink()
        sync_folder(self._folder)
        success = Success(
            schema_version=SCHEMA_VERSION,
            kind=self._kind.__name__,
            count=sum(part.records for part in parts),
            parts=parts,
            content_hash=content_hash(parts),
            fingerprint=self._fingerprint,
            summary={},
            work=dataclasses.asdict(read_work(self._folder)),
        )
        if callable(summary):
            summary = summary(IndexedRecords(self._folder, self._kind, success))
        value = dataclasses.asdict(dataclasses.replace(success, summary=dict(summary)))
        write_atomically(self._folder / SUCCESS, json.dumps(value, indent=1, ensure_ascii=False))
        if (self._folder / "journal").exists():
            (self._folder / "journal").rmtree()


def _part_ranges(entries: Sequence[Entry]) -> list[tuple[int, int]]:
    """Returns the (first, last + 1) request of each part; there is at least one part.

    A part ends before the request that would take it over the limit.
    """
    starts, records = [0], 0
    for number, entry in enumerate(entries):
        if records + entry.records > _PART_RECORDS and number > starts[-1]:
            starts.append(number)
            records = 0
        records += entry.records
    return list(zip(starts, [*starts[1:], len(entries)], strict=True))


def write_part(path: epath.Path, journal: Journal, located: Sequence[tuple[str, Entry]]) -> Part:
    """Writes the records of some requests to a file, streaming from the journal."""
    temporary, hasher, records = temporary_name(path), hashlib.sha256(), 0
    with temporary.open("wb") as file:
        for line in journal.stream(located):
            hasher.update(line + b"\n")
            file.write(line + b"\n")
            records += 1
        sync_file(file)
    temporary.replace(path)
    return Part(path.name, hasher.hexdigest(), records)
