"""`ste convert`: a Hugging Face model or GGUF file to a model folder, a model folder to Hugging Face."""

from pathlib import Path
from typing import TYPE_CHECKING

from absl import app, flags

from ste_jax.commands.mesh import MESH, mesh_shape
from ste_jax.errors import SteError
from ste_jax.visible import visible

if TYPE_CHECKING:
    from ste_jax.checkpoint.source import ModelSource

_DTYPE = flags.DEFINE_enum(
    "dtype",
    "",
    ["", "float32", "bfloat16"],
    "Dtype of an imported model's parameters. Empty: the dtype they are stored in.",
)
_LICENSE = flags.DEFINE_string(
    "license",
    "",
    "Licence for the README of an export: its identifier on the Hugging Face hub, such as apache-2.0.",
)
_BASE_MODEL = flags.DEFINE_string(
    "base_model",
    "",
    "Hub name of the base model for the README of an export. Empty: the name of the run's.",
)


def main(argv: list[str]) -> None:
    """Runs `ste convert SOURCE FOLDER`; the same command continues after a kill."""
    if len(argv) != 4:
        raise app.UsageError("convert needs a model and the folder to write")
    # Imported here: the help of a command must not wait for JAX.
    from ste_jax.checkpoint.source import open_model
    from ste_jax.distributed.rendezvous import session
    from ste_jax.paths import check_folder, local_path

    folder = local_path(argv[3], "target folder")
    check_folder(folder, "target folder")
    with session(folder.parent, {"source": argv[2]}):
        written = _convert(open_model(_local(argv[2], folder)), folder)
    print(f"{visible(str(folder))}: {'written' if written else 'exists already'}")


def _local(source: str, folder: Path) -> str | Path:
    """Returns the source, or a shared copy of a model of the hub that process zero downloads for all."""
    from ste_jax.checkpoint.location import is_hub_name
    from ste_jax.checkpoint.source import download
    from ste_jax.distributed import process

    if process.count() == 1 or not is_hub_name(source):
        return source
    shared = folder.with_name(f"{folder.name}.download")
    process.on_process_zero(lambda: download(source, shared))
    return shared


def _convert(source: "ModelSource", folder: Path) -> bool:
    from ste_jax.checkpoint.folder import import_model
    from ste_jax.judging.readme import export_judge
    from ste_jax.sharding import make_mesh

    if source.weights is not None:
        if _LICENSE.value or _BASE_MODEL.value:
            raise SteError("flags_conflict", "convert: --license and --base_model apply to exports")
        return import_model(source, folder, make_mesh(mesh_shape()), _DTYPE.value)
    if _DTYPE.value or MESH.present:
        raise SteError(
            "flags_conflict", "convert: --dtype and --mesh apply to imports; an export keeps the stored dtype"
        )
    return export_judge(source, folder, license_=_LICENSE.value, base_model=_BASE_MODEL.value)
