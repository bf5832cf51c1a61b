"""A run's context over the tiny model; nothing is generated unless a test asks for it."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from etils import epath

from ste_jax.config import RunConfig, read_config
from ste_jax.stages.context import Context

QUICKSTART = Path(__file__).parent.parent.parent / "configs" / "quickstart.py"


@pytest.fixture(scope="session")
def make_config() -> Callable[..., RunConfig]:
    """Reads the small quickstart with other values; keyword arguments replace fields, or update sections."""

    def make(**changes: Any) -> RunConfig:
        value = runpy.run_path(str(QUICKSTART))["get_config"]("runlocal").to_dict()
        for name, new in changes.items():
            value[name] = value[name] | new if isinstance(new, dict) else new
        return read_config(value)

    return make


@pytest.fixture(scope="session")
def make_context(
    tiny_model: Path, tmp_path_factory: pytest.TempPathFactory, make_config: Callable[..., RunConfig]
) -> Callable[..., Context]:
    """Opens runs of the tiny model, each in a workdir of its own."""

    def make(**changes: Any) -> Context:
        workdir = tmp_path_factory.mktemp("run")
        return Context(make_config(model=str(tiny_model), **changes), epath.Path(workdir))

    return make
