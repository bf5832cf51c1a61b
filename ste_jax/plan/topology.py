"""TPU slices by their Cloud TPU names: "v5p-128", "v5litepod-16", "2xv6e-256" for two slices."""

import dataclasses
import math
import re
from typing import Any

from jax.experimental import topologies

from ste_jax.errors import SteError
from ste_jax.plan.chips import CHIPS, Chip

_ALIASES = {"v5litepod": "v5e", "v5lite": "v5e", "v7x": "tpu7x", "7x": "tpu7x"}


@dataclasses.dataclass(frozen=True)
class Topology:
    """One or several equal slices of a generation.

    Attributes:
      name: Cloud TPU name, with the number of slices in front if there are several.
      chip: Figures of the generation.
      slices: Number of slices, which are connected by the slower data-center network.
      chips_a_slice: Chips per slice.
    """

    name: str
    chip: Chip
    slices: int
    chips_a_slice: int

    @property
    def chips(self) -> int:
        """Number of chips of all slices."""
        return self.slices * self.chips_a_slice

    @property
    def devices(self) -> int:
        """Number of JAX devices of all hosts."""
        return self.chips * self.chip.devices

    @property
    def compiler_name(self) -> str:
        """Name of one slice in the compiler, such as "v6e:2x4"."""
        return f"{self.chip.platform}:{self.chip.shapes[self.chips_a_slice]}"

    @property
    def device(self) -> Chip:
        """Figures of one device; a chip may have several."""
        share = 1 / self.chip.devices
        return dataclasses.replace(
            self.chip,
            flops=self.chip.flops * share,
            bandwidth=self.chip.bandwidth * share,
            network=self.chip.network * share,
        )

    @property
    def network(self) -> float:
        """Bandwidth of the links of a device inside its slice (bytes/s); an axis that is no ring has half."""
        sides = [int(side) for side in self.chip.shapes[self.chips_a_slice].split("x")]
        whole = 16 if len(sides) == 2 else 4  # minimum length of an axis that is a ring
        rings = [1.0 if side >= whole else 0.5 for side in sides if side > 1]
        return self.device.network * (sum(rings) or 0.5)

    def describe(self) -> list[Any]:
        """Returns the devices to compile programs for; needs libtpu."""
        options: dict[str, Any] = {"num_slices": self.slices} if self.slices > 1 else {}
        if self.chip.platform == "v4":
            options["chip_config_name"] = "megacore"  # otherwise the compiler sees two devices per chip
        if self.chips_a_slice == 1:
            # Otherwise the compiler expects the four chips of a host.
            options["chips_per_host_bounds"] = (1, 1, 1)
        found = topologies.get_topology_desc(platform="tpu", topology_name=self.compiler_name, **options)
        return list(found.devices)


def parse_topology(name: str) -> Topology:
    """Returns the slices of a name like "v5p-128", "v5litepod-16" or "2xv6e-256".

    Raises:
      SteError: "topology_unknown" for a name of another form or a slice that does not exist.
    """
    match = re.fullmatch(r"(?:([1-9]\d*)x)?([a-z0-9]+)-([1-9]\d*)", name.strip().lower())
    generation = _ALIASES.get(match[2], match[2]) if match else ""
    if not match or generation not in CHIPS:
        raise SteError(
            "topology_unknown",
            f"topology {name!r} must be a generation ({', '.join(CHIPS)}) and a size, such as v5e-16, "
            "v5p-128, or 2xv5p-128 for two slices",
        )
    chip, slices = CHIPS[generation], int(match[1] or 1)
    chips, rest = divmod(int(match[3]), chip.cores)
    if rest or chips not in chip.shapes:
        raise SteError("topology_unknown", _no_such_slice(name, generation, int(match[3])))
    prefix = f"{slices}x" if slices > 1 else ""
    return Topology(f"{prefix}{generation}-{chips * chip.cores}", chip, slices, chips)


def _no_such_slice(name: str, generation: str, number: int) -> str:
    chip = CHIPS[generation]
    sizes = [chips * chip.cores for chips in chip.shapes]
    if chip.cores == 1:
        unit = "chips"
        other = f"{generation}-{number // 2}" if number // 2 in sizes else ""
        hint = f"; its size counts chips, not cores: {other} has {number // 2} chips" if other else ""
    else:
        unit = f"cores, {chip.cores} per chip"
        other = number * chip.cores
        hint = f"; {number} chips are {generation}-{other}" if number in chip.shapes else ""
    near = sorted(sorted(sizes, key=lambda size: abs(math.log(size / number)))[:4])
    return (
        f"topology {name!r} does not exist; the size of {generation} counts {unit}{hint}; nearest sizes: "
        f"{', '.join(f'{generation}-{size}' for size in near)} (of {generation}-{sizes[0]} to "
        f"{generation}-{sizes[-1]})"
    )
