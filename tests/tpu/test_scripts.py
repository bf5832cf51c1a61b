"""Scripts of tpu/ against a stand-in for gcloud (in this folder) that replays what a cloud does."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
STE = ("--", "ste", "run", "--config=configs/llama3_70b.py", "--workdir=/mnt/ste/it's mine")


class Result(NamedTuple):
    code: int
    out: str
    err: str
    calls: list[list[str]]

    def verbs(self, *wanted: str) -> list[str]:
        return [call[3] for call in self.calls if call[3] in wanted]

    @property
    def billing(self) -> bool:
        """True if something was created after the last successful deletion."""
        verbs = self.verbs("create", "delete")
        return "create" in verbs and verbs[-1] == "create"


Cloud = Callable[..., Result]


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    """Runs a script of tpu/ in a simulated cloud that follows `script`."""
    (tmp_path / "bin").mkdir()
    _, _, program = Path(__file__).with_name("gcloud").read_text().partition("\n")
    # Started often: by this interpreter without its packages, not by the shim of a version manager.
    (tmp_path / "bin" / "gcloud").write_text(f"#!{sys.executable} -S\n{program}")
    (tmp_path / "bin" / "gcloud").chmod(0o755)

    def run(script: str, *flags: str, play: dict[str, Any] | None = None, **environment: str) -> Result:
        folder = tmp_path / "cloud"
        folder.mkdir(exist_ok=True)
        (folder / "script.json").write_text(json.dumps(play or {}))
        done = subprocess.run(
            ["bash", str(ROOT / "tpu" / f"{script}.sh"), "--name=pod", *flags],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=tmp_path,
            env={
                **os.environ,
                "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
                "FAKE_CLOUD": str(folder),
                "POLL_SECONDS": "0.05",
                **environment,
            },
        )
        calls = folder / "calls.txt"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return Result(done.returncode, done.stdout, done.stderr, [json.loads(line) for line in lines])

    return run


def watch(cloud: Cloud, *flags: str, **options: Any) -> Result:
    where = ("--project=p", "--zone=z", "--repo=https://git/r", "--commit=abc")
    return cloud("watch", "--type=v6e-8", *where, *flags, *STE, **options)


def test_shellcheck_finds_nothing() -> None:
    scripts = [str(p) for folder in ("tpu", "scripts", ".ci") for p in sorted((ROOT / folder).glob("*"))]
    scripts = [s for s in scripts if Path(s).suffix in (".sh", "") and Path(s).is_file()]
    shellcheck = str(Path(sys.executable).with_name("shellcheck"))
    subprocess.run([shellcheck, "-x", "-P", "SCRIPTDIR", *scripts], check=True, cwd=ROOT)


@pytest.mark.parametrize("script", ["create", "setup", "run", "watch", "delete"])
def test_help_prints_a_usage_and_calls_nothing(cloud: Cloud, script: str) -> None:
    done = cloud(script, "--help")
    assert (done.code, done.calls) == (0, [])
    assert f"tpu/{script}.sh" in done.out
    assert "--dry-run" in done.out


@pytest.mark.parametrize("kind", ["v6e-9", "v5litepod-2", "v6e-512", "v6e-"])
def test_a_slice_that_does_not_exist_is_refused(cloud: Cloud, kind: str) -> None:
    done = cloud("create", f"--type={kind}", "--dry-run")
    assert (done.code, done.calls) == (1, [])
    assert kind in done.err


def test_a_whole_run_creates_and_deletes(cloud: Cloud, tmp_path: Path) -> None:
    done = watch(cloud, play={"describe": ["WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]})
    assert done.code == 0, done.err
    assert done.verbs("create", "ssh", "delete") == ["create", "ssh", "ssh", "delete"]
    create, setup, run = [call for call in done.calls if call[3] in ("create", "ssh")]
    assert {"--spot", "--node-id=pod", "--accelerator-type=v6e-8", "--runtime-version=v2-alpha-tpuv6e"} < {
        *create
    }
    assert {"--project=p", "--zone=z", "--quiet"} < {*create} & {*setup} & {*run}
    assert any("; REPO=https://git/r COMMIT=abc" in flag for flag in setup)
    command = next(flag for flag in run if flag.startswith("--command="))
    numbers, _, command = command.removeprefix("--command=").partition("; ")
    assert numbers == "export STE_FIRST=0 STE_WORKERS=2"
    words = subprocess.run(["bash", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True).stdout
    assert words.splitlines() == ["bash", "ste_jax/tpu/worker.sh", *STE[1:]]
    (log,) = (tmp_path / "logs" / "pod").glob("*Z/2-run/pod/1.log")
    assert log.read_text() == "worker 1 works\nexit 0\n"
    assert "worker 0 works" in done.out
    assert "PROVISIONING" in done.err


def test_a_preempted_machine_is_made_again(cloud: Cloud) -> None:
    done = watch(cloud, play={"run": [[75, None], [None, None], [0, 0]]})
    assert done.code == 0, done.err
    assert done.verbs("create", "delete") == ["create", "delete"] * 3
    assert "worker 1 of pod ended with 76" in done.err


def test_run_again_starts_on_the_same_machine(cloud: Cloud) -> None:
    done = watch(cloud, play={"run": [[75, 1], [0, 0]]})
    assert done.code == 0, done.err
    assert done.verbs("create", "ssh", "delete") == ["create", "ssh", "ssh", "ssh", "ssh", "delete"]


def test_a_lost_connection_is_no_lost_machine(cloud: Cloud) -> None:
    done = watch(cloud, play={"run": [[None, 1], [0, 0]]}, FAKE_STILL_THERE="1")
    assert done.code == 0, done.err
    assert done.verbs("create", "delete") == ["create", "delete"]


def test_a_killed_process_restarts_with_those_that_lost_it(cloud: Cloud) -> None:
    done = watch(cloud, play={"run": [[76, 137], [0, 0]]})
    assert done.code == 0, done.err
    assert done.verbs("create", "ssh") == ["create", "ssh", "ssh", "ssh", "ssh"]


def test_a_failure_is_no_loss_of_the_others(cloud: Cloud) -> None:
    done = watch(cloud, play={"run": [[76, 3]]})
    assert done.code == 1
    assert "failed with code 3" in done.err


def test_a_failure_ends_it_and_deletes(cloud: Cloud) -> None:
    done = watch(cloud, play={"run": [[0, 3]]})
    assert done.code == 1
    assert "worker 1 of pod ended with 3" in done.err
    assert "failed with code 3; logs: logs/pod/2" in done.err
    assert done.verbs("create", "delete") == ["create", "delete"]


def test_missing_quota_fails_at_once(cloud: Cloud) -> None:
    done = watch(cloud, play={"create": ["quota"]})
    assert done.code == 1
    assert "Quota limit" in done.err
    assert "the request was refused" in done.err
    assert done.verbs("create", "ssh") == ["create"]


def test_a_request_that_fails_in_the_queue_is_made_again(cloud: Cloud) -> None:
    done = watch(cloud, play={"describe": ["WAITING_FOR_RESOURCES", "FAILED", "FAILED", "ACTIVE"]})
    assert done.code == 0, done.err
    assert done.verbs("create") == ["create"] * 2
    assert not done.billing


def test_a_worker_that_fails_setup_is_tried_twice_and_named(cloud: Cloud) -> None:
    done = watch(cloud, play={"setup": [[0, 1]]})
    assert done.code == 1
    assert ["-setup/pod/1.log)" in line for line in done.err.splitlines() if "worker 1 of pod" in line] == [
        True
    ] * 2
    assert done.verbs("create", "ssh", "delete") == ["create", "ssh", "ssh", "delete"]
    assert watch(cloud, play={"setup": [[0, 1], [0, 0]]}).code == 0


def test_a_deletion_is_retried_until_confirmed(cloud: Cloud) -> None:
    done = watch(cloud, play={"delete": ["busy", "busy", "ok"]})
    assert done.code == 0, done.err
    assert done.verbs("delete") == ["delete"] * 3
    stuck = watch(cloud, play={"delete": ["busy"]})
    assert stuck.code == 1
    assert "STILL EXISTS AND MAY BE BILLED" in stuck.err


def test_restarts_are_counted(cloud: Cloud) -> None:
    done = watch(cloud, "--restarts=2", play={"run": [[75, 75]]})
    assert done.code == 1
    assert "given up after 2 restarts" in done.err
    assert done.verbs("ssh") == ["ssh"] * 6
    assert not done.billing


def test_slices_are_nodes(cloud: Cloud) -> None:
    done = watch(cloud, "--slices=2", "--tier=reserved", "--reservation=mine", play={})
    assert done.code == 0, done.err
    create = next(call for call in done.calls if call[3] == "create")
    assert {"--node-count=2", "--node-prefix=pod", "--reservation=mine"} < {*create}
    assert "--spot" not in create
    runs = {
        call[4]: " ".join(call) for call in done.calls if call[3] == "ssh" and "worker.sh" in " ".join(call)
    }
    assert runs.keys() == {"pod-0", "pod-1"}
    assert "export STE_FIRST=0 STE_WORKERS=4;" in runs["pod-0"]
    assert "export STE_FIRST=2 STE_WORKERS=4;" in runs["pod-1"]


def test_interrupted_it_deletes(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "bin" / "sleep").write_text(
        '#!/bin/sh\n[ "$1" = 9 ] && kill -TERM $PPID\nexec /bin/sleep 0.01\n'
    )
    (tmp_path / "bin" / "sleep").chmod(0o755)
    done = watch(cloud, play={"describe": ["WAITING_FOR_RESOURCES"]}, POLL_SECONDS="9")
    assert done.code != 0
    assert done.verbs("create", "delete") == ["create", "delete"]
    again = cloud("create", "--type=v6e-8", play={"describe": ["PROVISIONING"]}, POLL_SECONDS="9")
    assert again.code != 0
    assert not again.billing


def occupy(tmp_path: Path, created: str = "theirs", *, gone: bool = False) -> None:
    """Puts a queued resource into the simulated cloud that no script created."""
    (tmp_path / "cloud").mkdir(exist_ok=True)
    theirs = {"nodes": ["pod"], "gone": gone, "created": created}
    (tmp_path / "cloud" / "state.json").write_text(json.dumps(theirs))


@pytest.mark.parametrize("state", ["ACTIVE", "WAITING_FOR_RESOURCES", "FAILED"])
@pytest.mark.parametrize("script", ["create", "watch", "delete"])
def test_a_taken_name_is_refused_and_left_alone(
    cloud: Cloud, tmp_path: Path, script: str, state: str
) -> None:
    occupy(tmp_path)
    done = cloud(script, "--type=v6e-8", "--repo=r", "--commit=c", *STE, play={"describe": [state]})
    assert done.code == 1
    assert done.verbs("create", "ssh", "delete") == []
    assert "pod" in done.err.splitlines()[-1]
    assert "left alone" in done.err


def test_a_name_taken_at_the_last_moment_is_left_alone(cloud: Cloud) -> None:
    for script in ("create", "watch"):
        done = cloud(script, "--type=v6e-8", "--repo=r", "--commit=c", *STE, play={"create": ["raced"]})
        assert done.code == 1
        assert done.verbs("ssh", "delete") == []
        assert "left alone" in done.err


@pytest.mark.parametrize("script", ["create", "watch"])
def test_a_name_taken_while_the_request_is_refused_is_left_alone(cloud: Cloud, script: str) -> None:
    play = {"create": ["quota_and_theirs"]}
    done = cloud(script, "--type=v6e-8", "--repo=r", "--commit=c", *STE, play=play)
    assert done.code == 1
    assert done.verbs("ssh", "delete") == []
    assert "the request was refused" in done.err


def test_a_request_whose_answer_was_lost_is_withdrawn(cloud: Cloud) -> None:
    done = cloud("create", "--type=v6e-8", play={"create": ["lost"]})
    assert done.code == 1
    assert done.verbs("create", "delete") == ["create", "delete"]


def test_adopted_machines_are_used_and_deleted(cloud: Cloud, tmp_path: Path) -> None:
    occupy(tmp_path)
    done = watch(cloud, "--adopt", play={"describe": ["PROVISIONING", "ACTIVE"]})
    assert done.code == 0, done.err
    assert done.verbs("create", "ssh", "delete") == ["ssh", "ssh", "delete"]


def test_machines_of_an_earlier_call_are_deleted_but_not_created_twice(cloud: Cloud, tmp_path: Path) -> None:
    assert cloud("create", "--type=v6e-8").code == 0
    again = cloud("create", "--type=v6e-8")
    assert (again.code, again.verbs("create", "delete")) == (1, ["create"])
    assert cloud("delete").verbs("create", "delete") == ["create", "delete"]
    assert cloud("create", "--type=v6e-8").code == 0
    # Somebody else deleted them since, and took the name.
    occupy(tmp_path)
    done = cloud("delete")
    assert (done.code, done.verbs("delete")) == (1, ["delete"])
    done = cloud("delete", "--adopt")
    assert (done.code, done.verbs("delete")) == (0, ["delete"] * 2)


@pytest.mark.parametrize("after_the_request", [False, True])
def test_a_call_that_was_killed_while_it_requested_proves_nothing(
    cloud: Cloud, tmp_path: Path, after_the_request: bool
) -> None:
    gcloud = tmp_path / "bin" / "gcloud"
    real = gcloud.rename(tmp_path / "bin" / "real")
    # Kills the shell that `create.sh` runs in, before or after the request reaches the cloud.
    before = f'"{real}" "$@"' if after_the_request else ":"
    gcloud.write_text(f"""#!/bin/bash
[ "$4" = create ] || exec "{real}" "$@"
{before}
kill -9 "$CREATE_PID"
""")
    gcloud.chmod(0o755)
    (tmp_path / "cloud").mkdir()
    create = ["bash", "-c", 'export CREATE_PID=$$; exec bash "$0" --name=pod --type=v6e-8']
    search = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    killed = subprocess.run(
        [*create, str(ROOT / "tpu" / "create.sh")],
        cwd=tmp_path,
        env={**os.environ, "PATH": search, "FAKE_CLOUD": str(tmp_path / "cloud")},
        capture_output=True,
    )
    assert killed.returncode == -9
    real.rename(gcloud)
    note = tmp_path / "logs" / "pod" / ".created"
    assert note.read_text() == "requested\n"
    if not after_the_request:
        assert cloud("delete").code == 0, "there is nothing to delete"
        assert not note.exists()
        note.write_text("requested\n")
        occupy(tmp_path)
    for script in ("delete", "create", "watch"):
        done = cloud(script, "--type=v6e-8", "--repo=r", "--commit=c", *STE, play={"describe": ["FAILED"]})
        assert done.code == 1
        assert "left alone" in done.err
    assert done.verbs("delete") == []
    adopted = cloud("delete", "--adopt")
    assert adopted.code == 0, adopted.err
    assert not note.exists()


@pytest.mark.parametrize(
    "note", ["", "\n", "requested\n", "reques", "theirs and more\n", "2026-01-01T00:00:00Z\n"]
)
def test_no_rest_of_a_note_makes_machines_ours(cloud: Cloud, tmp_path: Path, note: str) -> None:
    occupy(tmp_path)
    (tmp_path / "logs" / "pod").mkdir(parents=True)
    (tmp_path / "logs" / "pod" / ".created").write_text(note)
    done = cloud("delete")
    assert (done.code, done.verbs("delete")) == (1, [])
    assert "left alone" in done.err


def test_machines_that_take_the_name_while_we_wait_are_left_alone(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / "bin" / "sleep").write_text(
        "#!/bin/sh\n"
        """printf '{"nodes":["pod"],"gone":false,"created":"theirs"}' > "$FAKE_CLOUD/state.json"\n"""
        "exec /bin/sleep 0.01\n"
    )
    (tmp_path / "bin" / "sleep").chmod(0o755)
    done = cloud("create", "--type=v6e-8", play={"describe": ["PROVISIONING", "PROVISIONING", "ACTIVE"]})
    assert done.code == 1
    assert "left alone" in done.err
    assert done.verbs("create", "delete") == ["create"]


def test_the_rest_of_an_earlier_watch_makes_room(cloud: Cloud, tmp_path: Path) -> None:
    kept = watch(cloud, "--keep", "--restarts=0", play={"run": [[75, None]]})
    assert (kept.code, kept.verbs("delete")) == (1, [])
    done = watch(cloud, play={"run": [[0, 0]]})
    assert done.code == 0, done.err
    assert done.verbs("create", "delete") == ["create", "delete"] * 2


def test_a_name_taken_after_the_deletion_is_left_alone(cloud: Cloud) -> None:
    done = watch(cloud, play={"run": [[None, None], [0, 0]], "delete": ["taken"]})
    assert done.code == 1
    assert done.verbs("create", "delete") == ["create", "delete"]
    assert "left alone" in done.err


@pytest.mark.parametrize("answers", [["ACTIVE", "down"], ["ACTIVE", "down", "down", "ACTIVE"]])
def test_nothing_is_deleted_while_nobody_knows_whose_it_is(
    cloud: Cloud, tmp_path: Path, answers: list[str]
) -> None:
    assert cloud("create", "--type=v6e-8").code == 0
    (tmp_path / "cloud" / "describe.played").unlink()
    done = cloud("delete", play={"describe": answers})
    is_back = answers[-1] == "ACTIVE"
    assert (done.code, done.verbs("delete")) == ((0, ["delete"]) if is_back else (1, [])), done.err
    assert is_back or "STILL EXISTS AND MAY BE BILLED" in done.err


def test_a_dry_run_prints_everything_and_calls_nothing(cloud: Cloud) -> None:
    done = watch(cloud, "--dry-run")
    assert done.code == 0, done.err
    assert done.calls == []
    for part in (
        "queued-resources create pod",
        "queued-resources delete pod --force",
        "tpu-vm ssh pod",
        "worker.sh",
    ):
        assert part in done.err
    for script in ("create", "setup", "run", "delete"):
        done = cloud(script, "--type=v6e-8", "--repo=r", "--dry-run", *STE)
        assert (done.code, done.calls) == (0, []), done.err
        assert "+ gcloud compute tpus" in done.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--typ=v6e-8",), "unknown argument --typ=v6e-8"),
        (("--name=Pod!", "--type=v6e-8"), "--name must be"),
        (("--tier=cheap",), "--tier must be"),
        (("--slices=0",), "--slices must be"),
        ((), "--type is missing"),
        (("--type=tpu7x-8",), "unknown type tpu7x-8"),
    ],
)
def test_wrong_arguments_are_explained(cloud: Cloud, flags: tuple[str, ...], message: str) -> None:
    done = cloud("create", *flags)
    assert done.code == 1
    assert message in done.err
    assert done.verbs("create") == []


# ---- on the worker -----------------------------------------------------------


@pytest.fixture
def worker(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts worker.sh in a checkout, with a stand-in for the metadata server's answers."""
    (tmp_path / "repo" / "tpu").mkdir(parents=True)
    shutil.copy(ROOT / "tpu" / "worker.sh", tmp_path / "repo" / "tpu")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "curl").write_text(
        f'#!/bin/sh\ncat "{tmp_path}/${{6##*/}}" 2> /dev/null || exit 22\n'
    )
    (tmp_path / "bin" / "curl").chmod(0o755)

    def start(command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", str(tmp_path / "repo" / "tpu" / "worker.sh"), "bash", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "POLL_SECONDS": "0.05"},
        )

    return start


SAVES = "trap 'echo saved; exit 75' TERM; echo works; while :; do sleep 0.05; done"


def test_the_code_of_the_command_is_the_last_line(worker: Callable) -> None:
    assert worker("echo hello; exit 3").communicate(timeout=20)[0] == "hello\nexit 3\n"


@pytest.mark.parametrize(
    ("file", "notice"), [("preempted", "TRUE"), ("maintenance-event", "TERMINATE_ON_HOST")]
)
def test_a_notice_lets_the_run_save_its_work(
    worker: Callable, tmp_path: Path, file: str, notice: str
) -> None:
    (tmp_path / "preempted").write_text("FALSE")
    (tmp_path / "maintenance-event").write_text("NONE")
    process = worker(SAVES)
    assert process.stdout.readline() == "works\n"
    (tmp_path / file).write_text(notice)
    out, _ = process.communicate(timeout=20)
    assert out.startswith("this machine is about to be taken away")
    assert out.endswith("saved\nexit 75\n")


def test_sigterm_is_passed_on(worker: Callable) -> None:
    process = worker(SAVES)
    assert process.stdout.readline() == "works\n"
    process.terminate()
    assert process.communicate(timeout=20)[0] == "saved\nexit 75\n"


def test_what_an_earlier_start_left_is_stopped_first(worker: Callable) -> None:
    first = worker(SAVES)
    assert first.stdout.readline() == "works\n"
    second = worker("echo mine")
    assert second.communicate(timeout=20)[0].endswith("mine\nexit 0\n")
    assert first.communicate(timeout=20)[0] == "saved\nexit 75\n"


def test_a_process_that_only_has_the_id_of_an_earlier_start_is_left_alone(
    worker: Callable, tmp_path: Path
) -> None:
    running = tmp_path / "repo" / ".running"
    other = subprocess.Popen(["sleep", "60"])
    try:
        # As after a reboot, when another process has the id: with another start time, or with none.
        for content in (f"{other.pid} {'0' * 36} 1\n", f"{other.pid}\n", "broken\n", ""):
            running.write_text(content)
            assert worker("echo mine").communicate(timeout=20)[0] == "mine\nexit 0\n"
            assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.fixture
def setup_worker(tmp_path: Path) -> Callable[..., tuple[str, list[str]]]:
    """Runs worker_setup.sh; returns its output and what it ran as root, of which only chown is played."""
    home, mount, binaries = tmp_path / "home", tmp_path / "mnt", tmp_path / "bin"
    for folder in (home / ".local" / "bin", mount, binaries):
        folder.mkdir(parents=True)
    repository = tmp_path / "repository"
    git = ["git", "-C", str(repository), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "c"], check=True)
    stubs = {
        binaries / "sudo": f'echo "$*" >> {tmp_path}/root.txt',
        binaries / "mountpoint": "exit 1",
        binaries / "mount.nfs": "",
        binaries / "id": "echo 1000",
        home / ".local" / "bin" / "uv": 'mkdir -p .venv/bin; printf "#!/bin/sh\\n" > .venv/bin/python\n'
        "chmod +x .venv/bin/python",
    }

    def run(owner: int, repository: str = str(repository), commit: str = "HEAD") -> tuple[str, list[str]]:
        for path, text in {**stubs, binaries / "stat": f"echo {owner}"}.items():
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)
        script = (ROOT / "tpu" / "worker_setup.sh").read_text()
        done = subprocess.run(
            ["bash", "-c", f"REPO='{repository}' COMMIT={commit} NFS=10.0.0.2:/ste\n{script}"],
            capture_output=True,
            text=True,
            timeout=60,
            env={
                **os.environ,
                "HOME": str(home),
                "MOUNT": str(mount),
                "PATH": f"{binaries}:{os.environ['PATH']}",
            },
        )
        return done.stdout, (tmp_path / "root.txt").read_text().splitlines()

    return run


def test_a_new_share_is_given_to_the_user_and_nobody_else(setup_worker: Callable, tmp_path: Path) -> None:
    out, as_root = setup_worker(owner=0)
    assert out.endswith("\nexit 0\n")
    assert as_root[-1] == f"chown 1000:1000 {tmp_path / 'mnt'}"
    assert not any("chmod" in line for line in as_root)


def test_a_share_with_an_owner_is_left_as_it_is(setup_worker: Callable) -> None:
    out, as_root = setup_worker(owner=1000)
    assert out.endswith("\nexit 0\n")
    assert not any(line.startswith("chown") for line in as_root)


def test_an_archive_of_the_commit_reaches_the_workers(cloud: Cloud, tmp_path: Path) -> None:
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    where = ("--project=p", "--zone=z", "--code=tarball", "--slices=2")
    done = cloud("watch", "--type=v6e-8", *where, *STE)
    assert done.code == 0, done.err
    (setup,) = [call for call in done.calls if any("; REPO=" in flag for flag in call) and "pod-0" in call]
    assert any(f"; REPO='' COMMIT={commit.stdout.strip()}" in flag for flag in setup)
    for node in ("pod-0", "pod-1"):
        archive = tmp_path / "cloud" / "home" / node / ".ste_code.tar.gz"
        with tarfile.open(archive) as tar:
            assert {"README.md", "tpu/worker.sh", "ste_jax/cli.py"} < set(tar.getnames())


def test_a_token_reaches_the_workers_in_a_file_and_nothing_else(cloud: Cloud, tmp_path: Path) -> None:
    done = watch(cloud, HF_TOKEN="hf_a secret'$x")
    assert done.code == 0, done.err
    copied = tmp_path / "cloud" / "home" / "pod" / ".ste_hf_token"
    assert copied.read_text() == "hf_a secret'$x"
    assert copied.stat().st_mode & 0o077 == 0
    assert "secret" not in json.dumps(done.calls) + done.out + done.err
    (sent,) = (call[4] for call in done.calls if call[3] == "scp")
    assert not Path(sent).exists()
    assert not any("scp" in call for call in watch(cloud, HF_TOKEN="").calls[len(done.calls) :])


@pytest.mark.parametrize("code", ["", "zip"])
def test_another_way_to_send_code_is_refused(cloud: Cloud, code: str) -> None:
    done = cloud("setup", f"--code={code}", "--dry-run")
    assert (done.code, done.calls) == (1, [])
    assert "--code must be git or tarball" in done.err


def test_a_worker_unpacks_the_archive_and_keeps_its_environment(
    setup_worker: Callable, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / "ste_jax/.venv/bin").mkdir(parents=True)
    (home / "ste_jax/.venv/bin/python").write_text("#!/bin/sh\n")
    (home / "ste_jax/.venv/bin/python").chmod(0o755)
    (home / "ste_jax/old.py").write_text("")
    (tmp_path / "new.py").write_text("x = 1\n")
    with tarfile.open(home / ".ste_code.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "new.py", "new.py")
    (home / ".ste_hf_token").write_text("hf_x")
    out, _ = setup_worker(owner=1000, repository="", commit="abc")
    assert out.splitlines()[-2].endswith("at abc")
    assert out.endswith("\nexit 0\n")
    assert sorted(path.name for path in (home / "ste_jax").iterdir()) == [".venv", "new.py"]
    token = home / ".cache/huggingface/token"
    assert token.read_text() == "hf_x"
    assert token.stat().st_mode & 0o777 == 0o600
    assert not (home / ".ste_hf_token").exists()
