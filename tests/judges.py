"""Judges and models on one of the fake devices of the tests (eight would hold eight copies), and pairs."""

import os
from typing import Any

from ste_jax.judge import Judge
from ste_jax.model import Model

ONE_DEVICE = (1, 1, 1)
X, GOOD, BAD = "Name a river.", "The Rhine is a river.", "A rose is a flower."
PAIRS = [
    {"id": f"r{i}", "instruction": f"{X} ({i})", "response_a": GOOD, "response_b": BAD, "source": f"s{i}"}
    for i in range(5)
]


def load_judge(model: str | os.PathLike[str], **options: Any) -> Judge:
    """Returns `Judge.load` on one device."""
    return Judge.load(model, mesh=ONE_DEVICE, **options)


def load_model(model: str | os.PathLike[str], **options: Any) -> Model:
    """Returns `Model.load` on one device."""
    return Model.load(model, mesh=ONE_DEVICE, **options)
