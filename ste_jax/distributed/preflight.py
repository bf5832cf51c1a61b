"""Checks of `ste preflight`: faults of a pod that can be found before the first step.

First the workers meet in files of the shared workdir, then JAX joins their processes and requests devices.
"""

import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from etils import epath

import ste_jax
from ste_jax.distributed import process
from ste_jax.distributed.monitor import read_process_env
from ste_jax.distributed.rendezvous import differences_between, rendezvous, session
from ste_jax.errors import SteError
from ste_jax.storage.files import digest
from ste_jax.versions import versions

_SAME = ("commit", "config", "versions", "platform", "devices", "processes")
_GB = 1e9


def check(
    config: dict[str, Any],
    workdir: epath.Path,
    *,
    wait: float,
    disk: float,
    memory: float,
) -> list[dict[str, Any]]:
    """Returns the facts of all workers, if they agree.

    Args:
      config: Configuration of the run, as a dict.
      workdir: Folder of the run, shared by all workers.
      wait: Seconds to wait for the other workers, and then for the devices.
      disk: Required free space in the workdir, in GB.
      memory: Required available memory of each host, in GB.

    Raises:
      SteError: Workers did not come, differ, or lack something; the message names them.
    """
    env = read_process_env()
    facts = {"host": socket.gethostname(), **software(config), **_room(workdir)}
    met = rendezvous(workdir / ".rendezvous" / "preflight", env.worker, env.workers, facts, wait)
    refuse(met, disk, memory)
    with session(workdir, {}):
        facts |= _answer_within(wait, _devices)
        met = process.exchange(facts)
        refuse(met, disk, memory)
        if len(met) < env.workers:
            raise SteError(
                "workers_not_ready",
                f"preflight: {env.workers} workers were started (STE_WORKERS), but JAX joined {len(met)}",
            )
        return met


def refuse(met: list[dict[str, Any]], disk: float, memory: float) -> None:
    """Compares the facts of the workers.

    Raises:
      SteError: They differ or lack something; the message has a line for each finding.
    """
    lines = differences_between(met, _SAME)
    for i, facts in enumerate(met):
        where = f"worker {i} ({facts['host']})"
        if facts["disk_gb"] < disk:
            lines.append(
                f"{where}: {facts['disk_gb']} GB free in the workdir, {disk:g} required (--min_disk_gb)"
            )
        if facts["memory_gb"] < memory:
            lines.append(
                f"{where}: {facts['memory_gb']} GB of memory available, {memory:g} required (--min_memory_gb)"
            )
    indices = [facts.get("process_index", i) for i, facts in enumerate(met)]
    if sorted(indices) != list(range(len(met))):
        lines.append(f"the runtime numbers the workers {indices}: it does not see the slice as one")
    if lines:
        raise SteError("workers_not_ready", "preflight: the workers are not ready:\n  " + "\n  ".join(lines))


def software(config: dict[str, Any]) -> dict[str, Any]:
    """Returns what must be the same on all workers, because they run one program together."""
    return {
        "commit": commit_of(package_folder()),
        "config": digest(config),
        "versions": versions(),
    }


def package_folder() -> Path:
    """Returns the folder of this package."""
    return Path(ste_jax.__file__).parent


def commit_of(package: Path) -> str:
    """Returns the git commit of a package folder, marked if tracked files were changed since.

    An installed copy is not part of a repository, even where a virtual environment lies inside the folder of
    another one. For such a copy it is the version and a hash of the package's files.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        head, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "-uno")
    except (OSError, subprocess.CalledProcessError):
        files = {str(p.relative_to(package)): p.read_text() for p in sorted(package.rglob("*.py"))}
        return f"version {ste_jax.__version__}, files {digest(files)[:8]}"
    return head.strip() + (" with changes " + digest(changed)[:8] if changed else "")


def _room(workdir: epath.Path) -> dict[str, float]:
    existing = next(path for path in (Path(workdir), *Path(workdir).parents) if path.exists())
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return {
        "disk_gb": round(shutil.disk_usage(existing).free / _GB, 1),
        "memory_gb": round(available * 1024 / _GB, 1),
    }


def _devices() -> dict[str, Any]:
    kinds = sorted({device.device_kind for device in jax.local_devices()})
    return {
        "platform": f"{jax.default_backend()} {', '.join(kinds)}",
        "devices": jax.device_count(),
        "local_devices": jax.local_device_count(),
        "processes": jax.process_count(),
        "process_index": jax.process_index(),
    }


def _answer_within(wait: float, query: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns the result of `query`, which runs in a thread: devices that hang must not hang the check."""
    answer: dict[str, Any] = {}
    failures: list[Exception] = []

    def run() -> None:
        try:
            answer.update(query())
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(wait)
    where = f"preflight: the devices of {socket.gethostname()} (process {os.getpid()})"
    if thread.is_alive():
        raise SteError(
            "devices_unavailable", f"{where} did not answer within {wait:g} s; another process may hold them"
        )
    if failures:
        error = failures[0]
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise SteError(
            "devices_unavailable",
            f"{where} cannot be used ({text}); stop what holds them, or repair this host",
        ) from error
    return answer
