"""Joining the processes of a run, and ending them together.

The processes join JAX's coordination service, which process zero hosts. A monitor thread in each of them
learns when another process was lost, failed or received SIGTERM, so that no process waits for a lost one.
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

# The coordination service has no public interface. Only this module reads JAX's private ones.
from jax._src import cloud_tpu_init, distributed

from ste_jax.distributed import preemption
from ste_jax.distributed.process import (
    count,
    index,
    init_process,
    is_process_zero,
    kv_set_once,
    poll_seconds,
    wait_at,
)
from ste_jax.errors import SteError
from ste_jax.visible import visible_message

# The exit code of a process that ended because another one was lost: the launcher starts the run again.
EXIT_PEER_LOST = 76
_EVENTS = "ste/event"
_SHUTDOWN = f"{_EVENTS}/shutdown"
_POLL_SECONDS = 0.2
_SHUTDOWN_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class ProcessEnv:
    """Settings of a process in a run on several hosts, from the environment.

    Attributes:
      worker: Number of this process (STE_WORKER).
      workers: Number of processes (STE_WORKERS).
      coordinator: HOST:PORT of process zero (STE_COORDINATOR). Empty: JAX finds it, on a TPU.
      start_seconds: Maximum wait for the other processes at the start (STE_START_SECONDS).
      heartbeat_seconds: Silence after which a process counts as lost (STE_HEARTBEAT_SECONDS).
      barrier_seconds: Maximum wait of the fastest process for the slowest at the end of a stage
        (STE_BARRIER_SECONDS).
    """

    worker: int
    workers: int
    coordinator: str
    start_seconds: int
    heartbeat_seconds: int
    barrier_seconds: int

    def __post_init__(self):
        if not 0 <= self.worker < self.workers:
            raise SteError(
                "environment_invalid",
                f"STE_WORKER must be < STE_WORKERS, not {self.worker} of {self.workers}",
            )
        if self.workers > 1 and not self.coordinator and not _on_tpu():
            raise SteError(
                "environment_invalid",
                f"STE_WORKERS={self.workers} without a TPU: set STE_COORDINATOR=HOST:PORT of worker 0",
            )


def read_process_env() -> ProcessEnv:
    """Reads the settings of this process from the environment.

    Raises:
      SteError: A variable is not a number, or the variables contradict each other.
    """

    def number(name: str, default: int) -> int:
        text = os.environ.get(name, str(default))
        if not text.isdecimal():
            raise SteError("environment_invalid", f"{name} must be a whole number, not {text!r}")
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
    wanted = os.environ.get("JAX_PLATFORMS", "")
    return cloud_tpu_init.running_in_cloud_tpu_vm and (not wanted or "tpu" in wanted.split(","))


def _connect(env: ProcessEnv) -> None:
    if env.workers == 1 and not env.coordinator and not _on_tpu():
        return
    jax.config.update("jax_enable_preemption_service", False)  # `preemption` handles SIGTERM
    # With asynchronous dispatch on CPU the all-reduces of two programs can deadlock.
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    # Otherwise JAX ends a process when a peer is lost, before the monitor can report which one.
    jax.config.update("jax_enable_recoverability", True)
    explicit = {}
    if env.coordinator:
        explicit = {
            "coordinator_address": env.coordinator,
            "num_processes": env.workers,
            "process_id": env.worker,
        }
    logging.getLogger(distributed.__name__).setLevel(logging.WARNING)
    jax.distributed.initialize(
        **explicit,
        initialization_timeout=env.start_seconds,
        heartbeat_timeout_seconds=env.heartbeat_seconds,
    )
    state = distributed.global_state
    init_process(state.process_id, state.num_processes, state.client, env.barrier_seconds)


@contextlib.contextmanager
def connected(env: ProcessEnv) -> Iterator[None]:
    """Joins the processes for the duration of the block. No process outlives the block of a failed one.

    Enter it before anything asks JAX for devices.
    """
    _connect(env)
    if count() == 1:
        yield
        return
    monitor = _Monitor(env)
    try:
        yield
    except preemption.StopRequested:
        monitor.shutdown()
        raise
    except BaseException as error:
        monitor.fail(error)
        raise
    monitor.shutdown()


def stop_requested_anywhere(mesh: jax.sharding.Mesh) -> bool:
    """Returns True if a stop of any process of `mesh` was requested.

    All of them call it together and get the same answer.
    """
    if not mesh.is_multi_process:
        return preemption.stop_requested()
    sharding = jax.NamedSharding(mesh, jax.P(mesh.axis_names))
    requested = np.array([preemption.stop_requested()])
    return bool(_any(mesh)(jax.make_array_from_callback((mesh.size,), sharding, lambda _: requested)))


@functools.cache
def _any(mesh: jax.sharding.Mesh) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(jnp.any, out_shardings=jax.NamedSharding(mesh, jax.P()))


def _service() -> Any:
    return distributed.global_state.client


# ---- ending -------------------------------------------------------------------


class _Monitor:
    """Thread that reports the state of this process to the others, and ends it when they cannot continue.

    It ends the process at once: the main thread may hang in a collective that never completes, and the files
    on disk are consistent at any moment.

    Cost: per round each process makes two calls to the coordination service, a listing of the events and a
    query of the live processes. Rounds are `poll_seconds` apart.
    """

    def __init__(self, env: ProcessEnv):
        self._env = env
        self._over, self._failing, self._all_live = (threading.Event() for _ in range(3))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def shutdown(self) -> None:
        """Waits for the others, so that none of them takes the end of this process for a loss."""
        wait_at(_SHUTDOWN, stoppable=False)
        self._over.set()
        self._detach()

    def fail(self, error: BaseException) -> None:
        """Reports the error to the others. Ends with the loss of another process if that is the cause."""
        # A collective fails long before the heartbeat of the lost process times out.
        self._failing.set()
        self._all_live.wait(self._env.heartbeat_seconds + _SHUTDOWN_SECONDS)
        self._over.set()
        kv_set_once(f"{_EVENTS}/failed/{index()}", str(error) or type(error).__name__)
        self._detach()

    def _detach(self) -> None:
        _announce_exit()
        _disconnect()
        # A thread that returns from the service while the interpreter shuts down would abort the process.
        self._thread.join(_SHUTDOWN_SECONDS)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._check_peers()
            except jax.errors.JaxRuntimeError as error:
                self._end(f"worker 0 of {count()} was lost ({str(error).splitlines()[0]})")
            self._over.wait(poll_seconds())

    def _check_peers(self) -> None:
        everyone, failing = set(range(count())), self._failing.is_set()
        if preemption.stop_requested():
            kv_set_once(f"{_EVENTS}/stop", "")
        # Returns when all live processes have called it; JAX's heartbeats decide which are live.
        live = _service().get_live_nodes(sorted(everyone))
        events = dict(_service().key_value_dir_get(f"{_EVENTS}/"))
        if f"{_EVENTS}/stop" in events:
            preemption.request_stop()
        if self._over.is_set() or f"{_SHUTDOWN}/outcome" in events:
            return
        if failed := sorted(key for key in events if key.startswith(f"{_EVENTS}/failed/")):
            time.sleep(2 * poll_seconds())  # the same error may be about to occur in this process
            if not self._failing.is_set():
                name = failed[0].rsplit("/", 1)[-1]
                self._end(f"worker {name} of {count()} ended with an error: {events[failed[0]]}")
            self._all_live.set()
        elif gone := sorted(everyone - set(live)):
            names = ", ".join(map(str, gone))
            self._end(f"worker {names} of {count()} was lost: no sign of life", gone)
        elif failing:
            self._all_live.set()

    def _end(self, reason: str, gone: Collection[int] = ()) -> None:
        if self._over.is_set():
            return
        resume = "finished work is on disk; the same command on all workers resumes from there"
        print(f"ste: {visible_message(reason)}\nste: {resume}", file=sys.stderr, flush=True)
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            _announce_exit(gone)
        os._exit(EXIT_PEER_LOST)


def _announce_exit(gone: Collection[int] = ()) -> None:
    """Announces that this process makes no further calls; process zero waits for all announcements."""
    kv_set_once(f"ste/ended/{index()}", "")
    deadline = time.monotonic() + _SHUTDOWN_SECONDS
    while is_process_zero() and time.monotonic() < deadline:
        if len(_service().key_value_dir_get("ste/ended/")) >= count() - len(gone):
            break
        time.sleep(_POLL_SECONDS)


def _disconnect() -> None:
    """Leaves the coordination service, process zero last: its end would be taken for a loss."""
    if is_process_zero():
        # Completes when all other processes have left.
        alone = threading.Thread(target=lambda: _service().get_live_nodes(list(range(count()))), daemon=True)
        alone.start()
        alone.join(_SHUTDOWN_SECONDS)
    jax.distributed.shutdown()
