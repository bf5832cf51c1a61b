"""The pairs that a report is about: labelled ones if the user has given any, else constructed ones."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Basis:
    """Numbers of all models on the pairs that lead the report.

    Attributes:
      models: the models, seed first, with their numbers on these pairs.
      name: what the pairs are called.
      is_labelled: True if people have labelled them.
    """

    models: list[dict[str, Any]]
    name: str
    is_labelled: bool


def basis_of(summary: dict[str, Any]) -> Basis:
    """Returns the numbers on the labelled pairs of the user if every model has them, else on the test pairs.

    Both have the same keys, so that headline, tables and figures need not know which they show.
    """
    models = summary["models"]
    if models and all(model.get("labelled") for model in models):
        return Basis([model | model["labelled"] for model in models], "labelled pairs", True)
    return Basis(models, "constructed pairs", False)
