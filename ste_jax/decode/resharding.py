"""Resharding of a model from the layout of training to that of decoding."""

import jax
import numpy as np
from jax.sharding import PartitionSpec

from ste_jax.models.llama import Llama, parameter_table
from ste_jax.sharding import DECODE, MESH_AXES, Rules, replica_meshes


def reshard_model(model: Llama, mesh: jax.sharding.Mesh, dtype: str, *, rules: Rules = DECODE) -> Llama:
    """Returns a copy of a model with adapters merged, under other rules, on another mesh, in another dtype.

    Arrays that have the requested layout and dtype already are shared with the model. All processes call it
    together.

    Args:
      model: Model on the mesh of training.
      mesh: The `decode_mesh` of this process.
      dtype: Dtype of the parameters and of the computation.
      rules: Sharding rules; they must put a whole copy of the model on the mesh of each replica group.
    """
    arrays = {
        name: reshard_array(model.parameter(name).astype(dtype), mesh, rules.spec(*parameter.axes))
        for name, parameter in parameter_table(model.cfg).items()
    }
    return Llama(model.cfg, rules, dtype, arrays)


def reshard_array(array: jax.Array, mesh: jax.sharding.Mesh, spec: PartitionSpec) -> jax.Array:
    """Returns an array of any shape and dtype with the sharding `spec` on the mesh of this process.

    All processes call it together; the parts that other processes hold are sent over the network.
    """
    if jax.process_count() == 1:
        return jax.device_put(array, jax.NamedSharding(mesh, spec))
    meshes = dict.fromkeys(replica_meshes(mesh.devices.shape[-1]))
    all_devices = jax.sharding.Mesh(
        np.concatenate([replica.devices for replica in meshes], axis=1),
        MESH_AXES,
        axis_types=mesh.axis_types,
    )
    copies = jax.device_put(array, jax.NamedSharding(all_devices, spec))
    parts = [shard.data for shard in copies.addressable_shards]
    return jax.make_array_from_single_device_arrays(array.shape, jax.NamedSharding(mesh, spec), parts)
