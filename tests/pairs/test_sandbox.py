"""What a confined program cannot do. Each one runs in a real process of its own."""

import os
import subprocess
import sys

import pytest

from ste_jax.pairs import sandbox
from ste_jax.pairs.sandbox import Limits, run

pytestmark = pytest.mark.skipif(
    sandbox.unavailable() is not None, reason=f"no sandbox: {sandbox.unavailable()}"
)
SHORT = Limits(seconds=3, cpu_seconds=1)


@pytest.mark.parametrize(
    "program",
    [
        "",
        "assert 1 + 1 == 2",
        "import re, math, collections, heapq, itertools, datetime, decimal",
        "assert len('ä€') == 2",
    ],
)
def test_programs_that_reach_their_end(program) -> None:
    assert run(program) == "passed"


@pytest.mark.parametrize(
    "program",
    [
        "assert 1 + 1 == 3",
        "def",
        "raise SystemExit(0)",
        "raise SystemExit(1)",
        "import os; os._exit(0)",
        "import os; os.abort()",
        "import numpy",
        "x = '\0'",
    ],
)
def test_programs_that_do_not(program) -> None:
    assert run(program) == "failed"


@pytest.mark.parametrize(
    "program",
    ["while True: pass", "import time; time.sleep(60)", "import os, time; os.setsid(); time.sleep(60)"],
)
def test_endless_programs_are_killed(program) -> None:
    assert run(program, SHORT) == "timeout"


FORBIDDEN = {
    "fork": "import os; os.fork()",
    "fork bomb": "import os\nwhile True: os.fork()",
    "thread": "import threading; threading.Thread(target=print).start()",
    "program": "import subprocess; subprocess.run(['/bin/true'])",
    "write": "open('x', 'w').write('x')",
    "create": "open('x', 'w')",
    "write elsewhere": "open('/tmp/x', 'w')",
    "folder": "import os; os.mkdir('x')",
    "remove": "import os; os.unlink(os.__file__)",
    "change": "import os; os.chmod(os.__file__, 0)",
    "connect": "import socket; socket.create_connection(('1.1.1.1', 53), timeout=2)",
    "loopback": "import socket; socket.create_connection(('127.0.0.1', 22), timeout=2)",
    "resolve": "import socket; socket.gethostbyname('example.org')",
    "environment": "import os; assert os.environ or os.getenv('PATH')",
    "memory": "x = bytearray(10**10)",
    "accounts": "open('/etc/passwd')",
    "home": f"import os; os.listdir({os.path.expanduser('~')!r} + '/.ssh')",
    "processes": "import os; os.listdir('/proc')",
    "kill": "import os; os.kill(os.getppid() or -1, 9)",
    "devices": "open('/dev/zero')",
    "root": "import os; os.chroot('/work')",
    "namespace": "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "superuser": "import os; os.setuid(0); assert os.getuid() == 0",
    "limits": "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (9, 9))",
    "many files": "files = [open(__import__('os').__file__) for _ in range(100)]",
}


@pytest.mark.parametrize("program", FORBIDDEN.values(), ids=FORBIDDEN)
def test_what_is_forbidden_fails(program) -> None:
    assert run(program, SHORT) == "failed"


def test_the_working_folder_is_empty_and_output_goes_nowhere(capfd) -> None:
    program = """
import os, sys
assert os.listdir(".") == [] and not os.environ and os.getpid() == 1 and sys.flags.no_site
assert sys.stdin.read() == ""
for _ in range(10**5):
    sys.stdout.write("x" * 1000)
    sys.stderr.write("x" * 10)
"""
    assert run(program) == "passed"
    assert capfd.readouterr() == ("", "")


def test_a_flood_where_the_end_is_reported_is_no_end() -> None:
    assert run("import os\nwhile True: os.write(4, b'x' * 1000)", SHORT) == "timeout"
    assert run("import os; os.write(4, b'passed')") == "failed"


def test_sets_have_the_same_order_in_each_run() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", "print(list({'a', 'b', 'c', 'd', 'e'}))"],
        env={"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert run(f"assert list({{'a', 'b', 'c', 'd', 'e'}}) == {shown}") == "passed"


def test_this_process_and_its_folder_stay_as_they_are(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("import sys; sys.modules.clear(); X = 1")
    assert not any(tmp_path.iterdir())
    assert "X" not in globals()
