"""Speed of training steps in the log: seconds, tokens per second, and model FLOPs utilization (MFU)."""

import logging

import jax

_log = logging.getLogger(__name__)
# Published dense bf16 FLOP/s of a device, by `jax.Device.device_kind`: the TPU pages of Google Cloud, and
# NVIDIA's data sheets (whose figures with sparsity are twice as high).
_PEAK = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100-SXM4-40GB": 312e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA A100 80GB PCIe": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
}


def log_step(
    step: int, total: int, *, tokens: int, seconds: float, parameters: int, mesh: jax.sharding.Mesh
) -> None:
    """Logs the speed of one step.

    MFU counts 6 FLOPs per parameter and token: all parameters trained, attention not counted. It is left out
    on devices whose peak is unknown.

    Args:
      step: number of the finished step.
      total: number of steps of the training.
      tokens: tokens of the batch, padding excluded.
      seconds: duration of the step.
      parameters: number of parameters of the model.
      mesh: devices that the step ran on.
    """
    seconds = max(seconds, 1e-9)
    peak = _PEAK.get(mesh.devices.flat[0].device_kind)
    mfu = f", MFU {utilization(parameters, tokens / seconds, mesh.size, peak):.1%}" if peak else ""
    _log.info("step %d of %d: %.2f s, %.0f tokens/s%s", step, total, seconds, tokens / seconds, mfu)


def utilization(parameters: int, tokens_per_second: float, devices: int, peak: float) -> float:
    """Returns the share of the peak FLOP/s of all devices that the model's own FLOPs take."""
    return 6 * parameters * tokens_per_second / (devices * peak)
