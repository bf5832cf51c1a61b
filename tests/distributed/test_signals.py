"""SIGTERM in the first moments of a command and in its last ones: never the end by the signal itself."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BEGIN = "import os; os.write(1, b'begins'); from ste_jax.cli import {entry}; {entry}()"
# An object that is deleted after the interpreter has given up the handlers of signals.
END = """
import os, time

class Last:
    def __del__(self, write=os.write, sleep=time.sleep):
        write(1, b"ends\\n")
        sleep(0.3)

last = Last()
from ste_jax.cli import main
main()
"""


def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    pipe, command = subprocess.PIPE, [sys.executable, "-c", program, *arguments]
    # Without the mark the program starts itself again, as an installed `ste` does.
    environment = {name: value for name, value in os.environ.items() if name != "STE_RESTARTED"}
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, env=environment)


@pytest.mark.parametrize(("entry", "command"), [("main", "status"), ("main", "run"), ("command", "run")])
def test_at_the_start(tmp_path: Path, entry: str, command: str) -> None:
    process = start(BEGIN.format(entry=entry), command, "--config=quickstart", f"--workdir={tmp_path / 'w'}")
    assert process.stdout is not None
    assert process.stdout.read(6) == b"begins"
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert err.startswith(b"ste: stopped")
    assert not (tmp_path / "w").exists()


def test_at_the_end() -> None:
    process = start(END, "--version")
    assert process.stdout is not None
    while not (line := process.stdout.readline()).endswith(b"ends\n") and line:
        pass
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")


def test_a_signal_during_the_restart_with_options_is_not_lost() -> None:
    program = (
        "import os, signal; from ste_jax.distributed import preemption; preemption.block_signal(); "
        "os.kill(os.getpid(), signal.SIGTERM); os.execv(os.sys.executable, [os.sys.executable, '-c', "
        "'from ste_jax.cli import main; main()', '--version'])"
    )
    process = start(program)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (75, b""), err
