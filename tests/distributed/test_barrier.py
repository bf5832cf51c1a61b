"""Barriers of real processes: few calls to the service, and no keys left behind."""

import json
from typing import Any

import pytest

from tests.pods import Pod, python, same

WORKER = """
import json, time
from ste_jax.distributed import monitor, process

class Counting:
    def __init__(self, service):
        self.service, self.calls = service, 0

    def __getattr__(self, name):
        self.calls += 1
        return getattr(self.service, name)

with monitor.connected(monitor.read_process_env()):
    service = Counting(process._process.service)
    process.init_process(process.index(), process.count(), service, 100)
    exchanged = [process.exchange(process.index() + i) for i in range(5)]
    process.barrier()
    before = service.calls
    if process.index() == 1:
        time.sleep(6)
    process.barrier()
    calls = service.calls - before
    keys = [key for key, _ in service.key_value_dir_get("ste/barrier/")]
    process.barrier()

    def compute():
        time.sleep(1)
        return f"by {process.index()}"

    once = [process.compute_once(key, compute) for key in ("a", "b", "a")]
print("FOUND " + json.dumps([exchanged, calls, keys, once]))
"""


@pytest.fixture(scope="module")
def found() -> list[list[Any]]:
    with Pod(python(WORKER), workers=2, devices=1) as pod:
        ends = pod.ends()
    same(ends, 0)
    lines = [line for end in ends for line in end.out.splitlines() if line.startswith("FOUND ")]
    return [json.loads(line.removeprefix("FOUND ")) for line in lines]


def test_calls_and_keys_of_barriers(found: list[list[Any]]) -> None:
    assert len(found) == 2
    for exchanged, calls, keys, _ in found:
        assert exchanged == [[i, i + 1] for i in range(5)]
        # Five polls per second would be more than 30 calls.
        assert calls < 25
        # The seventh barrier, and the next one if the other process has reached it.
        assert {key.split("/")[2] for key in keys} <= {"7", "8"}


def test_a_value_is_computed_by_one_process(found: list[list[Any]]) -> None:
    (first, second) = (once for *_, once in found)
    assert first == second
    assert first[0] == first[2] in ("by 0", "by 1")
