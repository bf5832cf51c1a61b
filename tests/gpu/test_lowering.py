"""Every jitted program lowers for CUDA: no compilation, since XLA does not see the programs."""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, use_abstract_mesh

import ste_jax
from ste_jax.checkpoint.fingerprint import _sums
from ste_jax.decode.shape import Shape
from ste_jax.decode.steps import decode, prefill
from ste_jax.models.adapters import _merge
from ste_jax.models.llama import LlamaConfig
from ste_jax.models.splash import LANES
from ste_jax.plan.decode import decode_arguments, prefill_arguments
from ste_jax.plan.train import train_arguments
from ste_jax.sharding import MESH_AXES
from ste_jax.training.lora import trainable
from ste_jax.training.settings import Objective, TrainSettings
from ste_jax.training.step import _log_probs, make_optimizer, train_step

CFG = LlamaConfig(
    vocab_size=512,
    hidden_size=64,
    intermediate_size=128,
    num_layers=2,
    num_heads=8,
    num_kv_heads=4,
    head_dim=16,
    context_length=256,
    tie_embeddings=True,
)
SHAPE = Shape(
    buckets=(32, 64),
    slots=4,
    prompts_per_slot=2,
    samples_per_slot=3,
    decode_steps_per_sync=4,
    segments=(16, 16),
    prefill_tokens=64,
    multiple=2,
)
# One GPU, and four with two copies of a model on two each.
MESHES = [(1, 1, 1), (1, 2, 2)]


ADAPTERS = {"lora_rank": 4, "remat": "full"}


def for_cuda(program: Any, *arguments: Any, **static: Any) -> str:
    """Returns the text of a program that was lowered for CUDA."""
    return program.trace(*arguments, **static).lower(lowering_platforms=("cuda",)).as_text()


def array_of(parameter: Any) -> jax.ShapeDtypeStruct:
    (array,) = jax.tree.leaves(parameter)
    return array


def settings(**changes: Any) -> TrainSettings:
    values = {"batch_rows": 8, "micro_rows": 4, "row_length": LANES, "loss_chunk": 32, "dtype": "bfloat16"}
    return TrainSettings(**{**values, **changes})


@pytest.fixture(params=MESHES, ids=["one GPU", "four GPUs"])
def mesh(request: pytest.FixtureRequest) -> Iterator[AbstractMesh]:
    """Sets a mesh without devices."""
    mesh = AbstractMesh(request.param, MESH_AXES, axis_types=(AxisType.Explicit,) * len(MESH_AXES))
    with use_abstract_mesh(mesh):
        yield mesh


def test_prefill(mesh: AbstractMesh) -> None:
    assert "stablehlo.scatter" in for_cuda(prefill, *prefill_arguments(CFG, mesh, SHAPE))


@pytest.mark.parametrize("forced", [False, True], ids=["sampling", "forced choice"])
def test_decoding(mesh: AbstractMesh, forced: bool) -> None:
    """One program samples and takes the most likely token; with forced ids it is another one."""
    *arguments, params, steps = decode_arguments(CFG, mesh, SHAPE)
    if forced:
        ids = jax.ShapeDtypeStruct((3,), "int32", sharding=params.choices.sharding)
        params = dataclasses.replace(params, prefix_ids=ids, choices=ids)
    assert "stablehlo.while" in for_cuda(decode, *arguments, params, steps=steps)


@pytest.mark.parametrize(
    ("objective", "changes"),
    [("sft", {}), ("sft", ADAPTERS), ("sft", {"attention": "auto"}), ("dpo", {}), ("pairwise", {})],
    ids=["sft", "adapters", "auto", "dpo", "pairwise"],
)
def test_training(mesh: AbstractMesh, objective: Objective, changes: dict[str, Any]) -> None:
    chosen = settings(objective=objective, **changes)
    state, batch = train_arguments(CFG, mesh, chosen)
    text = for_cuda(train_step, state, batch, settings=chosen, total_steps=10)
    assert "stablehlo.dot_general" in text
    if objective == "dpo":
        for_cuda(_log_probs, state.model, batch, settings=chosen)


def test_the_first_state(mesh: AbstractMesh) -> None:
    chosen = settings()
    state, _ = train_arguments(CFG, mesh, chosen)
    for_cuda(jax.jit(make_optimizer(chosen, 10).init), trainable(state.model))


def test_merging_adapters(mesh: AbstractMesh) -> None:
    state, _ = train_arguments(CFG, mesh, settings(**ADAPTERS))
    blocks = state.model.blocks
    parameters = (blocks.w_up, blocks.adapters.w_up_a, blocks.adapters.w_up_b)
    for_cuda(_merge, *map(array_of, parameters), scale=1.0)


def test_hashing_parameters(mesh: AbstractMesh) -> None:
    state, _ = train_arguments(CFG, mesh, settings())
    array = array_of(state.model.blocks.w_up)
    sizes = array.sharding.shard_shape(array.shape)
    block = jax.ShapeDtypeStruct((array.ndim,), "int32", sharding=jax.NamedSharding(mesh, jax.P(None)))
    for_cuda(_sums, array, block, sizes=sizes, mesh=mesh, spec=array.sharding.spec)


def test_agreeing_to_stop(mesh: AbstractMesh) -> None:
    axes = jax.NamedSharding(mesh, jax.P(mesh.axis_names))
    for_cuda(jax.jit(jnp.any), jax.ShapeDtypeStruct((mesh.size,), bool, sharding=axes))


def test_these_are_all_jitted_functions() -> None:
    """A program that is added needs a test here."""
    package = Path(ste_jax.__file__).parent
    found = Counter(
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for _ in re.finditer(r"\bjax\.(?:jit|pmap)\b", path.read_text())
    )
    assert found == {
        "training/step.py": 3,  # the optimizer's first state, a step, log-probabilities
        "decode/steps.py": 2,
        "models/adapters.py": 1,
        "checkpoint/fingerprint.py": 1,
        "distributed/monitor.py": 1,
    }


def test_the_kernel_for_tpu_does_not_lower(mesh: AbstractMesh) -> None:
    """Lowering finds programs that CUDA cannot run."""
    chosen = settings(attention="splash")
    state, batch = train_arguments(CFG, mesh, chosen)
    with pytest.raises(Exception, match=r"(?i)pallas|mosaic|triton"):
        for_cuda(train_step, state, batch, settings=chosen, total_steps=10)
