"""Every shipped configuration shards on every slice that its docstring names; no array, no compiler."""

import re
import runpy
from functools import partial
from pathlib import Path

import jax
import pytest
from jax.sharding import use_abstract_mesh

from ste_jax.config import read_config
from ste_jax.decode.steps import decode, prefill
from ste_jax.models.presets import preset_of
from ste_jax.plan.decode import (
    abstract_model,
    decode_arguments,
    prefill_arguments,
    prefix_bytes,
    suffix_bytes,
)
from ste_jax.plan.phases import (
    largest_shape,
    phase_mesh,
    phases_of,
    training_state_bytes,
    validation_shape,
)
from ste_jax.plan.topology import parse_topology
from ste_jax.plan.train import device_bytes, train_arguments
from ste_jax.training.step import train_step

CONFIGS = Path(__file__).parents[2] / "configs"
NAME = r"(?:\d+x)?(?:v4|v5e|v5p|v6e|tpu7x)-\d+"


def slices() -> list[tuple[str, str]]:
    """Returns the configuration and name of every slice in a docstring."""
    found = []
    for path in sorted(CONFIGS.glob("*.py")):
        doc = path.read_text().split('"""')[1]
        found += [(path.stem, name) for name in dict.fromkeys(re.findall(NAME, doc))]
    return found


def test_docstrings_name_slices():
    assert {("paper_70b", "2xv5p-64"), ("llama3_8b", "v5e-16"), ("company_data", "v6e-8")} <= set(slices())


@pytest.mark.parametrize(("stem", "name"), slices())
def test_all_programs_shard(stem, name):
    get_config = runpy.run_path(str(CONFIGS / f"{stem}.py"))["get_config"]
    config = read_config(get_config(name if stem in ("llama3_70b", "paper_70b") else "").to_dict())
    cfg, topology = preset_of(config.model), parse_topology(name)
    assert cfg is not None

    mesh = phase_mesh("sft", config, topology)
    assert mesh.size == topology.devices
    assert mesh.shape["data"] % topology.slices == 0
    with use_abstract_mesh(mesh):
        state, batch = train_arguments(cfg, mesh, config.train)
        after, _ = jax.eval_shape(partial(train_step, settings=config.train, total_steps=10), state, batch)
    for was, now in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (was.shape, was.dtype, was.sharding.spec) == (now.shape, now.dtype, now.sharding.spec)

    mesh = phase_mesh("decode", config, topology)
    shape = largest_shape(config, cfg, mesh)
    assert shape.slots % (mesh.shape["data"] * mesh.shape["fsdp"]) == 0
    with use_abstract_mesh(mesh):
        arguments = decode_arguments(cfg, mesh, shape)
        suffix = jax.eval_shape(partial(decode, steps=arguments[-1]), *arguments[:-1])[0]
        assert [x.sharding.spec for x in jax.tree.leaves(suffix)] == [
            x.sharding.spec for x in jax.tree.leaves(arguments[2])
        ]
        prefix = jax.eval_shape(prefill, *prefill_arguments(cfg, mesh, shape))
        assert jax.tree.leaves(prefix)[0].sharding.spec == jax.tree.leaves(arguments[1])[0].sharding.spec


# Too small to decode the model, as the docstring of the configuration states.
TRAIN_ONLY = {("paper_70b", "v5e-128"), ("paper_70b", "v5e-16")}


@pytest.mark.parametrize(("stem", "name"), sorted(set(slices()) - TRAIN_ONLY))
def test_validation_fits_in_memory_with_the_training_state(stem, name):
    get_config = runpy.run_path(str(CONFIGS / f"{stem}.py"))["get_config"]
    config = read_config(get_config(name if stem in ("llama3_70b", "paper_70b") else "").to_dict())
    cfg, topology = preset_of(config.model), parse_topology(name)
    assert cfg is not None
    assert "validate" in phases_of(config)
    mesh = phase_mesh("validate", config, topology)
    shape = validation_shape(config, cfg, mesh)
    caches = (prefix_bytes(cfg, shape) + suffix_bytes(cfg, shape)) // mesh.size
    arrays = training_state_bytes(config, cfg, topology) + device_bytes(abstract_model(cfg, mesh)) + caches
    # Compiled: up to 1.25 GiB per device for a copy of one stacked matrix, and activations.
    assert arrays + 1.5 * 2**30 < topology.chip.hbm
