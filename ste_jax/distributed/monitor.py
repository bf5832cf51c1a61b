"""How the processes of a run join, and how they end together.

JAX's coordination service, which the first process holds, joins them. A watch in each process tells it when
another was lost, failed, or was asked to stop: none waits for one that will not come.
"""

import contextlib
import dataclasses
import functools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# The coordination service has no public face; nothing else in the project reads these modules.
from jax._src import cloud_tpu_init, distributed

from ste_jax.distributed import preemption
from ste_jax.distributed.process import (
    count,
    index,
    init_process,
    is_process_zero,
    kv_get,
    kv_set_once,
    wait_at,
)

# What the launcher takes as "run again": another process was lost, this one is sound.
EXIT_PEER_LOST = 76
_SHUTDOWN = "ste/shutdown"
_POLL_SECONDS = 0.2
_WATCH_SECONDS = 1.0
_SHUTDOWN_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class ProcessEnv:
    """Where a process stands among the others, from the environment.

    Attributes:
      worker: its number (STE_WORKER).
      workers: how many there are (STE_WORKERS).
      coordinator: HOST:PORT of the first one (STE_COORDINATOR); "": JAX knows it, on a TPU.
      start_seconds: for all to come (STE_START_SECONDS).
      heartbeat_seconds: of silence, after which one is lost (STE_HEARTBEAT_SECONDS).
      barrier_seconds: that the fastest waits for the slowest at the end of a stage (STE_BARRIER_SECONDS).
    """

    worker: int
    workers: int
    coordinator: str
    start_seconds: int
    heartbeat_seconds: int
    barrier_seconds: int

    def __post_init__(self):
        if not 0 <= self.worker < self.workers:
            raise ValueError(f"STE_WORKER must be < STE_WORKERS, not {self.worker} of {self.workers}")
        if self.workers > 1 and not self.coordinator and not _on_tpu():
            raise ValueError(
                f"STE_WORKERS={self.workers}, and no TPU knows the others: set STE_COORDINATOR=HOST:PORT"
            )


def read_process_env() -> ProcessEnv:
    """Reads the environment.

    Raises:
      ValueError: a variable is no number, or they contradict each other.
    """

    def number(name: str, default: int) -> int:
        text = os.environ.get(name, str(default))
        if not text.isdecimal():
            raise ValueError(f"{name} must be a whole number, not {text!r}")
        return int(text)

    return ProcessEnv(
        number("STE_WORKER", 0),
        number("STE_WORKERS", 1),
        os.environ.get("STE_COORDINATOR", ""),
        number("STE_START_SECONDS", 300),
        number("STE_HEARTBEAT_SECONDS", 60),
        number("STE_BARRIER_SECONDS", 6 * 3600),
    )


def _on_tpu() -> bool:
    return cloud_tpu_init.running_in_cloud_tpu_vm and os.environ.get("JAX_PLATFORMS", "tpu") != "cpu"


def _connect(here: ProcessEnv) -> None:
    if here.workers == 1 and not here.coordinator and not _on_tpu():
        return
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours: see `stopping`
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # or sums of two programs wait for each other
    jax.config.update("jax_enable_recoverability", True)  # the watch ends a process, with a word on why
    explicit = {}
    if here.coordinator:
        explicit = {
            "coordinator_address": here.coordinator,
            "num_processes": here.workers,
            "process_id": here.worker,
        }
    logging.getLogger(distributed.__name__).setLevel(logging.WARNING)
    jax.distributed.initialize(
        **explicit,
        initialization_timeout=here.start_seconds,
        heartbeat_timeout_seconds=here.heartbeat_seconds,
    )
    state = distributed.global_state
    init_process(state.process_id, state.num_processes, state.client, here.barrier_seconds)


@contextlib.contextmanager
def connected(here: ProcessEnv) -> Iterator[None]:
    """Joins the processes for as long as the block lasts, and ends with the others or before them.

    It must come before anything that asks JAX for devices.
    """
    _connect(here)
    if count() == 1:
        yield
        return
    watch = _Watch(here)
    try:
        yield
    except preemption.StopRequested:
        watch.shutdown()
        raise
    except BaseException as error:
        watch.fail(error)
        raise
    watch.shutdown()


def stop_requested_anywhere(mesh: jax.sharding.Mesh) -> bool:
    """Says whether one of the processes of `mesh` was asked to stop; all of them ask together, and get the
    same answer.
    """
    if not mesh.is_multi_process:
        return preemption.stop_requested()
    sharding = jax.NamedSharding(mesh, jax.P(mesh.axis_names))
    asked = np.array([preemption.stop_requested()])
    return bool(_any(mesh)(jax.make_array_from_callback((mesh.size,), sharding, lambda _: asked)))


@functools.cache
def _any(mesh: jax.sharding.Mesh) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(jnp.any, out_shardings=jax.NamedSharding(mesh, jax.P()))


def _service() -> Any:
    return distributed.global_state.client


# ---- ending -------------------------------------------------------------------


class _Watch:
    """A thread that tells the others what happens to this process, and ends it when they cannot go on.

    It ends the process at once: the main thread may hang in a sum over devices that never comes, and whatever
    is on disk is whole at any moment.
    """

    def __init__(self, here: ProcessEnv):
        self._here = here
        self._over, self._failing, self._all_live = (threading.Event() for _ in range(3))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def shutdown(self) -> None:
        """Waits for the others, so that none of them takes the end of this process for a loss."""
        wait_at(_SHUTDOWN, stoppable=False)
        self._over.set()
        self._detach()

    def fail(self, error: BaseException) -> None:
        """Tells the others that this process ends; if another one was lost, that is why, and is said."""
        # A sum over devices fails long before the silence of the lost one does.
        self._failing.set()
        self._all_live.wait(self._here.heartbeat_seconds + _SHUTDOWN_SECONDS)
        self._over.set()
        kv_set_once(f"ste/failed/{index()}", str(error) or type(error).__name__)
        self._detach()

    def _detach(self) -> None:
        _announce_exit()
        _disconnect()
        # A thread that came back from the service into an interpreter that ends would abort the process.
        self._thread.join(_SHUTDOWN_SECONDS)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._look_around()
            except jax.errors.JaxRuntimeError as error:
                self._end(f"worker 0 of {count()} was lost ({str(error).splitlines()[0]})")
            self._over.wait(_WATCH_SECONDS)

    def _look_around(self) -> None:
        everyone, failing = set(range(count())), self._failing.is_set()
        if preemption.stop_requested():
            kv_set_once("ste/stop", "")
        if kv_get("ste/stop") is not None:
            preemption.request_stop()
        # Waits until all that live have asked; JAX's heartbeats say who does.
        live = _service().get_live_nodes(sorted(everyone))
        if self._over.is_set() or kv_get(f"{_SHUTDOWN}/outcome") is not None:
            return
        if failed := _service().key_value_dir_get("ste/failed/"):
            time.sleep(2 * _WATCH_SECONDS)  # the same error may be on its way here
            if not self._failing.is_set():
                key, reason = failed[0]
                self._end(f"worker {key.rsplit('/', 1)[-1]} of {count()} ended with an error: {reason}")
            self._all_live.set()
        elif gone := sorted(everyone - set(live)):
            names = ", ".join(map(str, gone))
            self._end(f"worker {names} of {count()} was lost: no sign of life", gone)
        elif failing:
            self._all_live.set()

    def _end(self, why: str, gone: Collection[int] = ()) -> None:
        if self._over.is_set():
            return
        print(
            f"ste: {why}\nste: what was finished is safe, the same command on all workers goes on from there",
            file=sys.stderr,
            flush=True,
        )
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            _announce_exit(gone)
        os._exit(EXIT_PEER_LOST)


def _announce_exit(gone: Collection[int] = ()) -> None:
    """Says that nothing of this process follows; the first one hears all others before it goes."""
    kv_set_once(f"ste/ended/{index()}", "")
    deadline = time.monotonic() + _SHUTDOWN_SECONDS
    while is_process_zero() and time.monotonic() < deadline:
        if len(_service().key_value_dir_get("ste/ended/")) >= count() - len(gone):
            break
        time.sleep(_POLL_SECONDS)


def _disconnect() -> None:
    """Leaves the coordination service, the first process last: its end would be taken for a loss."""
    if is_process_zero():
        alone = threading.Thread(target=lambda: _service().get_live_nodes(list(range(count()))), daemon=True)
        alone.start()
        alone.join(_SHUTDOWN_SECONDS)
    jax.distributed.shutdown()
