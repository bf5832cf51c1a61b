"""How the workers of a pod find each other before anything else is there: by files in a folder they share.

One that did not start, or that does not share the folder, would make everything else wait without a word.
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
from ste_jax.storage.files import read_json, write_atomically

_POLL_SECONDS = 0.2


@contextlib.contextmanager
def session(folder: epath.PathLike, facts: dict[str, Any]) -> Iterator[None]:
    """Makes this process one of its run, as the environment says, for as long as the block lasts.

    Args:
      folder: shared by all, where they find each other.
      facts: that must be the same on all workers.

    Raises:
      ValueError: names the workers that did not come, or what differs between them.
    """
    here = read_process_env()
    if here.workers > 1:
        where = epath.Path(folder).absolute() / ".rendezvous" / "start"
        met = rendezvous(where, here.worker, here.workers, facts, here.start_seconds)
        if lines := differences_between(met, tuple(facts)):
            raise ValueError("the workers differ:\n  " + "\n  ".join(lines))
    with connected(here):
        yield


def rendezvous(
    folder: epath.Path, worker: int, workers: int, facts: dict[str, Any], wait: float
) -> list[dict[str, Any]]:
    """Returns the facts of all workers, each of which has read the others'.

    Every start of a worker has a name of its own, and a worker has come when it has read that of ours: files
    of earlier meetings count for nothing, and no clocks are compared.

    Raises:
      ValueError: names the workers that did not come within `wait` seconds, or nothing can be written.
    """
    start, read, deadline = uuid.uuid4().hex, {}, time.monotonic() + wait
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            mine = {"start": start, "facts": facts, "read": read}
            write_atomically(folder / f"worker-{worker}.json", json.dumps(mine))
            found = {
                i: read_json(path, "delete it, and start all workers again")
                for i in range(workers)
                if (path := _file(folder, i)).exists()
            }
            has_read = {i for i, other in found.items() if other["read"].get(str(worker)) == start}
            missing = [i for i in range(workers) if i not in has_read]
            now_read = {str(i): other["start"] for i, other in found.items()}
            if not missing and read == now_read:
                return [found[i]["facts"] for i in range(workers)]
            if missing and time.monotonic() > deadline:
                raise ValueError(_absent(folder, missing, workers, wait))
            if read == now_read:
                time.sleep(_POLL_SECONDS)
            read = now_read
    except OSError as error:
        raise ValueError(
            f"worker {worker} ({socket.gethostname()}) cannot write {folder} ({error.strerror}); "
            "mount the workdir there, writable"
        ) from error


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


def _file(folder: epath.Path, worker: int) -> epath.Path:
    return folder / f"worker-{worker}.json"


def _absent(folder: epath.Path, missing: list[int], workers: int, wait: float) -> str:
    names = ", ".join(map(str, missing))
    return (
        f"worker {names} of {workers} did not come within {wait:g} s. Look at its log: it was not "
        f"started, or it ended, or its {folder.parent.parent} is not the folder of the others"
    )
