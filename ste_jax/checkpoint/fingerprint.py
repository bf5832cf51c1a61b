"""Hashes of a model's parameters that do not depend on the mesh, the layout or the file format.

Each device hashes its own elements together with their indices and sums the hashes as integers: the order
cannot change the sum, and no parameter leaves its devices. The sums detect accidental changes; they are not
cryptographic.
"""

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ste_jax.sharding import make_mesh

# Number of elements hashed at once: intermediate results take several times their bytes.
_BLOCK = 2**20


def fingerprint(arrays: Mapping[str, jax.Array]) -> str:
    """Returns the hash of a model's parameters."""
    return combine({name: parameter_hash(array) for name, array in arrays.items()})


def combine(hashes: Mapping[str, str]) -> str:
    """Returns the `fingerprint` of the parameters with these `parameter_hash`es."""
    lines = "".join(f"{name} {hash_}\n" for name, hash_ in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def parameter_hash(array: jax.Array) -> str:
    """Returns the dtype, the shape and two sums of different hashes of each element's bits and index.

    The array may have any shape and a dtype of 2 or 4 bytes.
    """
    sharding = array.sharding
    if not isinstance(sharding, NamedSharding):
        sharding = NamedSharding(make_mesh((1, 1, 1), list(array.devices())), P())
        array = jax.device_put(array, sharding)
    sizes = _block_sizes(sharding.shard_shape(array.shape))
    counts = [n // size for n, size in zip(sharding.shard_shape(array.shape), sizes, strict=True)]
    made = [
        _sums(array, np.array(block, np.int32), sizes=tuple(sizes), mesh=sharding.mesh, spec=sharding.spec)
        for block in np.ndindex(*counts)
    ]
    sums = np.stack(jax.device_get(made)).sum(axis=0, dtype=np.uint32)
    return f"{array.dtype} {array.shape} {[int(n) for n in sums]}"


# Not one loop over all blocks in the program: XLA on CPU would run it on a copy of the whole array.
@partial(jax.jit, static_argnames=("sizes", "mesh", "spec"))
def _sums(array: jax.Array, block: jax.Array, *, sizes: tuple[int, ...], mesh: Any, spec: P) -> jax.Array:
    """Returns the sums, uint32 [2] modulo 2**32, of one block of each device's part of an array.

    The array lies on `mesh` as `spec` says; `block` counts blocks of `sizes`, int32 [array.ndim].
    """
    entries = [*spec, *[None] * (array.ndim - len(spec))]
    axes = [(entry,) if isinstance(entry, str) else entry or () for entry in entries]

    def local(part: jax.Array, block: jax.Array) -> jax.Array:
        corner = [block[axis] * size for axis, size in enumerate(sizes)]
        starts = [
            jnp.uint32(at) + jnp.uint32((jax.lax.axis_index(names) if names else 0) * n)
            for at, names, n in zip(corner, axes, part.shape, strict=True)
        ]
        sums = _block_sums(jax.lax.dynamic_slice(part, corner, sizes), starts)
        return jax.lax.psum(sums, [name for names in axes for name in names])

    return jax.shard_map(local, mesh=mesh, in_specs=(spec, P()), out_specs=P(), check_vma=False)(array, block)


def _block_sizes(shape: tuple[int, ...]) -> list[int]:
    """Returns a shape of at most `_BLOCK` elements that tiles `shape`, long along the last axes."""
    sizes, room = [], _BLOCK
    for n in reversed(shape):
        size = min(n, room)
        while n % size:
            size -= 1
        sizes.insert(0, size)
        room = max(1, room // size)
    return sizes


def _block_sums(block: jax.Array, first: list[jax.Array]) -> jax.Array:
    """Returns the sums of a block whose first element has the place `first`."""
    width = {2: jnp.uint16, 4: jnp.uint32}[block.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(block, width).astype(jnp.uint32)
    place = jnp.zeros_like(bits)
    for axis, start in enumerate(first):
        place = _mix(place ^ (jax.lax.broadcasted_iota(jnp.uint32, block.shape, axis) + start))
    hashes = [_mix(_mix(place ^ jnp.uint32(seed)) ^ bits) for seed in (0x243F6A88, 0x85A308D3)]
    return jnp.stack([jnp.sum(hash_, dtype=jnp.uint32) for hash_ in hashes])


def _mix(x: jax.Array) -> jax.Array:
    """Spreads every bit of uint32 `x` over all of them, one to one."""
    for factor in (0x9E3779B1, 0x85EBCA6B):
        x = (x ^ (x >> 16)) * jnp.uint32(factor) + jnp.uint32(0x7F4A7C15)
    return x ^ (x >> 16)
