"""The options that a process starts itself again with, seen from processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

# Prints the options a process has, how often it began, and the page faults of a program with 256 MiB of
# intermediate values, after its first call.
PROGRAM = """
import json, os, resource, sys
print("begins", file=sys.stderr)
if sys.argv[1] == "other": sys.argv = ["ste", "run"]
from ste_jax import options
if sys.argv[1] != "never": options.begin()
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
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout), done.stderr.count("begins")


def test_a_process_begins_again_once():
    found, begun = run("begin")
    assert (found["options"], begun) == ([TUNABLES, WIDE], 2)


def test_what_the_user_says_stays():
    given = {
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=0",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    found, begun = run("begin", **given)
    assert found["options"] == [given["GLIBC_TUNABLES"], f"{given['XLA_FLAGS']} {WIDE}"]
    assert begun == 2
    assert run("begin", GLIBC_TUNABLES=TUNABLES, XLA_FLAGS=WIDE)[1] == 1


def test_a_caller_with_other_arguments_is_not_started_again():
    found, begun = run("other")
    assert (found["options"], begun) == ([None, None], 1)


def test_huge_pages_spare_page_faults():
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    can = setting.exists() and "[never]" not in setting.read_text()
    plain, huge = run("never")[0]["faults"], run("begin")[0]["faults"]
    # 128 MiB in pages of 4 KiB are 32,768.
    assert huge < plain / 4 if can else huge < 1.5 * plain
