"""Compiles the programs of a run for a topology: device memory of each, and the cost of a step."""

import dataclasses
from typing import Any

import jax
from jax.sharding import AxisType

from ste_jax.config import RunConfig
from ste_jax.decode.shape import Shape, decode_shape
from ste_jax.errors import SteError
from ste_jax.models.llama import LlamaConfig, check_divisible
from ste_jax.plan.assumptions import Lengths, Phase
from ste_jax.plan.compile import Compiled
from ste_jax.plan.cost import DECODING, Cost, prefill_cost, tensor_sums, train_cost
from ste_jax.plan.decode import (
    abstract_model,
    compile_decode,
    compile_prefill,
    prefix_bytes,
    roofline,
    suffix_bytes,
)
from ste_jax.plan.topology import Topology, parse_topology
from ste_jax.plan.train import compile_train, device_bytes, train_arguments
from ste_jax.sharding import DECODE, MESH_AXES, AnyMesh, make_mesh, whole_mesh_sizes
from ste_jax.training.settings import TrainSettings


@dataclasses.dataclass(frozen=True)
class PhasePlan:
    """Memory of one program by the compiler, and its cost by counting.

    Attributes:
      phase: Name of the program.
      mesh: Sizes of the axes data, fsdp and tensor.
      devices: Number of devices of the mesh.
      fits: True if the peak is within the limit.
      peak_hbm_bytes: Peak HBM per device (bytes), including arrays that exist outside the program. None: the
        compiler ran out of memory.
      hbm_limit_bytes: HBM limit per device (bytes).
      holds: Bytes per device by purpose.
      compile_s: Duration of the compilation in seconds.
      error: Error message of the compiler, or the reason why the program does not fit.
      tokens_per_s_per_chip: Expected tokens per second and chip.
      cost: Cost of a step.
    """

    phase: Phase
    mesh: tuple[int, ...]
    devices: int
    fits: bool
    peak_hbm_bytes: int | None
    hbm_limit_bytes: int
    holds: dict[str, int]
    compile_s: float
    error: str
    tokens_per_s_per_chip: float
    cost: Cost

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a JSON-ready dict, with those of the cost at the same level."""
        value = dataclasses.asdict(self)
        cost = value.pop("cost")
        efficiency = cost.pop("efficiency")
        return {
            **value,
            **cost,
            "efficiency": efficiency["value"],
            "efficiency_source": efficiency["source"],
        }


def plan_phase(phase: Phase, config: RunConfig, cfg: LlamaConfig, name: str, lengths: Lengths) -> PhasePlan:
    """Compiles a phase of a run for the topology `name`; takes minutes and gigabytes for a large model.

    Raises:
      SteError: the mesh does not fit the topology, the model or the rows.
    """
    topology = parse_topology(name)
    mesh = make_mesh(phase_mesh(phase, config, topology).axis_sizes, topology.describe())
    if settings := trainings(config).get(phase):
        return _training(phase, settings, cfg, topology, mesh, lengths)
    plan = {"prefill": _prefill, "decode": _decode, "validate": _validate}[phase]
    return plan(config, cfg, topology, mesh, lengths)


def trainings(config: RunConfig) -> dict[Phase, TrainSettings]:
    """Returns the settings of the trainings of a run by phase."""
    return {settings.objective: settings for settings in config.trainings.values()}


def phases_of(config: RunConfig) -> list[Phase]:
    """Returns the phases of a run."""
    validates = config.pairs.validation > 0 or config.labelled_pairs != ""
    return [*trainings(config), "prefill", "decode", *(["validate"] if validates else [])]


def phase_mesh(phase: Phase, config: RunConfig, topology: Topology) -> jax.sharding.AbstractMesh:
    """Returns the mesh of a phase over the number of devices of a topology; needs no compiler.

    Raises:
      SteError: the configured sizes leave devices idle, or need more.
    """
    trains = phase in trainings(config)
    sizes = config.train_mesh if trains and config.train_mesh else config.mesh
    return jax.sharding.AbstractMesh(
        whole_mesh_sizes(sizes, topology.devices, topology.name),
        MESH_AXES,
        axis_types=(AxisType.Explicit,) * len(MESH_AXES),
    )


def engine_shape(
    config: RunConfig,
    cfg: LlamaConfig,
    mesh: AnyMesh,
    prompt: int,
    samples: int,
    new_tokens: int,
    requests: int = 0,
) -> Shape:
    """Returns the sizes that the engine chooses for requests of `prompt` tokens; 0 requests: one per
    selected instruction.
    """
    return decode_shape(
        config.decode,
        config.decode.buckets_within(cfg.context_length),
        longest=prompt,
        requests=requests or config.select.size,
        samples=samples,
        new_tokens=new_tokens,
        suffix_tokens=8 if config.annotate.force_verdict else 0,  # approximate length of the forced verdict
        multiple=mesh.shape["data"] * mesh.shape["fsdp"],
    )


def _training(
    phase: Phase,
    settings: TrainSettings,
    cfg: LlamaConfig,
    topology: Topology,
    mesh: jax.sharding.Mesh,
    lengths: Lengths,
) -> PhasePlan:
    with jax.set_mesh(mesh):
        state, batch = train_arguments(cfg, mesh, settings)
    compiled = compile_train(cfg, mesh, settings)
    holds = {
        "parameters": device_bytes(state.model),
        "moments": device_bytes(state.opt_state),
        "batch": device_bytes(batch),
    }
    cost = train_cost(cfg, topology, dict(mesh.shape), settings, lengths.target_share)
    return _plan(phase, topology, mesh, compiled, holds, "gradients, activations, gathered weights", cost)


def _decode(
    config: RunConfig, cfg: LlamaConfig, topology: Topology, mesh: jax.sharding.Mesh, lengths: Lengths
) -> PhasePlan:
    shape = largest_shape(config, cfg, mesh)
    compiled = compile_decode(cfg, mesh, shape)
    holds = _decode_holds(cfg, mesh, shape)
    cost = decode_cost(cfg, topology, dict(mesh.shape), shape, lengths.judge_prompt, lengths.judgment // 2)
    return _plan("decode", topology, mesh, compiled, holds, "activations", cost)


def _prefill(
    config: RunConfig, cfg: LlamaConfig, topology: Topology, mesh: jax.sharding.Mesh, lengths: Lengths
) -> PhasePlan:
    shape = largest_shape(config, cfg, mesh)
    compiled = compile_prefill(cfg, mesh, shape)
    holds = _decode_holds(cfg, mesh, shape)
    if compiled.peak_bytes is not None:  # the suffix caches are no argument of the program
        compiled = dataclasses.replace(compiled, peak_bytes=compiled.peak_bytes + holds["suffixes"])
    longest = shape.buckets[-1]
    cost = prefill_cost(cfg, topology, dict(mesh.shape), shape.rows(longest), longest)
    return _plan("prefill", topology, mesh, compiled, holds, "activations", cost)


def _validate(
    config: RunConfig, cfg: LlamaConfig, topology: Topology, mesh: jax.sharding.Mesh, lengths: Lengths
) -> PhasePlan:
    """Plans validation between training steps: the engine runs while the training state is in memory."""
    shape = validation_shape(config, cfg, mesh)
    state, programs = training_state_bytes(config, cfg, topology), _decode_holds(cfg, mesh, shape)
    prefill, decode = compile_prefill(cfg, mesh, shape), compile_decode(cfg, mesh, shape)
    peak = None
    if prefill.peak_bytes is not None and decode.peak_bytes is not None:
        peak = state + max(prefill.peak_bytes + programs["suffixes"], decode.peak_bytes)
    compiled = Compiled(peak, prefill.seconds + decode.seconds, prefill.error or decode.error)
    cost = decode_cost(cfg, topology, dict(mesh.shape), shape, lengths.judge_prompt, lengths.judgment // 2)
    holds = {"training state": state, **programs}
    return _plan("validate", topology, mesh, compiled, holds, "activations", cost)


def training_state_bytes(config: RunConfig, cfg: LlamaConfig, topology: Topology) -> int:
    """Returns the bytes per device of parameters and moments, for the training where they are most."""
    sizes = []
    for phase, settings in trainings(config).items():
        mesh = phase_mesh(phase, config, topology)
        with jax.sharding.use_abstract_mesh(mesh):
            state, _ = train_arguments(cfg, mesh, settings)
        sizes.append(device_bytes(state.model) + device_bytes(state.opt_state))
    return max(sizes)


def validation_shape(config: RunConfig, cfg: LlamaConfig, mesh: AnyMesh) -> Shape:
    """Returns the sizes of the engine in validation, with the longest prompts and judgments."""
    _check_decoding(config, cfg, mesh)
    # The number of labelled pairs is not known here.
    requests = 0 if config.labelled_pairs else 2 * config.pairs.validation
    bucket, new_tokens = config.decode.buckets[-1], config.annotate.max_new_tokens
    return engine_shape(config, cfg, mesh, bucket, 1, new_tokens, requests)


def _check_decoding(config: RunConfig, cfg: LlamaConfig, mesh: AnyMesh) -> None:
    check_divisible(cfg, DECODE, mesh.shape)
    if config.decode.dtype != "bfloat16":
        raise SteError(
            "config_invalid",
            f"plan: decoding is compiled in bfloat16; set decode.dtype to it, not {config.decode.dtype}",
        )


def largest_shape(config: RunConfig, cfg: LlamaConfig, mesh: AnyMesh) -> Shape:
    """Returns the sizes of the engine in annotation, with the longest prompts and judgments."""
    _check_decoding(config, cfg, mesh)
    annotate = config.annotate
    bucket = config.decode.buckets[-1]
    return engine_shape(config, cfg, mesh, bucket, annotate.samples, annotate.max_new_tokens)


def _decode_holds(cfg: LlamaConfig, mesh: jax.sharding.Mesh, shape: Shape) -> dict[str, int]:
    return {
        "weights": device_bytes(abstract_model(cfg, mesh)),
        "prefixes": prefix_bytes(cfg, shape) // mesh.size,
        "suffixes": suffix_bytes(cfg, shape) // mesh.size,
    }


def decode_cost(
    cfg: LlamaConfig, topology: Topology, mesh: dict[str, int], shape: Shape, prompt: int, suffix: int
) -> Cost:
    """Returns the cost of a step of all samples in flight, each with `suffix` generated tokens."""
    replicas, device = mesh["data"] * mesh["fsdp"], topology.device
    sequences = shape.slots * shape.samples_per_slot
    counted = roofline(
        cfg,
        device,
        mesh["tensor"],
        sequences=-(-sequences // replicas),
        samples_per_slot=shape.samples_per_slot,
        prompt=prompt,
        suffix=suffix,
        shared=True,
    )
    network = tensor_sums(cfg, sequences / replicas, mesh["tensor"])
    hbm = (counted.weight_bytes + counted.cache_bytes) / mesh["tensor"]
    seconds = {
        "arithmetic": counted.flops / mesh["tensor"] / device.flops,
        "memory": hbm / device.bandwidth,
        "network": network / topology.network,
    }
    return Cost(
        tokens=sequences,
        flops=counted.flops * replicas,
        useful_flops=counted.flops * replicas,
        hbm_bytes=hbm,
        network_bytes=network,
        roofline_s=counted.seconds,
        expected_s=counted.seconds / DECODING.value,
        bound=max(seconds, key=lambda name: seconds[name]),
        efficiency=DECODING,
    )


def _plan(
    phase: Phase,
    topology: Topology,
    mesh: jax.sharding.Mesh,
    compiled: Compiled,
    holds: dict[str, int],
    rest: str,
    cost: Cost,
) -> PhasePlan:
    peak = compiled.peak_bytes
    if peak is not None:
        holds = {**holds, rest: max(0, peak - sum(holds.values()))}
    limit = int(topology.chip.hbm)
    error = compiled.error
    if peak is not None and peak > limit:
        error = "the program fits, but not together with the other arrays that are in memory"
    return PhasePlan(
        phase=phase,
        mesh=tuple(mesh.shape.values()),
        devices=mesh.size,
        fits=peak is not None and peak <= limit,
        peak_hbm_bytes=peak,
        hbm_limit_bytes=limit,
        holds=holds,
        compile_s=round(compiled.seconds, 1),
        error=error,
        tokens_per_s_per_chip=cost.tokens_per_chip(topology.chips),
        cost=cost,
    )
