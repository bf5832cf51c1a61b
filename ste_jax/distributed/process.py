"""Which process of a run this one is, how many there are, and how they meet and divide their work.

A run on a pod is the same program on every host. `connection` joins its processes and enters here what it
found; before, and on one machine, there is one process, and everything here is at once done.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ste_jax.distributed import preemption

if TYPE_CHECKING:
    import jax  # not to be loaded by what only reads results

_POLL_SECONDS = 0.2


@dataclasses.dataclass
class _Here:
    """Where this process stands.

    Attributes:
      index: its number.
      count: of all processes.
      service: JAX's coordination service, as a client sees it; its errors are RuntimeErrors.
      seconds: that a barrier may take.
      barriers: that were met at so far.
    """

    index: int = 0
    count: int = 1
    service: Any = None
    seconds: int = 0
    barriers: int = 0


_here = _Here()


def init_process(index: int, count: int, service: Any, seconds: int) -> None:
    """Takes a place among several processes; see `_Here`."""
    global _here
    _here = _Here(index, count, service, seconds)


def count() -> int:
    """Returns the number of processes of this run."""
    return _here.count


def index() -> int:
    """Returns the number of this process, from 0."""
    return _here.index


def is_process_zero() -> bool:
    """Says whether this is the process that writes what only one may write."""
    return _here.index == 0


@dataclasses.dataclass(frozen=True)
class ReplicaGroup:
    """The processes that decode together, because a model does not fit on the devices of one.

    Attributes:
      mesh: over the devices of all of them; usually of this process alone.
    """

    mesh: "jax.sharding.Mesh"

    @functools.cached_property
    def members(self) -> list[int]:
        """The numbers of its processes."""
        return sorted({device.process_index for device in self.mesh.devices.flat})

    @property
    def is_leader(self) -> bool:
        """Returns True if this process reports the results of its group."""
        return self.members[0] == index()

    @property
    def num_groups(self) -> int:
        """Number of groups in the run."""
        return count() // len(self.members)

    def is_assigned(self, id_: str) -> bool:
        """Returns True if this group serves the request; a hash of the id assigns it to exactly one group."""
        number = int.from_bytes(hashlib.sha256(id_.encode()).digest()[:8], "little") % self.num_groups
        return number == self.members[0] // len(self.members)


def barrier(*, stoppable: bool = False) -> None:
    """Waits until all processes are here; all of them call the same barriers in the same order.

    Args:
      stoppable: whether a stop that is asked for meanwhile ends the waiting, for all of them or for none.

    Raises:
      StopRequested: see `stoppable`.
      ValueError: names the processes that did not come.
    """
    if count() > 1:
        _here.barriers += 1
        wait_at(f"ste/barrier/{_here.barriers}", stoppable=stoppable)


def wait_at(name: str, *, stoppable: bool) -> None:
    """Waits until all processes are at the barrier of this name; see `barrier`."""
    client, seconds = _here.service, _here.seconds
    deadline = time.monotonic() + seconds
    client.key_value_set(f"{name}/at/{index()}", "")
    # Whoever decides first decides for all.
    if client.key_value_increment(f"{name}/count", 1) == count():
        kv_set_once(f"{name}/outcome", "go")
    while (outcome := kv_get(f"{name}/outcome")) is None:
        if stoppable and preemption.stop_requested():
            kv_set_once(f"{name}/outcome", "stop")
        elif time.monotonic() > deadline:
            kv_set_once(f"{name}/outcome", "late")
        else:
            time.sleep(_POLL_SECONDS)
    if outcome == "stop":
        raise preemption.StopRequested
    if outcome == "late":
        came = {int(key.rsplit("/", 1)[-1]) for key, _ in client.key_value_dir_get(f"{name}/at/")}
        absent = ", ".join(str(i) for i in range(count()) if i not in came)
        raise ValueError(
            f"worker {absent} of {count()} did not come within {seconds} s (STE_BARRIER_SECONDS): see its log"
        )


def on_process_zero(action: Callable[[], object]) -> None:
    """Lets the first process act while the others wait."""
    if is_process_zero():
        action()
    barrier()


def exchange(value: Any) -> list[Any]:
    """Returns the JSON-ready values that all processes gave, in their order."""
    if count() == 1:
        return [value]
    name = f"ste/value/{_here.barriers}"
    _here.service.key_value_set(f"{name}/{index()}", json.dumps(value))
    barrier()
    found = {int(key.rsplit("/", 1)[-1]): text for key, text in _here.service.key_value_dir_get(f"{name}/")}
    return [json.loads(found[i]) for i in range(count())]


def kv_set_once(key: str, value: str) -> None:
    """Sets what the processes have in common, unless another one was first."""
    with contextlib.suppress(RuntimeError):
        _here.service.key_value_set(key, value)


def kv_get(key: str) -> str | None:
    """Returns what was decided, or None."""
    try:
        return _here.service.key_value_try_get(key)
    except RuntimeError as error:
        if "NOT_FOUND" in str(error):
            return None
        raise
