"""The options of glibc and XLA, seen from processes that were started with them."""

import importlib.util
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from ste_jax import options

# Prints the options of a process, how often it began, and the page faults of a program with 128 MiB of
# intermediate values, after its first call.
PROGRAM = """
import json, os, resource, sys
print("begins", file=sys.stderr)
if sys.argv[1] == "changes": os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
from ste_jax import options
if sys.argv[1] == "debugged": sys.settrace(lambda *_: None)
if sys.argv[1] != "never": options.restart_with_options()
import jax, jax.numpy as jnp
work = jax.jit(lambda x: jnp.sum(jnp.sort(jnp.cumsum(jnp.broadcast_to(x, (4096, 8192)), axis=0), axis=1)))
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work(jnp.arange(8192.0)).block_until_ready()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
names = ("GLIBC_TUNABLES", "XLA_FLAGS")
print(json.dumps({"options": [os.environ.get(n) for n in names], "faults": [faults() for _ in range(2)][1]}))
"""
TUNABLES, WIDE = "glibc.malloc.hugetlb=1", "--xla_cpu_prefer_vector_width=512"


def run(how: str, **given: str) -> tuple[dict, int]:
    env = {k: v for k, v in os.environ.items() if k not in ("GLIBC_TUNABLES", "XLA_FLAGS")}
    env |= {"JAX_PLATFORMS": "cpu", **given}
    command = [sys.executable, "-c", PROGRAM, how]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout), done.stderr.count("begins")


def test_a_process_starts_again_once():
    found, begun = run("begin")
    assert (found["options"], begun) == ([TUNABLES, WIDE], 2)


def test_options_of_the_user_stay():
    given = {
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    found, begun = run("begin", **given)
    assert found["options"] == [given["GLIBC_TUNABLES"], f"{given['XLA_FLAGS']} {WIDE}"]
    assert begun == 1  # XLA reads its options when JAX is loaded
    assert run("begin", GLIBC_TUNABLES=TUNABLES, XLA_FLAGS=WIDE)[1] == 1


def test_a_debugger_keeps_its_process():
    found, begun = run("debugged")
    assert (found["options"], begun) == ([None, WIDE], 1)


def test_a_file_of_flags_stays(tmp_path):
    flags = tmp_path / "flags"
    flags.write_text("--xla_force_host_platform_device_count=2")
    assert run("begin", XLA_FLAGS=str(flags))[0]["options"] == [TUNABLES, str(flags)]


def test_a_program_that_sets_flags_itself_starts_again_once():
    assert run("changes")[1] == 2


def test_huge_pages_spare_page_faults():
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    libc, version = platform.libc_ver()
    if libc != "glibc" or tuple(map(int, version.split("."))) < (2, 35):
        pytest.skip("the option is that of glibc 2.35 and later")
    if not setting.exists() or "[madvise]" not in setting.read_text():
        pytest.skip("huge pages are for all here, or for none")
    plain, huge = run("never")[0]["faults"], run("begin")[0]["faults"]
    assert plain > 30_000  # 128 MiB in pages of 4 KiB are 32,768
    assert huge < plain / 4


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs libtpu")
@pytest.mark.skipif(any(Path("/dev").glob("accel*")) or Path("/dev/vfio").exists(), reason="has a TPU")
@pytest.mark.parametrize("given", [None, "cpu"])
def test_no_tpu_is_looked_for_where_there_is_none(given: str | None) -> None:
    """libtpu writes errors to stderr when it finds none."""
    program = (
        "from ste_jax import options; options.choose_platform(); import jax; print(jax.devices()[0].platform)"
    )
    env = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    env |= {"JAX_PLATFORMS": given} if given else {}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=120)
    assert (done.stdout, done.stderr) == ("cpu\n", "")


def test_a_platform_of_the_user_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "tpu,cpu")
    options.choose_platform()
    assert os.environ["JAX_PLATFORMS"] == "tpu,cpu"
