"""Assertions about user errors: their class, their code, and the place that they name; never sentences."""

import contextlib
from collections.abc import Iterator

import pytest

from ste_jax.errors import SteError


@contextlib.contextmanager
def raises(code: str, *places: str) -> Iterator[None]:
    """Expects a `SteError` with this code whose message contains each of the names (a file, row or field)."""
    with pytest.raises(SteError) as caught:
        yield
    assert caught.value.code == code
    for place in places:
        assert place in str(caught.value), f"{place!r} is not named in: {caught.value}"
