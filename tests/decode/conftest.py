"""The tiny model of the tests of decoding, on one device."""

import pytest

from tests.decode.tiny import ModelOnMesh, tiny_model


@pytest.fixture(scope="session")
def model() -> ModelOnMesh:
    return tiny_model()
