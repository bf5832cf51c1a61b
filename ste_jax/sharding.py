"""The device mesh, the logical axis names and the one table that maps the second to the first.

Every parameter and activation names its axes logically ("embed", "kv_heads", ...); a `Rules` table says
which mesh axis carries each. There is one table for training and one for decoding; nothing else in the
project names a mesh axis.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor")
MeshAxes: TypeAlias = str | tuple[str, ...] | None
AnyMesh: TypeAlias = jax.sharding.Mesh | jax.sharding.AbstractMesh


@dataclasses.dataclass(frozen=True)
class Rules:
    """Mesh axes of each logical axis; `None` is replicated.

    `batch` is the first axis of every activation (rows in training, groups in decoding); `embed` is the
    model axis of parameters, which activations never shard.
    """

    batch: MeshAxes = ("data", "fsdp")
    embed: MeshAxes = "fsdp"
    kv_heads: MeshAxes = "tensor"
    mlp: MeshAxes = "tensor"
    vocab: MeshAxes = "tensor"

    def spec(self, *names: str | None) -> PartitionSpec:
        """Returns the partition of an array whose axes have these logical names (None: replicated).

        Raises:
          ValueError: two axes of one array would lie on one mesh axis.
        """
        entries = [getattr(self, name) if name else None for name in names]
        used = [axis for entry in entries if entry for axis in ([entry] if isinstance(entry, str) else entry)]
        if len(used) != len(set(used)):
            raise ValueError(f"sharding rules put two of the axes {names} on one mesh axis: {entries}")
        return PartitionSpec(*entries)


TRAIN = Rules()
# Decoding reads every weight at every step: they are never gathered over fsdp, which only spreads groups.
DECODE = Rules(embed=None)


def make_mesh(shape: Sequence[int], devices: Sequence[Any] | None = None) -> jax.sharding.Mesh:
    """Returns the explicit mesh (data, fsdp, tensor) of `shape`; one axis may be -1: what is left of the
    devices. Of several TPU slices `data` is the axis that crosses from one to the next.

    Args:
      shape: sizes of data, fsdp and tensor.
      devices: to choose from; None: those of the run, of many hosts all of them.

    Raises:
      ValueError: the shape does not fit the number of devices, or `data` the number of slices.
    """
    sizes = _run_sizes(shape) if devices is None else mesh_sizes(shape, len(devices))
    devices = list(jax.devices() if devices is None else devices)
    placed = _place(sizes, devices[: math.prod(sizes)])
    return jax.sharding.Mesh(placed, MESH_AXES, axis_types=(AxisType.Explicit,) * len(MESH_AXES))


def decode_mesh(shape: Sequence[int]) -> jax.sharding.Mesh:
    """Returns the mesh that this process decodes on: of `shape`, or of many hosts its part of it.

    Each host decodes on its own devices, `tensor` of which hold a model; hosts that have fewer decode in
    replica groups of as few as hold one.

    Raises:
      ValueError: see `make_mesh`; or neither of `tensor` and the devices of a host divides the other.
    """
    if jax.process_count() == 1:
        return make_mesh(shape)
    return _replica_meshes(_run_sizes(shape)[-1])[jax.process_index()]


@functools.cache  # asked for every parameter
def _replica_meshes(tensor: int) -> list[jax.sharding.Mesh]:
    """Returns the mesh that each process decodes on."""
    groups = replica_groups(jax.devices(), tensor)
    meshes = [make_mesh((1, len(group) // tensor, tensor), group) for group in groups]
    return [meshes[process * len(groups) // jax.process_count()] for process in range(jax.process_count())]


def replica_groups(devices: Sequence[Any], tensor: int) -> list[list[Any]]:
    """Returns the devices of hosts that decode together: of one, or of neighbours that hold a model together.

    Raises:
      ValueError: they do not divide into such.
    """
    hosts = len({device.process_index for device in devices})
    here = len(devices) // hosts
    size = max(1, tensor // here)
    if max(here, tensor) % min(here, tensor) or hosts % size:
        raise ValueError(
            f"mesh: decoding shares a model between {tensor} devices, which {hosts} hosts of {here} do not "
            "divide into; change the last number of mesh"
        )
    return [[d for d in devices if d.process_index // size == group] for group in range(hosts // size)]


def for_decoding(array: jax.Array, mesh: jax.sharding.Mesh, spec: PartitionSpec) -> jax.Array:
    """Returns an array as `spec` lays it out on `mesh`, the `decode_mesh` of this process.

    All processes call it together: what others hold of the array comes over the network. `spec` must lay a
    whole copy on each of their meshes.
    """
    if jax.process_count() == 1:
        return jax.device_put(array, jax.NamedSharding(mesh, spec))
    meshes = dict.fromkeys(_replica_meshes(mesh.devices.shape[-1]))
    everywhere = jax.sharding.Mesh(
        np.concatenate([own.devices for own in meshes], axis=1), MESH_AXES, axis_types=mesh.axis_types
    )
    copies = jax.device_put(array, jax.NamedSharding(everywhere, spec))
    parts = [shard.data for shard in copies.addressable_shards]
    return jax.make_array_from_single_device_arrays(array.shape, jax.NamedSharding(mesh, spec), parts)


def place(array: np.ndarray, mesh: jax.sharding.Mesh, spec: PartitionSpec) -> jax.Array:
    """Puts an array that every process of `mesh` has on its devices."""
    sharding = jax.NamedSharding(mesh, spec)
    if not mesh.is_multi_process:
        return jax.device_put(array, sharding)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def is_mesh(shape: Sequence[int]) -> bool:
    """Says whether these are three sizes, at most one of them -1."""
    return len(shape) == len(MESH_AXES) and shape.count(-1) <= 1 and all(s >= 1 or s == -1 for s in shape)


def mesh_sizes(shape: Sequence[int], devices: int) -> tuple[int, ...]:
    """Returns the sizes of a mesh over a number of devices, -1 filled in.

    Raises:
      ValueError: the shape is not one, wants more devices, or -1 would leave some of them over.
    """
    if not is_mesh(shape):
        raise ValueError(f"mesh: wants three sizes {MESH_AXES}, at most one of them -1, not {tuple(shape)}")
    known = math.prod(size for size in shape if size != -1)
    if known > devices:
        raise ValueError(f"mesh: {tuple(shape)} needs {known} devices, {devices} are here")
    if -1 in shape and devices % known:
        raise ValueError(
            f"mesh: the sizes beside the -1 of {tuple(shape)} make {known}, which does not divide the "
            f"{devices} devices; choose others"
        )
    return tuple(devices // known if size == -1 else size for size in shape)


def whole_mesh_sizes(shape: Sequence[int], devices: int, where: str) -> tuple[int, ...]:
    """Returns the sizes as `mesh_sizes` does, of a mesh that leaves no device idle.

    Raises:
      ValueError: see `mesh_sizes`; or it leaves some of the devices of `where` idle.
    """
    sizes = mesh_sizes(shape, devices)
    if math.prod(sizes) < devices:
        raise ValueError(
            f"mesh: {sizes} uses {math.prod(sizes)} of the {devices} devices of {where}; set mesh to sizes "
            f"whose product is {devices}, or one of them to -1 (train_mesh likewise)"
        )
    return sizes


def _run_sizes(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the sizes of a mesh over the devices of the run; each of many hosts must have a part in it."""
    processes = jax.process_count()
    if processes == 1:
        return mesh_sizes(shape, jax.device_count())
    return whole_mesh_sizes(shape, jax.device_count(), f"{processes} hosts")


def _place(sizes: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
    """Lays devices out so that neighbours on an axis of the mesh are neighbours on the chips' network."""
    slices = len({getattr(device, "slice_index", None) for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(tuple(sizes), devices, allow_split_physical_axes=True)
    data, *inner = sizes
    if data % slices:
        raise ValueError(
            f"mesh: {slices} slices, but a data axis of {data}; make it a multiple of {slices}: only data "
            "may cross the network between slices"
        )
    return mesh_utils.create_hybrid_device_mesh(
        (data // slices, *inner), (slices, 1, 1), devices, allow_split_physical_axes=True
    )
