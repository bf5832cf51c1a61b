"""Which mesh, micro-batch and recomputation train fastest: counted first, compiled only where it can matter.

Candidates that do not divide the model, or whose arrays alone exceed a device, are never compiled. The others
are compiled best expectation first, and a topology is done when one of them fits: those behind it are not
faster by the same counting. What was compiled is kept in `compiled.jsonl` and not compiled again.
"""

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

FITS, OVER = "fits", "does not fit"
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to train: sizes of data, fsdp and tensor, rows of a step and at once, what is recomputed."""

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
        # The mesh of decoding takes no part; it must only suit the other settings' checks.
        return dataclasses.replace(config, train=train, train_mesh=self.mesh)


@dataclasses.dataclass
class Row:
    """What became of a candidate; `least_bytes` is the counted bound, `peak_bytes` the compiler's word."""

    candidate: Candidate
    verdict: str
    least_bytes: float = 0.0
    tokens_per_s_per_chip: float = 0.0
    expected_s: float = 0.0
    roofline_s: float = 0.0
    bound: str = ""
    peak_bytes: int | None = None
    compile_s: float | None = None
    tokens_per_unit: float | None = None


def candidates(
    cfg: LlamaConfig, topology: Topology, batch_rows: Sequence[int], remats: Sequence[Remat]
) -> Iterator[Candidate]:
    """Yields every way to lay devices on the axes, with every micro-batch that divides a step."""
    devices = topology.devices // topology.slices
    for tensor in range(1, cfg.num_kv_heads + 1):
        if devices % tensor or cfg.num_kv_heads % tensor:
            continue
        shards = topology.slices * (devices // tensor)
        mesh = (topology.slices, devices // tensor, tensor)
        for rows, remat in itertools.product(batch_rows, remats):
            for micro in range(shards, rows + 1, shards):
                if rows % micro == 0:
                    yield Candidate(topology.name, mesh, rows, micro, remat)


def least_bytes(cfg: LlamaConfig, config: RunConfig) -> float:
    """Returns bytes that a device holds whatever the compiler does: state, gradients, kept activations."""
    train, (data, fsdp, tensor) = config.train, config.train_mesh
    size = {"float32": 4, "bfloat16": 2}
    # Parameters and gradients, of adamw second moments too; first moments.
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
    config: RunConfig, cfg: LlamaConfig, topology: Topology, candidate: Candidate, targets: float
) -> Row:
    """Counts a candidate; the verdict is "" if only compiling can tell."""
    config = candidate.apply(config)
    mesh = phase_mesh(config.train.method, config, topology)
    try:
        check_divisible(cfg, TRAIN, mesh.shape)
        check_rows(config.train, TRAIN, mesh.shape)
    except ValueError as error:
        return Row(candidate, f"not divisible: {error}")
    cost = train_cost(cfg, topology, dict(mesh.shape), config.train, targets)
    least = least_bytes(cfg, config)
    return Row(
        candidate,
        "over by counting" if least > topology.chip.hbm else "",
        least_bytes=least,
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
    say: Callable[[str], None],
) -> list[Row]:
    """Counts all candidates and compiles what the module's docstring says.

    Args:
      config: what the candidates leave as it is.
      cfg: the model.
      topologies: to compare.
      lengths: mean tokens, of which the share of targets follows.
      batch_rows: rows of a step to try.
      remats: recomputation to try.
      exhaustive: compiles also what cannot be the best any more.
      folder: of `compiled.jsonl`.
      say: told before every compilation.
    """
    cache = _Cache(folder / "compiled.jsonl")
    rows = []
    for topology in topologies:
        ways = candidates(cfg, topology, batch_rows, remats)
        mine = [judge(config, cfg, topology, way, lengths.target_share) for way in ways]
        # Of equals the one with the least network time, then the one that holds least.
        mine.sort(key=lambda row: (-row.tokens_per_s_per_chip, row.roofline_s, row.least_bytes))
        found = False
        for row in mine:
            if row.verdict:
                continue
            if found and not exhaustive:
                row.verdict = "no faster than one that fits"
                continue
            _compile(row, config, cfg, lengths, cache, say)
            found = found or row.verdict == FITS
        rows += mine
    return rows


def _compile(
    row: Row,
    config: RunConfig,
    cfg: LlamaConfig,
    lengths: Lengths,
    cache: "_Cache",
    say: Callable[[str], None],
) -> None:
    config = row.candidate.apply(config)
    key = digest([dataclasses.asdict(row.candidate), dataclasses.asdict(config.train), cfg.to_json()])
    if key not in cache.known:
        say(f"compiling {row.candidate}")
        plan = in_child(plan_phase, config.train.method, config, cfg, row.candidate.topology, lengths)
        cache.add(key, {"fits": plan.fits, "peak": plan.peak_hbm_bytes, "seconds": plan.compile_s})
    known = cache.known[key]
    row.verdict = FITS if known["fits"] else OVER
    row.peak_bytes, row.compile_s = known["peak"], known["seconds"]


class _Cache:
    """What was compiled, a line each; a line that a kill cut short is left out."""

    def __init__(self, path: Path):
        self._path = path
        self.known: dict[str, dict[str, Any]] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            self.known[entry["key"]] = entry

    def add(self, key: str, value: dict[str, Any]) -> None:
        self.known[key] = value
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a") as file:
            file.write("\n" * self._torn() + json.dumps({"key": key, **value}) + "\n")

    def _torn(self) -> bool:
        text = self._path.read_text() if self._path.exists() else ""
        return bool(text) and not text.endswith("\n")


def set_prices(rows: Sequence[Row], prices: dict[str, float]) -> None:
    """Fills in the tokens that a unit of money trains on; `prices` are of a chip-hour, by topology."""
    for row in rows:
        if unit := prices.get(row.candidate.topology):
            row.tokens_per_unit = row.tokens_per_s_per_chip * 3600 / unit


def best(rows: Sequence[Row], field: str) -> Row | None:
    """Returns the row of the highest value among those that fit."""
    fitting = [row for row in rows if row.verdict == FITS and getattr(row, field) is not None]
    return max(fitting, key=lambda row: getattr(row, field), default=None)


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Writes a line a candidate, in the order of the sweep."""
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


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draws expected speed over memory, a colour a topology; what fits is filled."""
    with needs("report"):
        from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for color, (topology, mine) in enumerate(_by_topology(rows).items()):
        for verdict, filled in ((FITS, True), (OVER, False)):
            some = [row for row in mine if row.verdict == verdict]
            axes.scatter(
                [(row.peak_bytes or row.least_bytes) / _GIB for row in some],
                [row.tokens_per_s_per_chip for row in some],
                color=f"C{color}",
                facecolors=f"C{color}" if filled else "none",
                label=f"{topology}, {verdict}" if some else None,
            )
    axes.set_xlabel("GiB a device (the compiler's peak; where it gave up, the counted least)")
    axes.set_ylabel("expected tokens/s/chip")
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    figure.savefig(path, dpi=120)


def _by_topology(rows: Sequence[Row]) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.candidate.topology, []).append(row)
    return grouped
