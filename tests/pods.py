"""Runs of several processes on this machine, like those of a pod."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Ended(NamedTuple):
    """Exit code and output of a worker."""

    code: int
    out: str
    err: str


# Starts a process with these variables added to its environment.
Start = Callable[[dict[str, str]], subprocess.Popen[str]]


def python(program: str, *arguments: str) -> Start:
    """Returns a function that starts a program, which can import the modules of the tests."""
    here = Path(__file__).parent
    shared = {k: v for k, v in os.environ.items() if not k.startswith("XLA_")}
    path = ":".join([str(here), str(here / "training"), str(here / "stages"), shared.get("PYTHONPATH", "")])

    def start(more: dict[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            # As in the process of most tests: bits are compared across processes.
            env={**shared, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": path, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


class Pod:
    """Workers of one run; a context manager that leaves none behind."""

    def __init__(self, start: Start, *, workers: int, devices: int, heartbeat: int = 100):
        shared = {
            "JAX_NUM_CPU_DEVICES": str(devices),
            "STE_COORDINATOR": f"localhost:{free_port()}",
            "STE_WORKERS": str(workers),
            "STE_HEARTBEAT_SECONDS": str(heartbeat),
        }
        self.processes = [start({**shared, "STE_WORKER": str(worker)}) for worker in range(workers)]

    def __enter__(self) -> "Pod":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()

    def signal_when(self, condition: Callable[[], bool], worker: int, what: signal.Signals) -> None:
        """Sends a signal to a worker as soon as the condition holds."""
        deadline = time.monotonic() + 300
        while not condition():
            for process in self.processes:
                assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline, "the condition never held"
            time.sleep(0.01)
        self.processes[worker].send_signal(what)

    def ends(self) -> list[Ended]:
        """Waits for all workers and returns how they ended."""
        outputs = [process.communicate(timeout=300) for process in self.processes]
        return [Ended(p.returncode, *pipes) for p, pipes in zip(self.processes, outputs, strict=True)]


def same(ended: list[Ended], code: int) -> None:
    """Asserts that all workers ended with this code."""
    assert [end.code for end in ended] == [code] * len(ended), "\n".join(end.err[-1500:] for end in ended)
