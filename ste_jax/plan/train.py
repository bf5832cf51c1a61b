"""Compiles the training step of a run for TPU slices."""

from typing import Any

import jax

from ste_jax.checkpoint.orbax import on_mesh
from ste_jax.models.llama import LlamaConfig, check_divisible
from ste_jax.plan.compile import Compiled, compile_program
from ste_jax.sharding import TRAIN, AnyMesh
from ste_jax.training.pairwise import TARGETS
from ste_jax.training.settings import TrainSettings
from ste_jax.training.step import TrainState, abstract_state, check_rows, choose_attention, train_step

# Length of the schedule; no shape depends on it.
_STEPS = 1000
# Assumed minimum length of a preference pair in tokens, which bounds the number of pairs per row.
_PAIR = 512


def train_arguments(
    cfg: LlamaConfig, mesh: AnyMesh, settings: TrainSettings
) -> tuple[TrainState, dict[str, Any]]:
    """Returns the shapes and shardings of the state and the batch of a step; every token may be a target,
    except with the objective "pairwise".

    Raises:
      SteError: the mesh does not divide the model or the rows.
    """
    check_divisible(cfg, TRAIN, mesh.shape)
    check_rows(settings, TRAIN, mesh.shape)
    state = on_mesh(abstract_state(cfg, TRAIN, settings, _STEPS), mesh)
    rows = jax.NamedSharding(mesh, TRAIN.spec("batch", None))
    pairs = -(-settings.row_length // _PAIR)
    most = TARGETS * pairs if settings.objective == "pairwise" else settings.row_length
    targets = -(-most // settings.loss_chunk) * settings.loss_chunk

    def array(length: int, dtype: str) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((settings.batch_rows, length), dtype, sharding=rows)

    batch = {name: array(settings.row_length, "int32") for name in ("tokens", "positions", "segments")}
    batch |= {name: array(targets, "int32") for name in ("target_at", "target_ids")}
    batch |= {"target_weights": array(targets, "float32")}
    if settings.objective == "dpo":
        batch |= {"target_sequence": array(targets, "int32"), "reference": array(2 * pairs, "float32")}
        batch |= {"pair_weights": array(pairs, "float32")}
    if settings.objective == "pairwise":
        names = ("probability_a", "is_certain", "pair_weights")
        batch |= {name: array(pairs, "float32") for name in names}
    return state, batch


def compile_train(cfg: LlamaConfig, mesh: jax.sharding.Mesh, settings: TrainSettings) -> Compiled:
    """Compiles one optimizer step, whose state is donated."""
    settings = choose_attention(settings, mesh)
    with jax.set_mesh(mesh):
        state, batch = train_arguments(cfg, mesh, settings)
        return compile_program(train_step.lower(state, batch, settings=settings, total_steps=_STEPS))


def device_bytes(tree: Any) -> int:
    """Returns the bytes per device of abstract arrays."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        size = leaf.dtype.itemsize
        for side in leaf.sharding.shard_shape(leaf.shape):
            size *= side
        total += size
    return total
