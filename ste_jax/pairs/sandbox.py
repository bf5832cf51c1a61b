"""Runs short untrusted Python programs, and reports whether they ran to their end.

A program runs in a process of its own (`sandbox_launcher.py` confines it, and says how), never in this one.
It is for the tests of mutated functions; docs/PAIRS.md says what it protects from and what not. It needs
Linux with user namespaces, or the superuser; elsewhere nothing is run.
"""

import dataclasses
import functools
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal, get_args

from ste_jax.errors import SteError

_LAUNCHER = Path(__file__).with_name("sandbox_launcher.py")
# Exit status of the launcher if it could not confine the program.
_NOT_CONFINED = 3
_START_SECONDS = 30.0
ProgramOutcome = Literal["passed", "failed", "timeout"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a program.

    Attributes:
      seconds: seconds by the clock, after which it is killed.
      cpu_seconds: whole seconds of CPU time, after which the kernel kills it.
      memory: bytes of address space.
    """

    seconds: float = 20.0
    cpu_seconds: int = 2
    memory: int = 512 * 2**20


def run(program: str, limits: Limits | None = None) -> ProgramOutcome:
    """Runs a program and returns "passed" if it reached its end, "timeout" if it took too long, or "failed".

    A program that leaves early, with whatever exit status, has not reached its end.

    Raises:
      SteError: "sandbox_unavailable" if the program cannot be confined here; it is not run then.
    """
    if reason := unavailable():
        raise SteError(
            "sandbox_unavailable",
            f"programs cannot be confined on this machine ({reason}); leave out the pairs that run tests "
            "(mbpp), or make them on a Linux machine that allows user namespaces",
        )
    status, output = _launch(program, limits or Limits())
    outcome = next((known for known in get_args(ProgramOutcome) if known == output), None)
    if status != 0 or outcome is None:
        raise SteError("sandbox_unavailable", f"a program could not be confined, try again: {output}")
    return outcome


@functools.lru_cache(maxsize=1)
def unavailable() -> str | None:
    """Returns why programs cannot be confined on this machine, or None; an empty program finds it out."""
    if platform.system() != "Linux":
        return f"{platform.system()} has no namespaces"
    status, output = _launch("", Limits())
    return None if (status, output) == (0, "passed") else output or f"exit status {status}"


def _launch(program: str, limits: Limits) -> tuple[int, str]:
    """Returns the exit status of the launcher and what it says."""
    request = {
        "program": program,
        # Of a virtual environment, the interpreter that it was made from; it needs no packages.
        "python": os.path.realpath(sys.executable),
        "prefix": sys.base_prefix,
        **dataclasses.asdict(limits),
    }
    with tempfile.TemporaryDirectory(prefix="ste-sandbox-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_LAUNCHER), folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={},
            start_new_session=True,
            text=True,
        )
        try:
            output, _ = process.communicate(json.dumps(request), timeout=limits.seconds + _START_SECONDS)
        except subprocess.TimeoutExpired:
            # The launcher keeps the time itself; this is for a launcher that hangs.
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return _NOT_CONFINED, "the launcher did not answer"
    return process.returncode, output.strip()[-500:]
