"""Compiles the two programs of the engine for a TPU slice, and costs a decoding step by counting."""

import dataclasses
from typing import Any

import jax

from ste_jax.checkpoint.orbax import on_mesh
from ste_jax.decode.cache import empty_prefix, empty_segment
from ste_jax.decode.shape import Shape
from ste_jax.decode.steps import SamplingParams, SamplingState, decode, prefill
from ste_jax.models.llama import Llama, LlamaConfig, parameter_table
from ste_jax.plan.chips import Chip
from ste_jax.plan.compile import Compiled, compile_program
from ste_jax.plan.topology import parse_topology
from ste_jax.sharding import DECODE, AnyMesh, make_mesh


def slice_mesh(name: str) -> jax.sharding.Mesh:
    """Returns the mesh of a slice with all chips on the axis `tensor`; needs libtpu."""
    devices = parse_topology(name).describe()
    return make_mesh((1, 1, len(devices)), devices)


def compile_decode(cfg: LlamaConfig, mesh: jax.sharding.Mesh, shape: Shape) -> Compiled:
    """Compiles decoding steps in bfloat16 with all pages and segments in use."""
    with jax.set_mesh(mesh):
        return compile_program(decode.lower(*decode_arguments(cfg, mesh, shape)))


def compile_prefill(cfg: LlamaConfig, mesh: jax.sharding.Mesh, shape: Shape) -> Compiled:
    """Compiles a prefill in bfloat16, for the bucket that needs the most memory.

    Its peak does not include the suffix caches, which are in memory at the same time.
    """
    with jax.set_mesh(mesh):
        return compile_program(prefill.lower(*prefill_arguments(cfg, mesh, shape)))


def decode_arguments(cfg: LlamaConfig, mesh: AnyMesh, shape: Shape) -> tuple[Any, ...]:
    """Returns the shapes and shardings of the arguments of `decode`, and its number of steps."""
    model, prefix, suffix = _abstract(cfg, mesh, shape)
    lanes = shape.slots, shape.samples_per_slot
    lane = _array(mesh, lanes, "int32", "batch", None)
    state = SamplingState(
        token=lane,
        position=lane,
        budget=lane,
        forced=lane,
        status=lane,
        keys=_array(mesh, (*lanes, 2), "uint32", "batch", None, None),
        suffix_length=lane,
        prompt_index=lane,
    )
    scalar = _array(mesh, (), "float32")
    params = SamplingParams(
        temperature=scalar,
        top_p=scalar,
        stop_ids=_array(mesh, (2,), "int32", None),
        prefix_ids=_array(mesh, (0,), "int32", None),
        is_allowed=_array(mesh, (cfg.vocab_size,), "bool", "vocab"),
        choices=_array(mesh, (0,), "int32", None),
    )
    return model, prefix, suffix, state, params, shape.decode_steps_per_sync


def prefill_arguments(cfg: LlamaConfig, mesh: AnyMesh, shape: Shape) -> tuple[Any, ...]:
    """Returns the shapes and shardings of the arguments of `prefill` for the bucket with the most prompt
    positions.
    """
    model, prefix, _ = _abstract(cfg, mesh, shape)
    largest = max(
        (shape.packing(bucket).packed for bucket in shape.buckets[::-1]),
        key=lambda packed: packed.gather_index.size,
    )
    packed = jax.tree.map(lambda x: _array(mesh, x.shape, "int32", "batch", *[None] * (x.ndim - 1)), largest)
    return model, prefix, packed


def suffix_bytes(cfg: LlamaConfig, shape: Shape) -> int:
    """Returns the bytes of all suffix caches in bfloat16."""
    return shape.slots * shape.samples_per_slot * sum(shape.segments) * token_bytes(cfg)


def prefix_bytes(cfg: LlamaConfig, shape: Shape) -> int:
    """Returns the bytes of all prefix caches in bfloat16."""
    return shape.slots * shape.prompts_per_slot * sum(shape.pages) * token_bytes(cfg)


def token_bytes(cfg: LlamaConfig) -> int:
    """Returns the bytes of one token's keys and values in bfloat16."""
    return 2 * 2 * cfg.num_layers * cfg.num_kv_heads * cfg.head_dim


def abstract_model(cfg: LlamaConfig, mesh: AnyMesh) -> Any:
    """Returns a model for decoding with shapes instead of arrays."""
    arrays = {name: _array(mesh, p.shape, "bfloat16", *p.axes) for name, p in parameter_table(cfg).items()}
    return Llama(cfg, DECODE, "bfloat16", arrays)  # pyright: ignore[reportArgumentType]


def _abstract(cfg: LlamaConfig, mesh: AnyMesh, shape: Shape) -> tuple[Any, Any, Any]:
    model = abstract_model(cfg, mesh)
    prefix = jax.eval_shape(lambda: empty_prefix(model, shape.slots, shape.prompts_per_slot, shape.pages))
    suffix = jax.eval_shape(
        lambda: tuple(
            empty_segment(model, shape.slots, shape.samples_per_slot, size) for size in shape.segments
        )
    )
    return model, on_mesh(prefix, mesh), on_mesh(suffix, mesh)


def _array(mesh: AnyMesh, shape: tuple[int, ...], dtype: str, *axes: str | None) -> Any:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=jax.NamedSharding(mesh, DECODE.spec(*axes)))


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Bytes and FLOPs of a step over all chips by counting, and seconds at published speeds.

    A lower bound: the slower of reading the weights and multiplying with them, then reading the caches,
    without communication between chips.
    """

    sequences: int
    weight_bytes: float
    cache_bytes: float
    flops: float
    seconds: float
    tokens_per_chip: float


def roofline(
    cfg: LlamaConfig,
    chip: Chip,
    chips: int,
    *,
    sequences: int,
    samples_per_slot: int,
    prompt: int,
    suffix: int,
    shared: bool,
) -> Roofline:
    """Costs one decoding step of `sequences` samples with `suffix` own tokens each, in bfloat16.

    Args:
      cfg: architecture of the model.
      chip: published figures.
      chips: number of chips, which share every tensor.
      sequences: samples in flight.
      samples_per_slot: samples per prompt.
      prompt: tokens per prompt.
      suffix: mean number of generated tokens per sample.
      shared: True if the keys and values of a prompt are stored and read once for its samples.
    """
    matrices = cfg.parameter_count - (0 if cfg.tie_embeddings else cfg.vocab_size * cfg.hidden_size)
    prompts = sequences / samples_per_slot if shared else sequences
    weights = 2.0 * matrices
    cache = token_bytes(cfg) * (prompts * prompt + sequences * suffix)
    attention = 4.0 * cfg.num_layers * cfg.num_heads * cfg.head_dim * (prompt + suffix)
    flops = sequences * (2.0 * matrices + attention)
    compute = sequences * 2.0 * matrices / (chips * chip.flops)
    seconds = max(weights / (chips * chip.bandwidth), compute) + cache / (chips * chip.bandwidth)
    return Roofline(sequences, weights, cache, flops, seconds, sequences / seconds / chips)
