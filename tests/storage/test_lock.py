"""Locks of outputs: held by one object at a time, also against other processes, and never left behind."""

import subprocess
import sys
from pathlib import Path

from ste_jax.storage.lock import hold_lock
from tests.errors import raises

HOLD = """
import sys
from pathlib import Path
from ste_jax.storage.lock import hold_lock
class Owner: pass
owner = Owner()
hold_lock(owner, Path(sys.argv[1]), "it")
print("held", flush=True)
sys.stdin.read()
"""


class Owner:
    pass


def test_the_second_is_refused_by_name_until_the_first_releases(tmp_path: Path) -> None:
    path, first, second = tmp_path / "new" / ".lock", Owner(), Owner()
    release = hold_lock(first, path, "the model")
    with raises("output_locked", "the model"):
        hold_lock(second, path, "the model")
    release()
    assert not path.exists()
    third = Owner()
    hold_lock(third, path, "the model")
    del third  # the end of the owner releases it as well
    hold_lock(first, path, "the model")


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with raises("output_locked", "it"):
            hold_lock(Owner(), path, "it")
        process.kill()
    assert path.exists()
    owner = Owner()
    hold_lock(owner, path, "it")()
    assert not path.exists()
