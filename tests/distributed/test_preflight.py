"""`ste preflight` as processes of its own, as many as there are workers."""

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from etils import epath

from ste_jax.distributed import rendezvous as rendezvous_module
from ste_jax.distributed.monitor import read_process_env
from ste_jax.distributed.preflight import _answer_within, commit_of, refuse
from ste_jax.distributed.rendezvous import rendezvous
from ste_jax.storage.files import read_json
from tests.errors import raises
from tests.pods import Ended, Pod

FACTS = {"host": "h", "disk_gb": 50.0, "memory_gb": 20.0, "commit": "a", "config": "c", "devices": 8}


def together(ste: Any, workdir: Path, *workers: tuple[str, ...]) -> list[Ended]:
    """Starts workers with these flags at the same time; returns how each ended."""
    flags = ("--min_disk_gb=0.001", "--min_memory_gb=0.001", "--wait=100")
    own = iter(workers)
    with Pod(
        lambda more: ste.begin("preflight", workdir, *flags, *next(own), more=more),
        workers=len(workers),
        devices=2,
    ) as pod:
        return pod.ends()


def test_workers_that_agree_and_one_that_differs(ste: Any, tmp_path: Path) -> None:
    for code, out, err in together(ste, tmp_path / "run", (), ()):
        assert code == 0, err
        assert out.startswith("ready: commit")
        rows = [line.replace("│", " ").split() for line in out.splitlines() if "│" in line]
        assert [(row[0], row[2:5]) for row in rows] == [("0", ["0", "2", "4"]), ("1", ["1", "2", "4"])]
    # The files of that meeting are still there; they count for nothing.
    for code, _, err in together(ste, tmp_path / "run", (), ("--config.seed=7",)):
        assert code == 1
        assert "the workers are not ready:\n  config: " in err
        assert "on worker 0; " in err


def test_a_worker_that_did_not_start_is_named(tmp_path: Path) -> None:
    folder = epath.Path(tmp_path / "preflight" / "start")
    with raises("worker_missing", "worker 1, 2 of 3"):
        rendezvous(folder, 0, 3, {}, wait=0.5)
    # The files of that meeting do not make worker 0 present, nor those of worker 1 that worker.
    with raises("worker_missing", "worker 0 of 2"):
        rendezvous(folder, 1, 2, {}, wait=0.5)
    with raises("worker_missing", "worker 1 of 2"):
        rendezvous(folder, 0, 2, {}, wait=0.5)


def meeting_of(folder: epath.Path, workers: int) -> list[list[dict]]:
    """Runs the rendezvous of workers; returns the result of each."""
    with ThreadPoolExecutor(workers) as pool:
        met = [pool.submit(rendezvous, folder, i, workers, {"i": i}, 60.0) for i in range(workers)]
        return [future.result() for future in met]


def test_a_meeting_reads_a_few_files_per_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []

    def read(path: epath.Path, hint: str) -> dict:
        reads.append(path)
        return read_json(path, hint)

    monkeypatch.setattr(rendezvous_module, "read_json", read)
    monkeypatch.setattr(rendezvous_module, "_POLL_SECONDS", 0.5)
    workers = 16
    for _ in range(2):
        assert meeting_of(epath.Path(tmp_path / "start"), workers) == [[{"i": i} for i in range(16)]] * 16
    # Each worker reading the files of all others would be 256 reads per meeting and round.
    assert len(reads) < 2 * 12 * workers
    assert len([path for path in (tmp_path / "start").iterdir() if path.is_dir()]) == 1


def test_a_worker_that_is_started_again_takes_part(tmp_path: Path) -> None:
    folder = epath.Path(tmp_path / "start")
    with ThreadPoolExecutor(3) as pool:
        host = pool.submit(rendezvous, folder, 0, 3, {}, 60.0)
        with raises("worker_missing", "worker 2 of 3"):
            rendezvous(folder, 1, 3, {"start": "first"}, wait=5.0)
        again = pool.submit(rendezvous, folder, 1, 3, {"start": "second"}, 60.0)
        time.sleep(2)
        last = pool.submit(rendezvous, folder, 2, 3, {}, 60.0)
        assert host.result() == again.result() == last.result() == [{}, {"start": "second"}, {}]


def test_a_workdir_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with raises("workdir_unusable", "worker 0 (", str(tmp_path / "file")):
        rendezvous(epath.Path(tmp_path / "file" / "preflight"), 0, 1, {}, wait=0.5)


def test_devices_that_fail_are_not_said_to_be_silent(ste: Any, tmp_path: Path) -> None:
    flags = ("--min_disk_gb=0.001", "--min_memory_gb=0.001", "--wait=100")
    code, _, err = ste.run("preflight", tmp_path / "run", *flags, more={"JAX_PLATFORMS": "absent"})
    assert code == 1
    assert "cannot be used (RuntimeError: Unable to initialize backend 'absent'" in err
    assert "; stop what holds them, or repair this host" in err
    assert "did not answer" not in err


def test_devices_that_are_silent_are_named() -> None:
    with raises("devices_unavailable", "0.05 s"):
        _answer_within(0.05, lambda: time.sleep(1) or {})


def commit_to(repository: Path, *files: str) -> str:
    """Makes a repository that tracks these files; returns its commit."""
    git = ["git", "-C", str(repository), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", *files], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "c"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return head.stdout.strip()


def test_the_commit_is_that_of_the_package(tmp_path: Path) -> None:
    package = tmp_path / ".venv" / "ste_jax"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (tmp_path / "other.txt").write_text("")
    assert commit_to(tmp_path, "other.txt") not in commit_of(package)
    installed = commit_of(package)
    (package / "__init__.py").write_text("# changed")
    assert commit_of(package) != installed
    head = commit_to(tmp_path, ".venv/ste_jax/__init__.py")
    assert commit_of(package) == head
    (package / "__init__.py").write_text("# changed again")
    assert commit_of(package).startswith(f"{head} with changes ")


def test_a_bucket_is_no_workdir(ste: Any) -> None:
    code, _, err = ste.run("preflight", "gs://bucket/run")
    assert (code, err.count("\n")) == (1, 1)
    assert "gs://bucket/run" in err


@pytest.mark.parametrize(
    ("change", "places"),
    [
        ({"commit": "b"}, ("commit: a on worker 0, 2; b on worker 1",)),
        ({"devices": 4}, ("devices: 8 on worker 0, 2; 4 on worker 1",)),
        ({"disk_gb": 3.0}, ("worker 1 (h): 3.0 GB", "--min_disk_gb")),
        ({"memory_gb": 3.0}, ("worker 1 (h): 3.0 GB", "--min_memory_gb")),
        ({"process_index": 0}, ("[0, 0, 2]",)),
    ],
)
def test_differences_and_shortages_are_named(change: dict, places: tuple[str, ...]) -> None:
    refuse([FACTS] * 3, 20, 8)
    with raises("workers_not_ready", *places):
        refuse([FACTS, FACTS | change, FACTS], 20, 8)


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({"STE_WORKERS": "two"}, "STE_WORKERS"),
        ({"STE_WORKERS": "2", "STE_WORKER": "2"}, "STE_WORKER"),
        ({"STE_WORKERS": "2", "STE_WORKER": "1"}, "STE_COORDINATOR"),
    ],
)
def test_a_contradictory_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], name: str
) -> None:
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    with raises("environment_invalid", name):
        read_process_env()
