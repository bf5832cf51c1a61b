"""Rendezvous of the workers of a run in a shared folder, before anything else is started.

A worker that did not start, or that does not share the folder, would otherwise block the others without a
message. Worker 0 opens a meeting, a folder with a fresh name; each worker writes one file into it; worker 0
publishes the list of those that came. Files of earlier meetings have no effect, and no clocks are compared.
"""

import contextlib
import json
import socket
import time
import uuid
from collections.abc import Iterator
from typing import Any

from etils import epath

from ste_jax.distributed.monitor import connected, read_process_env
from ste_jax.errors import SteError
from ste_jax.storage.files import read_json, write_atomically

_POLL_SECONDS = 0.2
_HINT = "delete it, and start all workers again"


@contextlib.contextmanager
def session(folder: epath.PathLike, facts: dict[str, Any]) -> Iterator[None]:
    """Makes this process part of its run, as the environment describes it, for the duration of the block.

    Args:
      folder: Folder shared by all workers, in which they find each other.
      facts: Values that must be the same on all workers.

    Raises:
      SteError: Workers did not come, or differ; the message names them.
    """
    env = read_process_env()
    if env.workers > 1:
        where = epath.Path(folder).absolute() / ".rendezvous" / "start"
        met = rendezvous(where, env.worker, env.workers, facts, env.start_seconds)
        if lines := differences_between(met, tuple(facts)):
            raise SteError("workers_differ", "the workers differ:\n  " + "\n  ".join(lines))
    with connected(env):
        yield


def rendezvous(
    folder: epath.Path, worker: int, workers: int, facts: dict[str, Any], wait: float
) -> list[dict[str, Any]]:
    """Returns the facts of all workers, each of which is running and shares the folder.

    Cost: worker 0 lists one folder per round and reads the file of each worker once; each other worker reads
    two files per round. A round takes 0.2 s, or longer for more than 100 workers.

    Args:
      folder: Folder of this kind of meeting, shared by all workers.
      worker: Number of this worker.
      workers: Number of workers.
      facts: JSON-ready values of this worker.
      wait: Seconds to wait for the others.

    Raises:
      SteError: Workers did not come within `wait` seconds, or nothing can be written; the message names them.
    """
    meet = _host if worker == 0 else _attend
    try:
        folder.mkdir(parents=True, exist_ok=True)
        came = meet(folder, worker, workers, facts, time.monotonic() + wait)
    except OSError as error:
        raise SteError(
            "workdir_unusable",
            f"worker {worker} ({socket.gethostname()}) cannot write {folder} ({error.strerror}); "
            "mount the workdir there, writable",
        ) from error
    if missing := [i for i in range(workers) if i not in came]:
        raise SteError("worker_missing", _absent(folder, missing, workers, wait))
    return [came[i]["facts"] for i in range(workers)]


def _host(
    folder: epath.Path, worker: int, workers: int, facts: dict[str, Any], deadline: float
) -> dict[int, dict[str, Any]]:
    """Opens a meeting, and returns the entries of the workers that came, by number."""
    meeting = folder / uuid.uuid4().hex
    meeting.mkdir()
    write_atomically(folder / "meeting.json", json.dumps({"name": meeting.name}))
    came, seen = {worker: {"start": meeting.name, "facts": facts}}, set()
    while len(came) < workers and time.monotonic() <= deadline:
        new = [
            path for path in meeting.iterdir() if path.name.startswith("worker-") and path.name not in seen
        ]
        for path in new:
            seen.add(path.name)
            came[int(path.name.split("-")[1])] = read_json(path, _HINT)
        if new:
            write_atomically(meeting / "came.json", json.dumps(came))
        else:
            time.sleep(_interval(workers))
    for earlier in [path for path in folder.iterdir() if path.is_dir() and path != meeting]:
        with contextlib.suppress(OSError):
            earlier.rmtree()
    return came


def _attend(
    folder: epath.Path, worker: int, workers: int, facts: dict[str, Any], deadline: float
) -> dict[int, dict[str, Any]]:
    """Joins the meeting of worker 0, and returns the entries that it published, by number."""
    start, joined = uuid.uuid4().hex, ""
    came = {i: {} for i in range(1, workers)}  # as long as worker 0 published nothing, only it is missing
    while len(came) < workers and time.monotonic() <= deadline:
        time.sleep(_interval(workers))
        current = folder / "meeting.json"
        meeting = folder / read_json(current, _HINT)["name"] if current.exists() else None
        if meeting is None or not meeting.exists():
            continue
        if meeting.name != joined:
            # The name tells worker 0 that the process is another one when a worker is started again.
            entry = json.dumps({"start": start, "facts": facts})
            write_atomically(meeting / f"worker-{worker}-{start}.json", entry)
            joined = meeting.name
        published = meeting / "came.json"
        entries = read_json(published, _HINT) if published.exists() else {}
        # Only a worker 0 that runs now can have published the start of this process.
        if entries.get(str(worker), {}).get("start") == start:
            came = {int(i): entry for i, entry in entries.items()}
    return came


def _interval(workers: int) -> float:
    return max(_POLL_SECONDS, workers / 500)


def differences_between(met: list[dict[str, Any]], names: tuple[str, ...]) -> list[str]:
    """Returns a line for each fact of `names` that is not the same on all workers."""
    lines = []
    for name in names:
        values: dict[str, list[str]] = {}
        for i, facts in enumerate(met):
            values.setdefault(str(facts.get(name)), []).append(str(i))
        if len(values) > 1:
            lines.append(f"{name}: " + "; ".join(f"{v} on worker {', '.join(w)}" for v, w in values.items()))
    return lines


def _absent(folder: epath.Path, missing: list[int], workers: int, wait: float) -> str:
    names = ", ".join(map(str, missing))
    return (
        f"worker {names} of {workers} did not come within {wait:g} s; see its log: it was not started, it "
        f"ended, or its {folder.parent.parent} is not the folder of the others"
    )
