"""Imports of libraries that only an extra of the package installs."""

import contextlib
import importlib.util
from collections.abc import Iterator

from ste_jax.errors import SteError


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Names the extra to install if an import in the block finds no such library.

    Args:
      extra: a key of `project.optional-dependencies` in pyproject.toml.

    Raises:
      SteError: "extra_missing".
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise SteError(
            "extra_missing", f"{error.name} is not installed; run: pip install 'ste-jax[{extra}]'"
        ) from error


def require(extra: str, *modules: str) -> None:
    """Checks that libraries of an extra are installed, without loading them.

    Args:
      extra: a key of `project.optional-dependencies` in pyproject.toml.
      *modules: names of top-level modules.

    Raises:
      SteError: "extra_missing".
    """
    with needs(extra):
        for module in modules:
            if not importlib.util.find_spec(module):
                raise ModuleNotFoundError(name=module)
