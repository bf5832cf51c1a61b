"""Where a model is: a file, a folder, or a name on the Hugging Face hub. Loads no JAX."""

import re
from pathlib import Path

from ste_jax.checkpoint import small_model
from ste_jax.errors import SteError
from ste_jax.paths import local_path

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def check_exists(source: str) -> None:
    """Checks the name of a model before the libraries are loaded that open it.

    Raises:
      SteError: see `is_hub_name`.
    """
    if Path(source).name != small_model.NAME:
        is_hub_name(source)


def is_hub_name(source: str) -> bool:
    """Returns True if `source` names a model of the Hugging Face hub rather than a path.

    Raises:
      SteError: It is neither the path of an existing file or folder nor the form of a hub name.
    """
    if local_path(source, "model").exists():
        return False
    if not _HUB_NAME.fullmatch(source):
        raise SteError(
            "file_not_found", f"{source}: no such file or folder, and not a hub name (organisation/model)"
        )
    if source.endswith(".gguf") or Path(source).parent.is_dir():
        raise SteError("file_not_found", f"{source}: no such file or folder; check the path")
    return True
