import math

import numpy as np
import pytest

from ste_jax.plan.chips import CHIPS
from ste_jax.plan.topology import parse_topology
from ste_jax.sharding import make_mesh, replica_groups
from tests.errors import raises


@pytest.mark.parametrize(
    ("name", "canonical", "chips", "devices", "shape"),
    [
        ("v6e-8", "v6e-8", 8, 8, "v6e:2x4"),
        ("v5e-16", "v5e-16", 16, 16, "v5e:4x4"),
        ("v5litepod-16", "v5e-16", 16, 16, "v5e:4x4"),
        ("v4-8", "v4-8", 4, 4, "v4:2x2x1"),
        ("v4-8192", "v4-8192", 4096, 4096, "v4:16x16x16"),
        ("v5p-8", "v5p-8", 4, 4, "v5p:2x2x1"),
        ("V5P-128", "v5p-128", 64, 64, "v5p:4x4x4"),
        ("tpu7x-128", "tpu7x-128", 64, 128, "tpu7x:4x4x4"),
        ("2xv5p-128", "2xv5p-128", 128, 128, "v5p:4x4x4"),
        ("1xv6e-256", "v6e-256", 256, 256, "v6e:16x16"),
    ],
)
def test_names_of_slices(name, canonical, chips, devices, shape):
    topology = parse_topology(name)
    assert (topology.name, topology.chips, topology.devices) == (canonical, chips, devices)
    assert topology.compiler_name == shape


def test_shapes_hold_as_many_chips_as_they_say():
    for chip in CHIPS.values():
        for chips, shape in chip.shapes.items():
            assert math.prod(int(side) for side in shape.split("x")) == chips


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v6e-12", "nearest sizes: v6e-4, v6e-8, v6e-16, v6e-32"),
        ("v6e-512", "counts chips, not cores: v6e-256 has 256 chips"),
        ("v5p-9", "cores, 2 per chip"),
        ("v5p-4", "4 chips are v5p-8"),
        ("v5p-192", "192 chips are v5p-384"),
        ("tpu7x-18433", "tpu7x-18432"),
        ("tpu", "v4, v5e, v5p, v6e, tpu7x"),
        ("v5p", "2xv5p-128 for two slices"),
        ("v3-8", "v4, v5e, v5p, v6e, tpu7x"),
        ("0xv5p-128", "'0xv5p-128'"),
    ],
)
def test_slices_that_do_not_exist(name, message):
    with raises("topology_unknown", message):
        parse_topology(name)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("v6e-64", (1, 16, 4)),  # no side of 8 x 8 chips holds 16
        ("v5p-32", (1, 16, 1)),
        ("v4-64", (1, 4, 8)),
        ("tpu7x-128", (1, -1, 8)),
        ("2xv5p-64", (2, 4, 8)),
    ],
)
def test_meshes_lie_on_slices(name, sizes):
    pytest.importorskip("libtpu")
    topology = parse_topology(name)
    devices = topology.describe()
    assert len(devices) == topology.devices
    mesh = make_mesh(sizes, devices)
    assert mesh.size == topology.devices
    for index in range(mesh.shape["data"]):
        slices = {getattr(device, "slice_index", None) for device in mesh.devices[index].flat}
        assert len(slices) == 1


def test_only_data_crosses_slices():
    pytest.importorskip("libtpu")
    with raises("mesh_invalid", "2 slices"):
        make_mesh((1, 64, 1), parse_topology("2xv5p-64").describe())


@pytest.mark.parametrize("name", ["v5e-16", "v6e-64", "v5p-32", "2xv5p-64"])
def test_hosts_that_hold_a_model_together_are_neighbours(name):
    pytest.importorskip("libtpu")
    devices = parse_topology(name).describe()
    for group in replica_groups(devices, 8):
        places = np.array([device.coords for device in group])
        assert len(group) == 8 == math.prod(np.ptp(places, axis=0) + 1), "not a box of the chips' network"
        assert len({getattr(device, "slice_index", 0) for device in group}) == 1
        assert make_mesh((1, 1, 8), group).size == 8
    assert [len(group) for group in replica_groups(devices, 4)] == [4] * (len(devices) // 4)
    with raises("mesh_invalid", "6 devices"):
        replica_groups(devices, 6)
