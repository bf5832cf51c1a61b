"""The versions that results depend on."""

import platform
from importlib import metadata

from ste_jax import __version__

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers")


def versions() -> dict[str, str]:
    """Returns the versions of Python, this package, and the packages that decide what a run computes."""
    found = {"python": platform.python_version(), "ste-jax": __version__}
    return found | {name: metadata.version(name) for name in _PACKAGES}
