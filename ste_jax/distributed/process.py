"""Identity of this process in the run, barriers and exchange of values, and division of requests.

A run on several hosts is the same program started on each of them. `monitor.connected` joins the processes
and calls `init_process`. Without it there is a single process, and every function returns at once.

A process has two numbers. The distributed id is the one under which it joined the coordination service:
`index`, `is_process_zero`, and the worker number in messages. The runtime index is `jax.process_index()`,
the `process_index` of its devices. On a TPU the runtime assigns it by position in the slice, so the two may
differ and must never be compared; `distributed_ids` maps one to the other.
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
from ste_jax.errors import SteError

if TYPE_CHECKING:
    import jax  # commands that only read results must not load it


@dataclasses.dataclass
class _Process:
    """State of this process in the run.

    Attributes:
      index: Distributed id of this process.
      count: Number of processes.
      service: Client of JAX's coordination service; its errors are RuntimeErrors.
      seconds: Maximum wait at a barrier.
      barriers: Number of barriers passed so far.
    """

    index: int = 0
    count: int = 1
    service: Any = None
    seconds: int = 0
    barriers: int = 0


_process = _Process()


def init_process(index: int, count: int, service: Any, seconds: int) -> None:
    """Sets the identity of this process; see `_Process` for the arguments."""
    global _process
    _process = _Process(index, count, service, seconds)


def count() -> int:
    """Returns the number of processes of this run."""
    return _process.count


def index() -> int:
    """Returns the distributed id of this process, from 0."""
    return _process.index


def is_process_zero() -> bool:
    """Returns True in the process that writes shared files."""
    return _process.index == 0


def distributed_ids() -> list[int]:
    """Returns the distributed id of each runtime index; all processes call it together.

    Raises:
      RuntimeError: Two processes report the same runtime index.
    """
    import jax

    runtime = exchange(jax.process_index())
    if sorted(runtime) != list(range(count())):
        raise RuntimeError(f"runtime indices of the {count()} processes are not distinct: {runtime}")
    return [runtime.index(i) for i in range(count())]


@dataclasses.dataclass(frozen=True)
class ReplicaGroup:
    """Processes whose devices hold one copy of the model and decode together; usually a single process.

    It counts in runtime indices throughout, because membership follows from the devices.

    Attributes:
      mesh: Mesh over the devices of all members.
    """

    mesh: "jax.sharding.Mesh"

    @functools.cached_property
    def members(self) -> list[int]:
        """Runtime indices of the members, sorted."""
        return sorted({device.process_index for device in self.mesh.devices.flat})

    @property
    def is_leader(self) -> bool:
        """Returns True in the process that stores the results of its group; each group has exactly one.

        Raises:
          RuntimeError: This process has no device in the mesh.
        """
        import jax

        if jax.process_index() not in self.members:
            raise RuntimeError(f"process {jax.process_index()} is not a member of the group {self.members}")
        return self.members[0] == jax.process_index()

    @property
    def num_groups(self) -> int:
        """Number of groups in the run."""
        return count() // len(self.members)

    def is_assigned(self, id_: str) -> bool:
        """Returns True if this group serves the request; a hash of the id assigns it to exactly one group."""
        number = int.from_bytes(hashlib.sha256(id_.encode()).digest()[:8], "little") % self.num_groups
        return number == self.members[0] // len(self.members)


def barrier(*, stoppable: bool = False) -> None:
    """Waits until all processes have called it. All of them pass the same barriers in the same order.

    Cost: three calls to the coordination service per process, and one poll at intervals that grow with the
    time waited, up to `poll_seconds`: at most about 128 polls per second for the whole run. The keys of a
    barrier are deleted at the next one, so the service holds those of two barriers at most.

    Args:
      stoppable: True if a stop requested meanwhile ends the wait, in all processes or in none.

    Raises:
      StopRequested: A stop was requested; see `stoppable`.
      SteError: Some processes did not arrive in time; the message names them.
    """
    if count() > 1:
        _process.barriers += 1
        wait_at(_barrier_key(), stoppable=stoppable)


def _barrier_key(before: int = 0) -> str:
    return f"ste/barrier/{_process.barriers - before}"


def poll_seconds() -> float:
    """Returns the longest interval between two polls of the coordination service by one process.

    It grows with the number of processes, so that the service answers about 128 polls per second in all.
    """
    return max(1.0, count() / 128)


def wait_at(key: str, *, stoppable: bool) -> None:
    """Waits until all processes are at the barrier with this key; see `barrier`."""
    client, seconds = _process.service, _process.seconds
    start = time.monotonic()
    client.key_value_set(f"{key}/at/{index()}", "")
    # The first process to set the outcome sets it for all.
    if client.key_value_increment(f"{key}/count", 1) == count():
        kv_set_once(f"{key}/outcome", "go")
        # All processes have arrived here, so none of them reads the keys of the previous barrier any more.
        if _process.barriers > 1:
            client.key_value_delete(f"{_barrier_key(before=1)}/")
    while (outcome := kv_get(f"{key}/outcome")) is None:
        waited = time.monotonic() - start
        if stoppable and preemption.stop_requested():
            kv_set_once(f"{key}/outcome", "stop")
        elif waited > seconds:
            kv_set_once(f"{key}/outcome", "late")
        else:
            time.sleep(min(max(0.02, waited / 2), poll_seconds()))
    if outcome == "stop":
        raise preemption.StopRequested
    if outcome == "late":
        arrived = {int(name.rsplit("/", 1)[-1]) for name, _ in client.key_value_dir_get(f"{key}/at/")}
        absent = ", ".join(str(i) for i in range(count()) if i not in arrived)
        raise SteError(
            "worker_missing",
            f"worker {absent} of {count()} did not arrive within {seconds} s (STE_BARRIER_SECONDS); "
            "see its log",
        )


def on_process_zero(action: Callable[[], object]) -> None:
    """Runs `action` in process zero while the others wait."""
    if is_process_zero():
        action()
    barrier()


def exchange(value: Any) -> list[Any]:
    """Returns the JSON-ready values of all processes, by distributed id; all processes call it together.

    Every process reads all values: keep them small.
    """
    if count() == 1:
        return [value]
    # Under the key of the barrier, with which they are deleted.
    key = f"ste/barrier/{_process.barriers + 1}/value"
    _process.service.key_value_set(f"{key}/{index()}", json.dumps(value))
    barrier()
    pairs = _process.service.key_value_dir_get(f"{key}/")
    texts = {int(name.rsplit("/", 1)[-1]): text for name, text in pairs}
    return [json.loads(texts[i]) for i in range(count())]


def compute_once(key: str, compute: Callable[[], str]) -> str:
    """Returns the value that the first process to ask for `key` computes; the others wait for it.

    It is no barrier: any subset of the processes may call it, at any time.
    """
    if count() == 1:
        return compute()
    name = f"ste/once/{key}"
    if _process.service.key_value_increment(f"{name}/callers", 1) == 1:
        kv_set_once(f"{name}/value", compute())
    while (value := kv_get(f"{name}/value")) is None:
        time.sleep(poll_seconds())
    return value


def kv_set_once(key: str, value: str) -> None:
    """Sets a key of the coordination service, unless it is set already."""
    with contextlib.suppress(RuntimeError):
        _process.service.key_value_set(key, value)


def kv_get(key: str) -> str | None:
    """Returns the value of a key of the coordination service, or None if it is not set."""
    try:
        return _process.service.key_value_try_get(key)
    except RuntimeError as error:
        if "NOT_FOUND" in str(error):
            return None
        raise
