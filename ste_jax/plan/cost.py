"""Counted FLOPs and bytes of a program, and published efficiencies that were measured on TPUs.

The cost analysis of the compiler is not used: it counts a loop over layers once and no communication.
"""

import dataclasses
import math
from collections.abc import Mapping

from ste_jax.models.llama import LlamaConfig
from ste_jax.plan.chips import Chip
from ste_jax.plan.topology import Topology
from ste_jax.training.lora import adapter_table
from ste_jax.training.settings import TrainSettings

# Bytes/s of a host's network between slices ("How to Scale Your Model", chapter TPUs); a host has four chips.
_HOST_NETWORK, _HOST_CHIPS = 25e9, 4


@dataclasses.dataclass(frozen=True)
class Efficiency:
    """Share of a roofline that was reached on a TPU, as published, and its source."""

    value: float
    source: str


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of a step of a program over all devices, by counting.

    Attributes:
      tokens: Tokens processed.
      flops: FLOPs executed on all devices, recomputation included.
      useful_flops: FLOPs without recomputation.
      hbm_bytes: Bytes that a device reads and writes in HBM.
      network_bytes: Bytes that a device receives from others of its slice.
      roofline_s: Lower bound in seconds: the slowest of the three at published speeds.
      expected_s: Expected seconds: arithmetic and memory at the published efficiency, or the time of the
        network if that is longer.
      bound: The slowest at published speeds: "arithmetic", "memory" or "network".
      efficiency: Efficiency used for `expected_s`.
    """

    tokens: int
    flops: float
    useful_flops: float
    hbm_bytes: float
    network_bytes: float
    roofline_s: float
    expected_s: float
    bound: str
    efficiency: Efficiency

    def tokens_per_chip(self, chips: int) -> float:
        """Returns the expected tokens per second and chip."""
        return self.tokens / self.expected_s / chips


# Shares of the arithmetic peak in training, without recomputed FLOPs, and the part of the forward pass that
# the published recipe recomputes (0 where it is not stated, which lowers the expectation).
_TRAINING: dict[str, tuple[float, float, str]] = {
    "v4": (0.56, 0.0, "MaxText, 52B on v4-384"),
    "v5e": (0.599, 0.0, "MaxText, 64B on v5e-256"),
    "v5p": (0.654, 0.55, "MaxText, Llama-2-70B on v5p, 4,096 tokens"),
    "v6e": (0.438, 0.9, "tpu-recipes, Llama-2-70B on v6e-256, 4,096 tokens"),
    "tpu7x": (0.438, 0.9, "v6e's (tpu-recipes, Llama-2-70B): nothing is published for tpu7x"),
}
# 443 tokens/s/chip; the roofline is 1,040.
DECODING = Efficiency(
    0.43, "tpu-recipes, vLLM, Llama-3.3-70B on v6e-8, 1,000 tokens in and out, 128 at a time"
)


def training_efficiency(chip: Chip) -> Efficiency:
    """Returns the share of the peak that executed FLOPs reach in training, recomputed ones included."""
    share, again, source = _TRAINING[chip.platform]
    return Efficiency(round(share * (3 + again) / 3, 3), source)


def matrix_parameters(cfg: LlamaConfig) -> int:
    """Returns the number of parameters of the layers' matrices, without embedding and unembedding."""
    tables = 1 if cfg.tie_embeddings else 2
    return cfg.parameter_count - tables * cfg.vocab_size * cfg.hidden_size


def trained_parameters(cfg: LlamaConfig, settings: TrainSettings) -> int:
    """Returns the number of parameters that have gradients and moments."""
    if not settings.lora_rank:
        return cfg.parameter_count
    return sum(p.size for p in adapter_table(cfg, settings.lora_rank).values())


def attention_flops(cfg: LlamaConfig, length: float) -> float:
    """Returns the FLOPs of causal attention per token of a row of `length`: scores and weighted sum."""
    return 4.0 * cfg.num_layers * cfg.num_heads * cfg.head_dim * length / 2


def tensor_sums(cfg: LlamaConfig, tokens: float, tensor: int) -> float:
    """Returns the bytes that a device receives for the two sums per layer over `tensor`, in bfloat16."""
    return 2 * cfg.num_layers * tokens * cfg.hidden_size * 2.0 * 2 * (tensor - 1) / tensor


def _activation_traffic(cfg: LlamaConfig, tensor: int) -> float:
    """Returns the bytes per token that the layers write and read between products, in bfloat16."""
    wide = (3 * cfg.intermediate_size + 2 * cfg.num_heads * cfg.head_dim) / tensor
    return cfg.num_layers * 2 * 2.0 * (4 * cfg.hidden_size + wide)


def train_cost(
    cfg: LlamaConfig, topology: Topology, mesh: Mapping[str, int], settings: TrainSettings, targets: float
) -> Cost:
    """Returns the cost of an optimizer step.

    A row of preferences holds both judgments of a pair. The log-probabilities of the starting model are
    computed before, in a separate pass, and are not included.

    Args:
      cfg: the model.
      topology: slice, with its published figures.
      mesh: sizes of data, fsdp and tensor.
      settings: rows, precision and recomputation.
      targets: share of the tokens that are trained on; logits are computed for these only.
    """
    tokens = settings.batch_rows * settings.row_length
    matrices, attention = 2.0 * matrix_parameters(cfg), attention_flops(cfg, settings.row_length)
    logits = 2.0 * cfg.vocab_size * cfg.hidden_size * targets
    again = 1.0 if settings.remat == "full" else 0.0
    # Attention scores are never saved; recomputing a layer computes them once more.
    scores_again = 1.0 if settings.remat == "none" else 2.0
    # Forward, gradient of the activations, gradient of the weights; a frozen model lacks the last.
    passes = 2 if settings.lora_rank else 3
    adapters = 3 * 2.0 * trained_parameters(cfg, settings) if settings.lora_rank else 0.0
    useful = tokens * (passes * (matrices + logits) + 3 * attention + adapters)
    # Fine-tuning computes the gradient together with the logits; DPO needs all losses before the gradient.
    logits_again = 1.0 if settings.objective == "dpo" else 0.0
    flops = useful + tokens * (again * matrices + scores_again * attention + logits_again * logits)
    devices = math.prod(mesh.values())
    return _cost(
        topology,
        tokens=tokens,
        flops=flops,
        useful=useful,
        hbm=_train_traffic(cfg, settings, mesh, passes=passes + again),
        slices=_slice_network(trained_parameters(cfg, settings), mesh, topology),
        network=_train_network(cfg, settings, mesh, passes=2 + again),
        devices=devices,
        efficiency=training_efficiency(topology.chip),
    )


def _train_traffic(
    cfg: LlamaConfig, settings: TrainSettings, mesh: Mapping[str, int], passes: float
) -> float:
    """Returns the HBM bytes per device and step: optimizer state once, weights and activations per pass."""
    shards = mesh["fsdp"] * mesh["tensor"]
    size = {"float32": 4, "bfloat16": 2}
    state = 3 * size[settings.param_dtype] + size[settings.moment_dtype] + 4  # gradients in float32
    optimizer = 2.0 * trained_parameters(cfg, settings) * state / shards
    weights = passes * settings.micro_batches * matrix_parameters(cfg) * 2.0 / mesh["tensor"]
    tokens = settings.batch_rows * settings.row_length / (mesh["data"] * mesh["fsdp"])
    activations = passes * tokens * _activation_traffic(cfg, mesh["tensor"])
    return optimizer + weights + activations


def _train_network(
    cfg: LlamaConfig, settings: TrainSettings, mesh: Mapping[str, int], passes: float
) -> float:
    """Returns the bytes that a device receives in its slice: weights, gradients, and sums of the layers."""
    fsdp, tensor = mesh["fsdp"], mesh["tensor"]
    weights = 2.0 * cfg.parameter_count / tensor * (fsdp - 1) / fsdp
    rows = settings.batch_rows / (mesh["data"] * fsdp)
    sums = tensor_sums(cfg, rows * settings.row_length, tensor)
    # Gathered in the forward pass, again in the backward pass; then the gradients are scattered.
    times = 2 if settings.lora_rank else 3
    return times * weights * settings.micro_batches + passes * sums


def _slice_network(gradients: int, mesh: Mapping[str, int], topology: Topology) -> float:
    """Returns the seconds to sum the gradients, in float32, over the network between slices."""
    if topology.slices == 1:
        return 0.0
    share = 4.0 * gradients / (mesh["fsdp"] * mesh["tensor"])
    device_speed = _HOST_NETWORK / (_HOST_CHIPS * topology.chip.devices)
    return 2 * share * (topology.slices - 1) / topology.slices / device_speed


def prefill_cost(
    cfg: LlamaConfig, topology: Topology, mesh: Mapping[str, int], rows: int, length: int
) -> Cost:
    """Returns the cost of prefilling `rows` prompts of `length` tokens, divided over data and fsdp."""
    tokens, replicas, tensor = rows * length, mesh["data"] * mesh["fsdp"], mesh["tensor"]
    flops = tokens * (2.0 * matrix_parameters(cfg) + attention_flops(cfg, length))
    activations = tokens / replicas * _activation_traffic(cfg, tensor)
    hbm = matrix_parameters(cfg) * 2.0 / tensor + activations
    network = tensor_sums(cfg, tokens / replicas, tensor)
    return _cost(
        topology,
        tokens=tokens,
        flops=flops,
        useful=flops,
        hbm=hbm,
        network=network,
        slices=0.0,
        devices=math.prod(mesh.values()),
        efficiency=training_efficiency(topology.chip),
    )


def _cost(
    topology: Topology,
    *,
    tokens: int,
    flops: float,
    useful: float,
    hbm: float,
    network: float,
    slices: float,
    devices: int,
    efficiency: Efficiency,
) -> Cost:
    device = topology.device
    seconds = {
        "arithmetic": flops / devices / device.flops,
        "memory": hbm / device.bandwidth,
        "network": network / topology.network + slices,
    }
    bound = max(seconds, key=lambda name: seconds[name])
    expected = max(seconds["arithmetic"] / efficiency.value, seconds["memory"], seconds["network"])
    return Cost(tokens, flops, useful, hbm, network, seconds[bound], expected, bound, efficiency)
