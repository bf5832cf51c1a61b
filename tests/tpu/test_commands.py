"""Every shipped command line fits the slice that it names: the config is read and its meshes are counted."""

import ast
import math
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from ste_jax.config import RunConfig, read_config
from ste_jax.plan.topology import Topology, parse_topology
from ste_jax.sharding import whole_mesh_sizes
from ste_jax.shipped import read_config_file

ROOT = Path(__file__).parents[2]
FILES = ("README.md", "docs/*.md", "tpu/*", "configs/*.py", "ste_jax/configs/*.py")
GENERATIONS = {
    "tpu-v4-podslice": "v4",
    "tpu-v5-lite-podslice": "v5e",
    "tpu-v5p-slice": "v5p",
    "tpu-v6e-slice": "v6e",
    "tpu7x": "tpu7x",
}


class Shipped(NamedTuple):
    """A command line of the repository."""

    where: str
    words: list[str]

    def flag(self, name: str) -> str:
        values = [word.partition("=")[2] for word in self.words if word.startswith(f"--{name}=")]
        return values[-1] if values else ""


def shipped() -> list[Shipped]:
    found = []
    for path in sorted({path for pattern in FILES for path in ROOT.glob(pattern) if path.suffix != ".png"}):
        text = re.sub(r"\\{1,2}\n\s*", " ", path.read_text())
        for line in text.splitlines():
            match = re.search(r"\b(ste|watch\.sh|run\.sh) .*--config=[\w/]\S+.*", line)
            if match and "--config=CONFIG" not in line:
                words = shlex.split(match[0].split("`")[0], comments=True)
                found.append(Shipped(str(path.relative_to(ROOT)), words))
    return found


def read(command: Shipped) -> RunConfig:
    """Reads the config of a command, with its argument and the fields that the command sets."""
    value = command.flag("config")
    config = read_config_file(ROOT / value if value.startswith("configs/") else value)
    for word in command.words:
        if match := re.fullmatch(r"--config\.([\w.]+)=(.*)", word):
            *sections, name = match[1].split(".")
            section = config
            for part in sections:
                section = section.setdefault(part, {})
            # A field that the file leaves out is a text here: other shipped commands set none.
            old = section.get(name, "")
            section[name] = match[2] if isinstance(old, str) else type(old)(ast.literal_eval(match[2]))
    return read_config(config)


def slices(command: Shipped) -> list[Topology]:
    """Returns the slices that a command names; none if it leaves them to the reader."""
    argument = command.flag("config").partition(":")[2]
    if command.flag("topology"):
        names = command.flag("topology").split(",")
    elif command.flag("type"):
        names = [f"{command.flag('slices') or 1}x{command.flag('type')}"]
    else:
        names = [argument] if argument not in ("", "runlocal") else []
    return [parse_topology(name) for name in names]


def assert_fits(config: RunConfig, topology: Topology) -> None:
    for mesh in (config.mesh, config.train_mesh or config.mesh):
        data, *_ = whole_mesh_sizes(mesh, topology.devices, topology.name)
        assert data % topology.slices == 0, f"{mesh} crosses the {topology.slices} slices"


COMMANDS = shipped()


def test_the_commands_are_found() -> None:
    assert {"README.md", "docs/TPU.md", "tpu/README.md", "tpu/jobset.yaml"} <= {c.where for c in COMMANDS}
    assert any(command.flag("type") for command in COMMANDS)
    assert sum(bool(slices(command)) for command in COMMANDS) >= 8


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: f"{c.where}: {' '.join(c.words)}"[:90])
def test_a_command_fits_its_slice(command: Shipped) -> None:
    config = read(command)
    if "--sweep" in command.words:  # it chooses the meshes itself
        return
    for topology in slices(command):
        assert_fits(config, topology)
        # Each host would download a model of the hub.
        assert "run" not in command.words or config.model.startswith("/"), f"{config.model} is a hub name"


def only(found: list[Any]) -> Any:
    (item,) = found
    return item


def test_the_jobset_fits_its_slices() -> None:
    spec = yaml.safe_load((ROOT / "tpu" / "jobset.yaml").read_text())["spec"]
    job = only(spec["replicatedJobs"])
    pods = job["template"]["spec"]
    pod = pods["template"]["spec"]
    container = only(pod["containers"])
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    generation = GENERATIONS[pod["nodeSelector"]["cloud.google.com/gke-tpu-accelerator"]]
    chips, hosts = math.prod(int(side) for side in topology.split("x")), pods["parallelism"]
    cores = parse_topology(f"{generation}-8").chip.cores
    named = parse_topology(f"{job['replicas']}x{generation}-{chips * cores}")

    assert named.chip.shapes[named.chips_a_slice] == topology
    assert pods["completions"] == hosts == chips // container["resources"]["limits"]["google.com/tpu"]
    environment = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert int(environment["STE_WORKERS"]) == job["replicas"] * hosts
    line = only(re.findall(r"^export STE_WORKER=.*$", container["args"][0], re.MULTILINE))
    numbers = [
        subprocess.run(
            ["bash", "-c", f"SLICE={slice_} JOB_COMPLETION_INDEX={host}\n{line}\necho $STE_WORKER"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for slice_ in range(job["replicas"])
        for host in range(hosts)
    ]
    assert numbers == [str(i) for i in range(job["replicas"] * hosts)]

    command = only([c for c in COMMANDS if c.where == "tpu/jobset.yaml"])
    config = read(command)
    assert_fits(config, named)
    for path in (command.flag("workdir"), config.model, config.instructions):
        assert path.startswith(only(container["volumeMounts"])["mountPath"] + "/")


@pytest.mark.parametrize("file", ["tpu/jobset.yaml", "tpu/worker_setup.sh"])
def test_workers_install_what_the_shipped_configurations_need(file: str) -> None:
    (extras,) = re.findall(r"-e '\.\[([\w,]+)\]'", (ROOT / file).read_text())
    assert {"tpu", "select", "report"} <= set(extras.split(","))
