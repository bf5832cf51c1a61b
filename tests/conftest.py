"""Fixtures and strictness of all tests: 8 fake CPU devices, strict dtypes and ranks, the real small model."""

import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"

import jax
import pytest

from ste_jax.sharding import make_mesh

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def one_device():
    """Sets the mesh of a single device."""
    with jax.set_mesh(make_mesh((1, 1, 1), jax.devices()[:1])):
        yield


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct, which scripts/test.sh fetches and names in STE_TEST_MODEL."""
    path = os.environ.get("STE_TEST_MODEL")
    if not path or not Path(path).is_file():
        pytest.fail("set STE_TEST_MODEL to the SmolLM2-135M-Instruct GGUF file (scripts/test.sh does it)")
    return Path(path)
