"""Append-only journals: the finished requests of a stage until its final files are written.

Every process start appends to a file of its own, `journal/START-PROCESS-RANDOM.journal`. A line holds all
records of one request, so that a request is there completely or not at all:

  CRC-32 in hex, TAB, request as JSON, TAB, record as JSON, TAB, ..., LF

The request is its id, or a list of its id, its prompt tokens and its generated tokens: they survive a kill
together with the records. JSON escapes tabs and line feeds, so they separate. The checksum covers everything
after the first tab. A last line without its line feed was cut off by a kill; such a line and lines whose
checksum is wrong are ignored, and their requests are made again.

Only the position of each request is held in memory. On several processes each verifies a share of the files
found at the start and writes their positions to `*.index` files, which all others read.
"""

import json
import logging
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, NamedTuple

from etils import epath

from ste_jax.distributed import process
from ste_jax.errors import SteError
from ste_jax.storage.files import canonical_json, matching, sync_file, sync_folder, write_atomically

_log = logging.getLogger(__name__)
_OPEN_FILES = 128
_NAME_BYTES = 200  # of a damaged line, in a warning


class Entry(NamedTuple):
    """Position of a request in the journal.

    Attributes:
      file: index of the journal file.
      offset: bytes before its line.
      length: bytes of its line.
      records: number of its records.
      prompt_tokens: tokens of its prompt.
      generated_tokens: tokens that were generated for it.
    """

    file: int
    offset: int
    length: int
    records: int
    prompt_tokens: int = 0
    generated_tokens: int = 0


class Line(NamedTuple):
    """A line of a journal: its request, the tokens that it cost, and its records as JSON texts."""

    request_id: str
    prompt_tokens: int
    generated_tokens: int
    records: list[bytes]


class Journal:
    """The journal files in a folder.

    Args:
      folder: folder of the files, created with the first file.
      writes: True if this process writes; otherwise it only remembers which requests were appended.
    """

    def __init__(self, folder: epath.Path, *, writes: bool):
        self._folder, self._writes = folder, writes
        # Names of all files that are read or written, and of those of earlier starts.
        self._names: list[str] = []
        self._loaded: list[str] = []
        self._entries: dict[str, Entry | None] = {}
        # Lines of requests, with their entries in a file that does not exist yet.
        self._pending: dict[str, tuple[bytes, Entry]] = {}
        # Index and size in bytes of the file that this process appends to.
        self._own: int | None = None
        self._size = 0
        self._open: dict[int, IO[bytes]] = {}
        self.pending_records = 0

    def __contains__(self, request_id: str) -> bool:
        """Returns True if the request was appended, now or by an earlier process."""
        return request_id in self._entries or request_id in self._pending

    def append(
        self,
        request_id: str,
        records: Sequence[str],
        *,
        prompt_tokens: int = 0,
        generated_tokens: int = 0,
    ) -> None:
        """Adds a request with its records as JSON texts; it is on disk after the next `flush`."""
        # The last line of a request is the valid one; in `_pending`, too, the last addition is to be last.
        self._pending.pop(request_id, None)
        line = encode_line(request_id, records, prompt_tokens, generated_tokens)
        entry = Entry(-1, -1, len(line), len(records), prompt_tokens, generated_tokens)
        self._pending[request_id] = (line, entry)
        self.pending_records += len(records)

    def flush(self) -> None:
        """Brings all pending requests to disk.

        Raises:
          OSError: they could not be written; the next call writes them again, into another file.
        """
        if not self._pending:
            return
        if self._writes:
            self._write(self._pending)
        else:
            self._entries |= dict.fromkeys(self._pending)
        self._pending, self.pending_records = {}, 0

    def _write(self, pending: dict[str, tuple[bytes, Entry]]) -> None:
        number = self._own_file()
        try:
            with (self._folder / self._names[number]).open("ab") as file:
                file.write(b"".join(line for line, _ in pending.values()))
                sync_file(file)
        except OSError:
            self._own, self._size = None, 0  # nothing is appended to a line that may be cut off
            raise
        if self._size == 0:
            sync_folder(self._folder)
        for request_id, (line, entry) in pending.items():
            self._entries[request_id] = entry._replace(file=number, offset=self._size)
            self._size += len(line)

    def work(self) -> tuple[int, int, int]:
        """Returns the number of all requests whose positions are known, their prompt and generated tokens."""
        known = [entry for entry in self._entries.values() if entry is not None]
        return len(known), sum(e.prompt_tokens for e in known), sum(e.generated_tokens for e in known)

    def _own_file(self) -> int:
        if self._own is None:
            name = f"{time.time_ns():020d}-{process.index():05d}-{uuid.uuid4().hex[:8]}.journal"
            self._folder.mkdir(parents=True, exist_ok=True)
            self._own = len(self._names)
            self._names.append(name)
        return self._own

    def load(self) -> None:
        """Takes up the files of earlier starts; all processes call it together, before any `flush`."""
        names = self._loaded = [path.name for path in matching(self._folder, "*.journal")]
        if process.count() == 1:
            for name in names:
                self._add_file(name, scan(self._folder / name))
            return
        for name in names[process.index() :: process.count()]:
            self._write_index(name, scan(self._folder / name))
        process.barrier()
        self._read_indices(names)

    def share(self) -> None:
        """Exchanges positions, so that every process can read all requests; all processes call it together.

        Raises:
          StopRequested: a stop was requested before all processes came.
        """
        self.flush()
        if process.count() > 1 and self._own is not None:
            lines = ((i, *e[1:]) for i, e in self._entries.items() if e and e.file == self._own)
            self._write_index(self._names[self._own], lines)
        process.barrier(stoppable=True)
        if process.count() > 1:
            # Files of this start may have grown since they were read; those without an index are still empty.
            skipped = {self._index_path(name) for name in self._loaded}
            indices = [path for path in matching(self._folder, "*.index") if path not in skipped]
            self._read_indices([f"{path.stem}.journal" for path in indices])

    def _write_index(self, name: str, lines: Iterable[tuple[Any, ...]]) -> None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_atomically(self._index_path(name), text)

    def _read_indices(self, names: Sequence[str]) -> None:
        for name in names:
            with self._index_path(name).open("rb") as file:
                self._add_file(name, (json.loads(line) for line in file))

    def _index_path(self, name: str) -> epath.Path:
        return self._folder / f"{name.removesuffix('.journal')}.index"

    def _add_file(self, name: str, lines: Iterable[Sequence[Any]]) -> None:
        if name not in self._names:
            self._names.append(name)
        number = self._names.index(name)
        for request_id, *position in lines:
            self._entries[request_id] = Entry(number, *position)

    def locate(self, request_ids: Iterable[str]) -> list[tuple[str, Entry]]:
        """Returns the position of each request.

        Raises:
          RuntimeError: a request was never appended: a defect of the calling program.
        """
        located, missing = [], []
        for request_id in request_ids:
            entry = self._entries.get(request_id)
            if entry is None:
                missing.append(request_id)
            else:
                located.append((request_id, entry))
        if missing:
            raise RuntimeError(
                f"{self._folder}: {len(missing)} of {len(missing) + len(located)} requests have no records, "
                f"the first is {missing[0]!r}: no process made them"
            )
        return located

    def read(self, request_id: str) -> list[bytes]:
        """Returns the records of a request as JSON texts.

        Raises:
          SteError: "data_damaged": the line changed since it was written or verified.
        """
        self.flush()
        return list(self.stream(self.locate([request_id])))

    def stream(self, located: Iterable[tuple[str, Entry]]) -> Iterator[bytes]:
        """Yields the records of some requests as JSON texts; see `locate` and `read`."""
        try:
            for request_id, entry in located:
                yield from self._read(request_id, entry)
        finally:
            self._close_readers()

    def _read(self, request_id: str, entry: Entry) -> list[bytes]:
        file = self._reader(entry.file)
        file.seek(entry.offset)
        found = decode_line(file.read(entry.length))
        if found is None or found[0] != request_id:
            raise SteError(
                "data_damaged",
                f"{self._folder / self._names[entry.file]}: the line of request {request_id!r} at byte "
                f"{entry.offset} is damaged; run the same command again, which makes this request again",
            )
        return found[1]

    def _reader(self, number: int) -> IO[bytes]:
        if number not in self._open:
            if len(self._open) >= _OPEN_FILES:
                self._close_readers()
            self._open[number] = (self._folder / self._names[number]).open("rb")
        return self._open[number]

    def _close_readers(self) -> None:
        for file in self._open.values():
            file.close()
        self._open = {}


def encode_line(
    request_id: str, records: Sequence[str], prompt_tokens: int = 0, generated_tokens: int = 0
) -> bytes:
    """Returns the journal line of a request with these records, JSON texts without tabs or line feeds."""
    counted = prompt_tokens or generated_tokens
    request = [request_id, prompt_tokens, generated_tokens] if counted else request_id
    body = "\t".join([canonical_json(request), *records]).encode()
    return b"%08x\t%s\n" % (zlib.crc32(body), body)


def parse_line(line: bytes) -> Line | None:
    """Returns the content of a line, or None if it is damaged."""
    checksum, _, body = line.removesuffix(b"\n").partition(b"\t")
    if checksum != b"%08x" % zlib.crc32(body):
        return None
    request, *records = body.split(b"\t")
    try:
        found = json.loads(request)
        request_id, prompt_tokens, generated_tokens = found if isinstance(found, list) else (found, 0, 0)
    except ValueError:
        return None
    if not isinstance(request_id, str) or type(prompt_tokens) is not int or type(generated_tokens) is not int:
        return None
    return Line(request_id, prompt_tokens, generated_tokens, records)


def decode_line(line: bytes) -> tuple[str, list[bytes]] | None:
    """Returns the request id and the records as JSON texts, or None if the line is damaged."""
    found = parse_line(line)
    return found and (found.request_id, found.records)


def scan(path: epath.Path) -> Iterator[tuple[str, int, int, int, int, int]]:
    """Yields the request id and the fields of `Entry`, from `offset` on, of the sound lines of a file."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            if found := parse_line(line):
                count = len(found.records)
                yield found.request_id, offset, len(line), count, found.prompt_tokens, found.generated_tokens
            else:
                name = line.rstrip(b"\n").split(b"\t")[1:2]
                _log.warning(
                    "%s, line %d: damaged; its request %s is made again",
                    path,
                    number,
                    name[0][:_NAME_BYTES].decode(errors="replace") if name else "(unreadable)",
                )
            offset += len(line)
