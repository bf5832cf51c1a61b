"""Published figures of TPU generations, and the slices that are available."""

import dataclasses

_GIB = 2.0**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of one generation of TPU.

    Attributes:
      flops: bfloat16 FLOP/s per chip.
      bandwidth: HBM bandwidth per chip (bytes/s).
      network: Bandwidth between neighbouring chips along one axis, both directions together (bytes/s).
      hbm: HBM limit per device (bytes), from the messages of the compiler (libtpu 0.0.42).
      platform: Name of the generation in the compiler.
      devices: JAX devices per chip.
      cores: Cores per chip in the names of slices. 1: names count chips.
      shapes: Sides of a slice by its number of chips.
    """

    flops: float
    bandwidth: float
    network: float
    hbm: float
    platform: str
    devices: int
    cores: int
    shapes: dict[int, str]


_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_SOLID = {
    4: "2x2x1",
    8: "2x2x2",
    16: "2x2x4",
    32: "2x4x4",
    64: "4x4x4",
    128: "4x4x8",
    192: "4x4x12",
    256: "4x8x8",
    320: "4x4x20",
    384: "4x8x12",
    448: "4x4x28",
    512: "8x8x8",
    640: "4x8x20",
    768: "8x8x12",
    1024: "8x8x16",
    1280: "8x8x20",
    1536: "8x12x16",
    2048: "8x16x16",
    3072: "12x16x16",
    4096: "16x16x16",
    6144: "16x16x24",
    8192: "16x16x32",
    9216: "16x24x24",
}


def _solid(most: int) -> dict[int, str]:
    return {chips: shape for chips, shape in _SOLID.items() if chips <= most}


# Figures and shapes: the TPU pages of docs.cloud.google.com (v4, v5e, v5p, v6e, tpu7x), September 2025. The
# pages mention full cubes of further sizes; the table has those that the pages and MaxText list.
# Network along an axis: "How to Scale Your Model", chapter TPUs; tpu7x: 1,200 GB/s per chip on three axes.
CHIPS = {
    "v4": Chip(275e12, 1228e9, 90e9, 30.75 * _GIB, "v4", 1, 2, _solid(4096)),
    "v5e": Chip(197e12, 819e9, 90e9, 15.75 * _GIB, "v5e", 1, 1, _FLAT),
    "v5p": Chip(459e12, 2765e9, 180e9, 95.74 * _GIB, "v5p", 1, 2, _solid(6144)),
    "v6e": Chip(918e12, 1640e9, 180e9, 31.25 * _GIB, "v6e", 1, 1, _FLAT),
    "tpu7x": Chip(2307e12, 7380e9, 400e9, 94.75 * _GIB, "tpu7x", 2, 2, {1: "1x1x1", **_solid(9216)}),
}
