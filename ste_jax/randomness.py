"""Random keys as functions of seed, stage, record and sample, independent of batches, hosts and order."""

import hashlib

import numpy as np


def _digest(seed: int, *names: str | int) -> bytes:
    text = "\x1f".join([str(seed), *map(str, names)])
    return hashlib.sha256(text.encode()).digest()


def key_data(seed: int, stage: str, record: str, sample: int) -> np.ndarray:
    """Returns the raw threefry key of a sample, uint32 [2]."""
    return np.frombuffer(_digest(seed, stage, record, sample)[:8], dtype=np.uint32).copy()


def sample_keys(seed: int, stage: str, record: str, samples: int) -> np.ndarray:
    """Returns the raw threefry keys of the samples of a record, uint32 [samples, 2]."""
    return np.stack([key_data(seed, stage, record, i) for i in range(samples)])


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Returns a NumPy generator that is seeded by `seed` and `names`."""
    return np.random.default_rng(int.from_bytes(_digest(seed, *names)[:16], "little"))
