"""`ste preflight`: checks all workers; started on each of them like the run itself."""

import dataclasses

from absl import app, flags

from ste_jax.commands.config_flag import define_config

_CONFIG = define_config("Configuration file of the run.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, shared by all workers.")
_WAIT = flags.DEFINE_float("wait", 120.0, "Seconds to wait for the other workers.", lower_bound=0.0)
_DISK = flags.DEFINE_float("min_disk_gb", 20.0, "Required free space in the workdir, in GB.")
_MEMORY = flags.DEFINE_float("min_memory_gb", 4.0, "Required available memory of each host, in GB.")


def main(argv: list[str]) -> None:
    """Runs `ste preflight`; fails if a worker is missing, differs from the others or lacks something."""
    if len(argv) != 2 or _CONFIG.value is None or not _WORKDIR.value:
        raise app.UsageError("preflight requires --config and --workdir")
    # Imported here: the help of a command must not wait for JAX.
    from etils import epath
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ste_jax.config import read_config
    from ste_jax.distributed.preflight import check
    from ste_jax.paths import local_path
    from ste_jax.visible import visible_cell

    met = check(
        dataclasses.asdict(read_config(_CONFIG.value.to_dict())),
        epath.Path(local_path(_WORKDIR.value, "--workdir")),
        wait=_WAIT.value,
        disk=_DISK.value,
        memory=_MEMORY.value,
    )
    table = Table(title=f"ready: commit {met[0]['commit']}, {met[0]['platform']}", title_justify="left")
    names = ("host", "process_index", "local_devices", "devices", "disk_gb", "memory_gb")
    for name in ("worker", *names):
        table.add_column(name.replace("_", " "))
    for i, facts in enumerate(met):
        table.add_row(str(i), *(Text(visible_cell(str(facts[name]))) for name in names))
    Console().print(table)
