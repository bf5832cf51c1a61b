"""The device mesh, and the tables that map logical axis names to its axes.

Parameters and activations name their axes logically ("embed", "kv_heads", ...); a `Rules` table maps each
name to mesh axes. There is a table for training and a table for decoding; nothing else in the project names
a mesh axis.
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

from ste_jax.errors import SteError

MESH_AXES = ("data", "fsdp", "tensor")
MeshAxes: TypeAlias = str | tuple[str, ...] | None
AnyMesh: TypeAlias = jax.sharding.Mesh | jax.sharding.AbstractMesh


@dataclasses.dataclass(frozen=True)
class Rules:
    """Mesh axes of each logical axis; `None` is replicated.

    Attributes:
      batch: First axis of every activation: rows in training, slots in decoding.
      embed: Model axis of parameters; activations do not shard it.
      kv_heads: Key/value heads.
      mlp: Hidden axis of the feed-forward layers.
      vocab: Vocabulary.
    """

    batch: MeshAxes = ("data", "fsdp")
    embed: MeshAxes = "fsdp"
    kv_heads: MeshAxes = "tensor"
    mlp: MeshAxes = "tensor"
    vocab: MeshAxes = "tensor"

    def spec(self, *names: str | None) -> PartitionSpec:
        """Returns the partition of an array whose axes have these logical names (None: replicated).

        Raises:
          ValueError: Two axes of the array would be sharded over the same mesh axis.
        """
        entries = [getattr(self, name) if name else None for name in names]
        used = [axis for entry in entries if entry for axis in ([entry] if isinstance(entry, str) else entry)]
        if len(used) != len(set(used)):
            raise ValueError(f"sharding rules put two of the axes {names} on one mesh axis: {entries}")
        return PartitionSpec(*entries)


TRAIN = Rules()
# Decoding reads all weights in every step, so they are not sharded over fsdp, which divides the slots alone.
DECODE = Rules(embed=None)


def make_mesh(shape: Sequence[int], devices: Sequence[Any] | None = None) -> jax.sharding.Mesh:
    """Returns an explicit mesh (data, fsdp, tensor). With several TPU slices, `data` spans the slices.

    Args:
      shape: Sizes of data, fsdp and tensor; one of them may be -1, which uses all remaining devices.
      devices: Devices to choose from; None uses all devices of the run.

    Raises:
      SteError: The shape does not fit the number of devices, or `data` does not fit the number of slices.
    """
    sizes = _run_sizes(shape) if devices is None else mesh_sizes(shape, len(devices))
    devices = list(jax.devices() if devices is None else devices)
    grid = _arrange_devices(sizes, devices[: math.prod(sizes)])
    return jax.sharding.Mesh(grid, MESH_AXES, axis_types=(AxisType.Explicit,) * len(MESH_AXES))


def decode_mesh(shape: Sequence[int]) -> jax.sharding.Mesh:
    """Returns the mesh that this process decodes on: of `shape`, or its part of it with several hosts.

    Each host decodes on its own devices, every `tensor` of which hold a copy of the model. Hosts with fewer
    devices form replica groups of as few hosts as hold a copy.

    Raises:
      SteError: See `make_mesh`; or neither of `tensor` and the number of devices of a host divides the other.
    """
    if jax.process_count() == 1:
        return make_mesh(shape)
    return replica_meshes(_run_sizes(shape)[-1])[jax.process_index()]


@functools.cache  # called for every parameter
def replica_meshes(tensor: int) -> list[jax.sharding.Mesh]:
    """Returns the mesh that each process decodes on."""
    groups = replica_groups(jax.devices(), tensor)
    meshes = [make_mesh((1, len(group) // tensor, tensor), group) for group in groups]
    return [meshes[process * len(groups) // jax.process_count()] for process in range(jax.process_count())]


def replica_groups(devices: Sequence[Any], tensor: int) -> list[list[Any]]:
    """Returns the devices of each replica group: of one host, or of adjacent hosts that share a model.

    Raises:
      SteError: The hosts cannot be divided into such groups.
    """
    hosts = len({device.process_index for device in devices})
    per_host = len(devices) // hosts
    size = max(1, tensor // per_host)
    if max(per_host, tensor) % min(per_host, tensor) or hosts % size:
        raise SteError(
            "mesh_invalid",
            f"mesh: decoding shards a model over {tensor} devices, but {hosts} hosts of {per_host} devices "
            "cannot be divided into groups of that size; change the last number of mesh",
        )
    return [[d for d in devices if d.process_index // size == group] for group in range(hosts // size)]


def put_on_mesh(array: np.ndarray, mesh: jax.sharding.Mesh, spec: PartitionSpec) -> jax.Array:
    """Returns an array of any shape and dtype on a mesh, all of which every process of the mesh passes."""
    sharding = jax.NamedSharding(mesh, spec)
    if not mesh.is_multi_process:
        return jax.device_put(array, sharding)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def is_mesh(shape: Sequence[int]) -> bool:
    """Returns True if `shape` has three positive sizes, at most one of which may be -1 instead."""
    return len(shape) == len(MESH_AXES) and shape.count(-1) <= 1 and all(s >= 1 or s == -1 for s in shape)


def mesh_sizes(shape: Sequence[int], devices: int) -> tuple[int, ...]:
    """Returns the sizes of a mesh over a number of devices, with -1 replaced.

    Raises:
      SteError: The shape is malformed, needs more devices, or -1 would leave devices unused.
    """
    if not is_mesh(shape):
        raise SteError(
            "mesh_invalid",
            f"mesh: expected three sizes {MESH_AXES}, at most one of them -1, not {tuple(shape)}",
        )
    known = math.prod(size for size in shape if size != -1)
    if known > devices:
        raise SteError("mesh_invalid", f"mesh: {tuple(shape)} needs {known} devices, but there are {devices}")
    if -1 in shape and devices % known:
        raise SteError(
            "mesh_invalid",
            f"mesh: the sizes of {tuple(shape)} other than -1 have the product {known}, which does not "
            f"divide the {devices} devices",
        )
    return tuple(devices // known if size == -1 else size for size in shape)


def whole_mesh_sizes(shape: Sequence[int], devices: int, where: str) -> tuple[int, ...]:
    """Returns the sizes of a mesh that uses all devices.

    Args:
      shape: See `mesh_sizes`.
      devices: Number of devices.
      where: Name of the devices in error messages.

    Raises:
      SteError: See `mesh_sizes`; or the mesh leaves devices idle.
    """
    sizes = mesh_sizes(shape, devices)
    if math.prod(sizes) < devices:
        raise SteError(
            "mesh_invalid",
            f"mesh: {sizes} uses {math.prod(sizes)} of the {devices} devices of {where}; set mesh to sizes "
            f"whose product is {devices}, or one of them to -1 (train_mesh likewise)",
        )
    return sizes


def _run_sizes(shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the sizes of a mesh over the devices of the run, all of which several hosts must use."""
    processes = jax.process_count()
    if processes == 1:
        return mesh_sizes(shape, jax.device_count())
    return whole_mesh_sizes(shape, jax.device_count(), f"{processes} hosts")


def _arrange_devices(sizes: Sequence[int], devices: Sequence[Any]) -> np.ndarray:
    """Returns the devices as an array in which neighbors along an axis are neighbors on the chip network."""
    slices = len({getattr(device, "slice_index", None) for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(tuple(sizes), devices, allow_split_physical_axes=True)
    data, *inner = sizes
    if data % slices:
        raise SteError(
            "mesh_invalid",
            f"mesh: {slices} slices, but a data axis of {data}; make it a multiple of {slices}: only data "
            "may cross the network between slices",
        )
    return mesh_utils.create_hybrid_device_mesh(
        (data // slices, *inner), (slices, 1, 1), devices, allow_split_physical_axes=True
    )
