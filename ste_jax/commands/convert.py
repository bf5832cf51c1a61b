"""`ste convert`: somebody else's model -> a model folder of ours, ours -> a Hugging Face folder."""

from pathlib import Path

from absl import app, flags

from ste_jax.checkpoint.export import export_model
from ste_jax.checkpoint.folder import import_model
from ste_jax.checkpoint.source import ModelSource, download, is_hub_name, open_model
from ste_jax.commands.mesh import MESH, asked_mesh
from ste_jax.distributed import process
from ste_jax.distributed.rendezvous import session
from ste_jax.paths import local_path
from ste_jax.sharding import make_mesh

_DTYPE = flags.DEFINE_enum(
    "dtype", "", ["", "float32", "bfloat16"], "Of an imported model's parameters; empty: as they are stored."
)


def main(argv: list[str]) -> None:
    """Runs `ste convert SOURCE FOLDER`; started again after a kill, it goes on where it was."""
    if len(argv) != 4:
        raise app.UsageError("convert wants a model and the folder to write")
    folder = local_path(argv[3], "the folder to write")
    with session(folder.parent, {"source": argv[2]}):
        wrote = _convert(open_model(_local(argv[2], folder)), folder)
    print(f"{folder}: {'written' if wrote else 'exists already'}")


def _local(source: str, folder: Path) -> str | Path:
    """Returns the source, or a shared copy of a model of the hub that process zero downloads for all."""
    if process.count() == 1 or not is_hub_name(source):
        return source
    shared = folder.with_name(f"{folder.name}.download")
    process.on_process_zero(lambda: download(source, shared))
    return shared


def _convert(source: ModelSource, folder: Path) -> bool:
    if source.weights is not None:
        return import_model(source, folder, make_mesh(asked_mesh()), _DTYPE.value)
    if _DTYPE.value or MESH.present:
        raise ValueError("convert: --dtype and --mesh are for imports; an export keeps what is stored")
    return export_model(source, folder)
