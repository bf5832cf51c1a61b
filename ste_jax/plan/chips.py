"""Published figures of TPU generations, and the topologies that the compiler knows them by."""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip: bf16 FLOP/s and HBM bytes/s, published; HBM bytes that the compiler lets a program use.

    Sources: the TPU pages of docs.cloud.google.com (v4, v5e, v5p, v6e); HBM limits from the compiler's own
    messages (libtpu 0.0.42).
    """

    flops: float
    bandwidth: float
    hbm: float
    platform: str
    cores_a_name: int
    shapes: dict[int, str]


_GIB = 2.0**30
_FLAT = {1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}
_CUBE = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4", 128: "4x4x8", 256: "4x8x8"}
CHIPS = {
    "v5e": Chip(197e12, 819e9, 15.75 * _GIB, "v5e", 1, _FLAT),
    "v5p": Chip(459e12, 2765e9, 95.74 * _GIB, "v5p", 2, _CUBE),
    "v6e": Chip(918e12, 1640e9, 31.25 * _GIB, "v6e", 1, _FLAT),
}


def parse_slice(name: str) -> tuple[Chip, int]:
    """Returns the chip and the number of chips of a slice named as in Cloud TPU: "v6e-8", "v5p-8".

    Raises:
      ValueError: no such slice; v5p counts cores, two a chip, the others chips.
    """
    match = re.fullmatch(r"(v5e|v5litepod|v5p|v6e)-(\d+)", name)
    if not match:
        raise ValueError(f"slice {name!r}: wants a name like v5e-16, v5p-8 or v6e-8")
    generation = match[1].replace("v5litepod", "v5e")
    chip = CHIPS[generation]
    count, rest = divmod(int(match[2]), chip.cores_a_name)
    if rest or count not in chip.shapes:
        sizes = [f"{generation}-{n * chip.cores_a_name}" for n in chip.shapes]
        unit = "cores, two a chip" if chip.cores_a_name == 2 else "chips"
        raise ValueError(f"slice {name!r} does not exist; {generation} counts {unit}: {', '.join(sizes)}")
    return chip, count


def topology_name(name: str) -> str:
    """Returns the compiler's name of a slice: "v6e:2x4" for "v6e-8"."""
    chip, count = parse_slice(name)
    return f"{chip.platform}:{chip.shapes[count]}"
