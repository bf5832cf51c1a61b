"""Self-taught LLM judges on JAX (the method of arXiv 2408.02666).

Importing the package loads neither JAX nor any other library; each public name loads what it needs when it is
first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ste_jax.data.comparisons import load_pairs as load_pairs
    from ste_jax.errors import SteError as SteError
    from ste_jax.evaluation.run import evaluate as evaluate
    from ste_jax.judge import Judge as Judge
    from ste_jax.model import Model as Model
    from ste_jax.pipeline import run as run

__version__ = "0.1.0"
_MODULES = {
    "Judge": "ste_jax.judge",
    "Model": "ste_jax.model",
    "SteError": "ste_jax.errors",
    "evaluate": "ste_jax.evaluation.run",
    "load_pairs": "ste_jax.data.comparisons",
    "run": "ste_jax.pipeline",
}
__all__ = ["Judge", "Model", "SteError", "__version__", "evaluate", "load_pairs", "run"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
