"""`ste preflight` as processes of its own, as many as there are workers."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from etils import epath
from pods import Ended, Pod

from ste_jax.distributed.monitor import read_process_env
from ste_jax.distributed.preflight import _answer_within, refuse
from ste_jax.distributed.rendezvous import rendezvous

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
        assert [(row[0], row[2:4]) for row in rows] == [("0", ["2", "4"]), ("1", ["2", "4"])]
    # The files of that meeting are still there; they count for nothing.
    for code, _, err in together(ste, tmp_path / "run", (), ("--config.seed=7",)):
        assert code == 1
        assert "the workers are not ready:\n  config: " in err
        assert "on worker 0; " in err


def test_a_worker_that_did_not_start_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"worker 1, 2 of 3 did not come within 0\.5 s.*not started"):
        rendezvous(epath.Path(tmp_path / "preflight" / "start"), 0, 3, {}, wait=0.5)
    # Nor do the files of an earlier start make it present.
    stale = {"start": "old", "facts": {}, "read": {"0": "older"}}
    (tmp_path / "preflight" / "start" / "worker-1.json").write_text(json.dumps(stale))
    with pytest.raises(ValueError, match="worker 1 of 2 did not come"):
        rendezvous(epath.Path(tmp_path / "preflight" / "start"), 0, 2, {}, wait=0.5)


def test_a_workdir_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"worker 0 \(.*\) cannot write .*; mount"):
        rendezvous(epath.Path(tmp_path / "file" / "preflight"), 0, 1, {}, wait=0.5)


def test_devices_that_fail_are_not_said_to_be_silent(ste: Any, tmp_path: Path) -> None:
    flags = ("--min_disk_gb=0.001", "--min_memory_gb=0.001", "--wait=100")
    code, _, err = ste.run("preflight", tmp_path / "run", *flags, more={"JAX_PLATFORMS": "absent"})
    assert code == 1
    assert "cannot be used (RuntimeError: Unable to initialize backend 'absent'" in err
    assert "; stop what holds them, or mend this host" in err
    assert "did not answer" not in err


def test_devices_that_are_silent_are_named() -> None:
    with pytest.raises(ValueError, match=r"did not answer within 0\.05 s; another process may hold them"):
        _answer_within(0.05, lambda: time.sleep(1) or {})


def test_a_bucket_is_no_workdir(ste: Any) -> None:
    code, _, err = ste.run("preflight", "gs://bucket/run")
    assert (code, err.count("\n")) == (1, 1)
    assert "--workdir gs://bucket/run: no path here; mount the bucket" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"commit": "b"}, "commit: a on worker 0, 2; b on worker 1"),
        ({"devices": 4}, "devices: 8 on worker 0, 2; 4 on worker 1"),
        ({"disk_gb": 3.0}, r"worker 1 \(h\): 3.0 GB free in the workdir, 20 wanted"),
        ({"memory_gb": 3.0}, r"worker 1 \(h\): 3.0 GB of memory available, 8 wanted"),
    ],
)
def test_what_differs_or_lacks_is_named(change: dict, message: str) -> None:
    refuse([FACTS] * 3, 20, 8)
    with pytest.raises(ValueError, match=message):
        refuse([FACTS, FACTS | change, FACTS], 20, 8)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"STE_WORKERS": "two"}, "STE_WORKERS must be a whole number, not 'two'"),
        ({"STE_WORKERS": "2", "STE_WORKER": "2"}, "STE_WORKER must be < STE_WORKERS"),
        ({"STE_WORKERS": "2", "STE_WORKER": "1"}, "set STE_COORDINATOR=HOST:PORT"),
    ],
)
def test_an_environment_that_names_no_place_is_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        read_process_env()
