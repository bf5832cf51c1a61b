"""Work divides by the runtime's process index, which on a TPU need not be the distributed id."""

import json

import pytest

from tests.pods import Pod, python, same

# The runtime of a TPU numbers its processes by the slice; the CPU runtime takes the number from this field.
PERMUTED = """
import json, sys
import jax
from jax._src import distributed
from ste_jax.distributed import monitor, process

with monitor.connected(monitor.read_process_env()):
    distributed.global_state.process_id = process.count() - 1 - process.index()
    from ste_jax.sharding import decode_mesh
    found = {"distributed": process.index(), "runtime": jax.process_index()}
    found["distributed_ids"] = process.distributed_ids()
    for tensor in (1, 2):
        group = process.ReplicaGroup(decode_mesh((1, -1, tensor)))
        ids = [str(i) for i in range(200)] if group.is_leader else []
        found[f"stores_{tensor}"] = [i for i in ids if group.is_assigned(i)]
    print("FOUND " + json.dumps(found))
"""


@pytest.fixture(scope="module")
def found() -> list[dict]:
    with Pod(python(PERMUTED), workers=4, devices=1) as pod:
        ends = pod.ends()
    same(ends, 0)
    lines = [line for end in ends for line in end.out.splitlines() if line.startswith("FOUND ")]
    return [json.loads(line.removeprefix("FOUND ")) for line in lines]


def test_the_two_numbers_differ(found: list[dict]) -> None:
    assert [(f["distributed"], f["runtime"]) for f in found] == [(0, 3), (1, 2), (2, 1), (3, 0)]


@pytest.mark.parametrize("tensor", [1, 2])
def test_every_request_is_stored_by_one_process(found: list[dict], tensor: int) -> None:
    stored = [i for f in found for i in f[f"stores_{tensor}"]]
    assert sorted(stored, key=int) == [str(i) for i in range(200)]
    assert sum(bool(f[f"stores_{tensor}"]) for f in found) == 4 // tensor


def test_the_map_from_runtime_to_distributed_ids(found: list[dict]) -> None:
    assert [f["distributed_ids"] for f in found] == [[3, 2, 1, 0]] * 4
