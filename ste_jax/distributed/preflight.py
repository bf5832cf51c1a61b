"""What can go wrong on a pod and is known before the first step: the checks of `ste preflight`.

First the workers meet in files of the shared workdir, then JAX joins their processes and asks for devices.
"""

import dataclasses
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from etils import epath

from ste_jax.config import RunConfig
from ste_jax.distributed import process
from ste_jax.distributed.monitor import read_process_env
from ste_jax.distributed.rendezvous import differences_between, rendezvous, session
from ste_jax.storage.files import digest
from ste_jax.versions import versions

_SAME = ("commit", "config", "versions", "platform", "devices", "processes")
_GB = 1e9


def check(
    config: RunConfig,
    workdir: epath.Path,
    *,
    wait: float,
    disk: float,
    memory: float,
) -> list[dict[str, Any]]:
    """Returns the facts of all workers, when they agree.

    Args:
      config: of the run.
      workdir: of the run, shared by all workers.
      wait: seconds for the others to come, and for the devices to answer.
      disk: free GB that the workdir needs.
      memory: available GB that each host needs.

    Raises:
      ValueError: names the workers that did not come, that differ or that lack something.
    """
    here = read_process_env()
    facts = {"host": socket.gethostname(), **software(config), **_room(workdir)}
    met = rendezvous(workdir / "preflight" / "start", here.worker, here.workers, facts, wait)
    refuse(met, disk, memory)
    with session(workdir, {}):
        facts |= _answer_within(wait, _devices)
        met = process.exchange(facts)
        refuse(met, disk, memory)
        if len(met) < here.workers:
            raise ValueError(
                f"preflight: {here.workers} workers were started (STE_WORKERS), JAX sees {len(met)}"
            )
        return met


def refuse(met: list[dict[str, Any]], disk: float, memory: float) -> None:
    """Compares the facts of the workers.

    Raises:
      ValueError: has a line for everything that differs or lacks.
    """
    lines = differences_between(met, _SAME)
    for i, facts in enumerate(met):
        where = f"worker {i} ({facts['host']})"
        if facts["disk_gb"] < disk:
            lines.append(
                f"{where}: {facts['disk_gb']} GB free in the workdir, {disk:g} wanted (--min_disk_gb)"
            )
        if facts["memory_gb"] < memory:
            lines.append(
                f"{where}: {facts['memory_gb']} GB of memory available, {memory:g} wanted (--min_memory_gb)"
            )
    if lines:
        raise ValueError("preflight: the workers are not ready:\n  " + "\n  ".join(lines))


def software(config: RunConfig) -> dict[str, Any]:
    """Returns what must be the same on all workers, or their programs would not meet."""
    return {
        "commit": _commit(),
        "config": digest(dataclasses.asdict(config)),
        "versions": versions(),
    }


def _commit() -> str:
    """Returns the commit of the code that runs, with a mark if files were changed since."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return f"version {metadata.version('ste-jax')}"
    return head.strip() + (" with changes " + digest(changed)[:8] if changed else "")


def _room(workdir: epath.Path) -> dict[str, float]:
    there = next(path for path in (Path(workdir), *Path(workdir).parents) if path.exists())
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return {
        "disk_gb": round(shutil.disk_usage(there).free / _GB, 1),
        "memory_gb": round(available * 1024 / _GB, 1),
    }


def _devices() -> dict[str, Any]:
    kinds = sorted({device.device_kind for device in jax.local_devices()})
    return {
        "platform": f"{jax.default_backend()} {', '.join(kinds)}",
        "devices": jax.device_count(),
        "local_devices": jax.local_device_count(),
        "processes": jax.process_count(),
    }


def _answer_within(wait: float, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns what `ask` says; a device that does not answer must not hang the check that is to find it."""
    answer: dict[str, Any] = {}
    failures: list[Exception] = []

    def listen() -> None:
        try:
            answer.update(ask())
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    thread.join(wait)
    where = f"preflight: the devices of {socket.gethostname()} (process {os.getpid()})"
    if thread.is_alive():
        raise ValueError(f"{where} did not answer within {wait:g} s; another process may hold them")
    if failures:
        error = failures[0]
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"{where} cannot be used ({text}); stop what holds them, or mend this host"
        ) from error
    return answer
