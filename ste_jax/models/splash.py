"""Causal attention over whole rows with the splash attention kernel of JAX for TPU."""

from typing import cast

import jax
import jax.numpy as jnp

from ste_jax.sharding import Rules

Array = jax.Array
LANES = 128
_BLOCK = 512


def splash_attention(
    q: Array, k: Array, v: Array, segments: Array, *, rules: Rules, interpret: bool = False
) -> Array:
    """Returns the same as `causal_attention`, [B, T, K, G, H]; every device computes its own rows and heads.

    Args:
      q: Queries [B, T, K, G, H]; T is a multiple of 128.
      k: Keys [B, T, K, H].
      v: Values [B, T, K, H].
      segments: int32 [B, T].
      rules: Sharding rules of rows and key/value heads.
      interpret: Runs the kernel in interpret mode, which works on any device but is slow.
    """
    queries, keys = (
        rules.spec("batch", None, "kv_heads", None, None),
        rules.spec("batch", None, "kv_heads", None),
    )
    attend = jax.shard_map(
        lambda *inputs: _attend_alone(*inputs, interpret=interpret),
        in_specs=(queries, keys, keys, rules.spec("batch", None)),
        out_specs=queries,
        check_vma=False,  # the kernel does not declare over which axes its results vary
    )
    return attend(q, k, v, segments)


def _attend_alone(q: Array, k: Array, v: Array, segments: Array, *, interpret: bool) -> Array:
    # Here: Pallas for TPU takes long to import, and only this function needs it.
    from jax.experimental.pallas.ops.tpu import splash_attention as splash

    B, T, K, G, H = q.shape
    size = next(size for size in range(_BLOCK, 0, -LANES) if T % size == 0)
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([splash.CausalMask((T, T))] * (K * G)),
        block_sizes=splash.BlockSizes(
            block_q=size,
            block_kv=size,
            block_q_dkv=size,
            block_kv_dkv=size,
            block_q_dq=size,
            block_kv_dq=size,
        ),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    # The kernel does not scale the queries and expects a single axis of query heads, grouped by key head.
    q = (q.astype(jnp.float32) * H**-0.5).astype(q.dtype)
    q = jnp.einsum("BTKGH->BKGTH", q).reshape(B, K * G, T, H)
    k, v = (jnp.einsum("BSKH->BKSH", x) for x in (k, v))
    row = jax.vmap(lambda q, k, v, ids: cast(Array, kernel(q, k, v, splash.SegmentIds(ids, ids))))
    return jnp.einsum("BKGTH->BTKGH", row(q, k, v, segments).reshape(B, K, G, T, H))
