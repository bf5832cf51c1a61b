"""Search for the mesh, micro-batch and recomputation that train fastest.

Candidates that do not divide the model, or whose arrays alone exceed the memory of a device, are not
compiled. The others are compiled in the order of their expected speed, and the search on a topology ends with
the first that fits. Results of the compiler are stored in `compiled.jsonl` and reused.
"""

import contextlib
import csv
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ste_jax.config import RunConfig
from ste_jax.extras import needs
from ste_jax.models.llama import LlamaConfig, check_divisible
from ste_jax.plan.assumptions import Lengths
from ste_jax.plan.compile import in_child
from ste_jax.plan.cost import matrix_parameters, train_cost, trained_parameters
from ste_jax.plan.phases import phase_mesh, plan_phase
from ste_jax.plan.topology import Topology
from ste_jax.sharding import TRAIN
from ste_jax.storage.files import digest
from ste_jax.training.settings import Remat
from ste_jax.training.step import check_rows

FITS, OOM = "fits", "OOM"
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class SweepCandidate:
    """One way to train: mesh sizes, rows per step, rows per micro-batch and recomputation."""

    topology: str
    mesh: tuple[int, int, int]
    batch_rows: int
    micro_rows: int
    remat: Remat

    def apply(self, config: RunConfig) -> RunConfig:
        """Returns the configuration that trains this way."""
        train = dataclasses.replace(
            config.train, batch_rows=self.batch_rows, micro_rows=self.micro_rows, remat=self.remat
        )
        # The decoding mesh stays: it is not used here, but checked with the rest of the configuration.
        return dataclasses.replace(config, train=train, train_mesh=self.mesh)


@dataclasses.dataclass
class SweepResult:
    """Result for a candidate.

    Attributes:
      candidate: The candidate.
      verdict: `FITS`, `OOM` or the reason why it was not compiled.
      min_bytes: Lower bound of the memory per device (bytes), by counting.
      tokens_per_s_per_chip: Expected tokens per second and chip.
      expected_s: Expected duration of a step in seconds.
      roofline_s: Lower bound of the duration of a step in seconds.
      bound: Resource that bounds a step: "arithmetic", "memory" or "network".
      peak_bytes: Peak memory per device (bytes) by the compiler. None: not compiled or OOM.
      compile_s: Duration of the compilation in seconds.
      tokens_per_unit: Tokens trained on per unit of money.
    """

    candidate: SweepCandidate
    verdict: str
    min_bytes: float = 0.0
    tokens_per_s_per_chip: float = 0.0
    expected_s: float = 0.0
    roofline_s: float = 0.0
    bound: str = ""
    peak_bytes: int | None = None
    compile_s: float | None = None
    tokens_per_unit: float | None = None


def candidates(
    cfg: LlamaConfig, topology: Topology, batch_rows: Sequence[int], remats: Sequence[Remat]
) -> Iterator[SweepCandidate]:
    """Yields all divisions of devices between mesh axes, with each micro-batch that divides a step."""
    devices = topology.devices // topology.slices
    for tensor in range(1, cfg.num_kv_heads + 1):
        if devices % tensor or cfg.num_kv_heads % tensor:
            continue
        shards = topology.slices * (devices // tensor)
        mesh = (topology.slices, devices // tensor, tensor)
        for rows, remat in itertools.product(batch_rows, remats):
            for micro in range(shards, rows + 1, shards):
                if rows % micro == 0:
                    yield SweepCandidate(topology.name, mesh, rows, micro, remat)


def min_bytes(cfg: LlamaConfig, config: RunConfig) -> float:
    """Returns a lower bound of the memory per device (bytes): state, gradients and saved activations."""
    train, (data, fsdp, tensor) = config.train, config.train_mesh
    size = {"float32": 4, "bfloat16": 2}
    # Parameters, gradients and (adamw) second moments in param_dtype, first moments in moment_dtype.
    wide = 3 if train.optimizer == "adamw" else 2
    state = wide * size[train.param_dtype] + size[train.moment_dtype]
    parameters = trained_parameters(cfg, train) * state / (fsdp * tensor)
    if train.lora_rank:
        parameters += cfg.parameter_count * size[train.dtype] / (fsdp * tensor)
    tokens = train.micro_rows / (data * fsdp) * train.row_length
    kept = float(cfg.hidden_size)
    if train.remat != "full":
        heads = (cfg.num_heads + 2 * cfg.num_kv_heads) * cfg.head_dim
        kept += 2 * cfg.hidden_size + (heads + 2 * cfg.intermediate_size) / tensor
    gathered = 2.0 * matrix_parameters(cfg) / cfg.num_layers / tensor
    return parameters + size[train.dtype] * kept * tokens * cfg.num_layers + gathered


def judge(
    config: RunConfig, cfg: LlamaConfig, topology: Topology, candidate: SweepCandidate, targets: float
) -> SweepResult:
    """Returns the result of counting; the verdict is "" if the candidate has to be compiled."""
    config = candidate.apply(config)
    mesh = phase_mesh(config.train.objective, config, topology)
    try:
        check_divisible(cfg, TRAIN, mesh.shape)
        check_rows(config.train, TRAIN, mesh.shape)
    except ValueError as error:
        return SweepResult(candidate, f"not divisible: {error}")
    cost = train_cost(cfg, topology, dict(mesh.shape), config.train, targets)
    least = min_bytes(cfg, config)
    return SweepResult(
        candidate,
        "OOM by counting" if least > topology.chip.hbm else "",
        min_bytes=least,
        tokens_per_s_per_chip=cost.tokens_per_chip(topology.chips),
        expected_s=cost.expected_s,
        roofline_s=cost.roofline_s,
        bound=cost.bound,
    )


def sweep(
    config: RunConfig,
    cfg: LlamaConfig,
    topologies: Sequence[Topology],
    lengths: Lengths,
    *,
    batch_rows: Sequence[int],
    remats: Sequence[Remat],
    exhaustive: bool,
    folder: Path,
    on_compile: Callable[[str], None],
) -> list[SweepResult]:
    """Counts all candidates, and compiles those that may be the fastest (see the module docstring).

    Args:
      config: configuration; candidates replace some of its values.
      cfg: architecture of the model.
      topologies: topologies to compare.
      lengths: mean lengths, which determine the share of targets.
      batch_rows: numbers of rows per step to try.
      remats: values of `train.remat` to try.
      exhaustive: also compile candidates that are expected to be slower than one that fits.
      folder: folder of `compiled.jsonl`.
      on_compile: called with a message before each compilation.
    """
    cache = _Cache(folder / "compiled.jsonl")
    rows = []
    for topology in topologies:
        ways = candidates(cfg, topology, batch_rows, remats)
        found = [judge(config, cfg, topology, way, lengths.target_share) for way in ways]
        # Ties: least network time first, then least memory.
        found.sort(key=lambda row: (-row.tokens_per_s_per_chip, row.roofline_s, row.min_bytes))
        fits = False
        for row in found:
            if row.verdict:
                continue
            if fits and not exhaustive:
                row.verdict = "slower than one that fits"
                continue
            _compile(row, config, cfg, lengths, cache, on_compile)
            fits = fits or row.verdict == FITS
        rows += found
    return rows


def _compile(
    row: SweepResult,
    config: RunConfig,
    cfg: LlamaConfig,
    lengths: Lengths,
    cache: "_Cache",
    on_compile: Callable[[str], None],
) -> None:
    config = row.candidate.apply(config)
    key = digest([dataclasses.asdict(row.candidate), dataclasses.asdict(config.train), cfg.to_json()])
    if key not in cache.known:
        on_compile(f"compiling {row.candidate}")
        plan = in_child(plan_phase, config.train.objective, config, cfg, row.candidate.topology, lengths)
        cache.add(key, {"fits": plan.fits, "peak": plan.peak_hbm_bytes, "seconds": plan.compile_s})
    known = cache.known[key]
    row.verdict = FITS if known["fits"] else OOM
    row.peak_bytes, row.compile_s = known["peak"], known["seconds"]


_CACHED = frozenset(("key", "fits", "peak", "seconds"))


class _Cache:
    """Results of the compiler as JSON lines; incomplete and damaged lines are ignored."""

    def __init__(self, path: Path):
        self._path = path
        self.known: dict[str, dict[str, Any]] = {}
        for line in path.read_bytes().splitlines() if path.exists() else ():
            with contextlib.suppress(ValueError, RecursionError):
                entry = json.loads(line)
                if isinstance(entry, dict) and entry.keys() >= _CACHED and isinstance(entry["key"], str):
                    self.known[entry["key"]] = entry

    def add(self, key: str, value: dict[str, Any]) -> None:
        self.known[key] = value
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write("\n" * self._is_torn() + json.dumps({"key": key, **value}) + "\n")

    def _is_torn(self) -> bool:
        text = self._path.read_bytes() if self._path.exists() else b""
        return bool(text) and not text.endswith(b"\n")


def set_prices(rows: Sequence[SweepResult], prices: dict[str, float]) -> None:
    """Sets `tokens_per_unit` of the rows from the prices of a chip-hour by topology."""
    for row in rows:
        if unit := prices.get(row.candidate.topology):
            row.tokens_per_unit = row.tokens_per_s_per_chip * 3600 / unit


def best(rows: Sequence[SweepResult], field: str) -> SweepResult | None:
    """Returns the row with the highest value of a field among those that fit, or None."""
    fitting = [row for row in rows if row.verdict == FITS and getattr(row, field) is not None]
    return max(fitting, key=lambda row: getattr(row, field), default=None)


def write_csv(rows: Sequence[SweepResult], path: Path) -> None:
    """Writes one line per candidate, in the order of the sweep."""
    lines = []
    for row in rows:
        fields = dataclasses.asdict(row)
        candidate = fields.pop("candidate")
        candidate["mesh"] = "x".join(map(str, candidate["mesh"]))
        lines.append({**candidate, **fields})
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)


def plot(rows: Sequence[SweepResult], path: Path) -> None:
    """Plots expected speed over memory, with one color per topology; candidates that fit are filled."""
    with needs("report"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for color, (topology, members) in enumerate(_by_topology(rows).items()):
        for verdict, filled in ((FITS, True), (OOM, False)):
            group = [row for row in members if row.verdict == verdict]
            axes.scatter(
                [(row.peak_bytes or row.min_bytes) / _GIB for row in group],
                [row.tokens_per_s_per_chip for row in group],
                color=f"C{color}",
                facecolors=f"C{color}" if filled else "none",
                label=f"{topology}, {verdict}" if group else None,
            )
    axes.set_xlabel("GiB per device (peak by the compiler; for OOM, the counted lower bound)")
    axes.set_ylabel("expected tokens/s/chip")
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    figure.savefig(path, dpi=120)


def _by_topology(rows: Sequence[SweepResult]) -> dict[str, list[SweepResult]]:
    grouped: dict[str, list[SweepResult]] = {}
    for row in rows:
        grouped.setdefault(row.candidate.topology, []).append(row)
    return grouped
