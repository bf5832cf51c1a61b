"""Speed of matrix products on this machine: the limit that the benchmarks compare programs with."""

import statistics
import time

import jax
import jax.numpy as jnp


def product_speed(rows: int, inner: int, columns: int, repeats: int = 20) -> float:
    """Returns the median FLOP/s of a float32 product [rows, inner] x [inner, columns]."""
    x, w = jnp.ones((rows, inner), jnp.float32), jnp.ones((inner, columns), jnp.float32)
    multiply, seconds = jax.jit(jnp.matmul), []
    jax.block_until_ready(multiply(x, w))
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(multiply(x, w))
        seconds.append(time.perf_counter() - start)
    return 2.0 * rows * inner * columns / statistics.median(seconds)
