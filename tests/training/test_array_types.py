"""The arrays of dataclasses of training have the shapes and dtypes that their annotations declare."""

import dataclasses
import typing

import jax
import jax.numpy as jnp
import numpy as np
from beartype.door import is_bearable
from jaxtyping import jaxtyped

from ste_jax.sharding import TRAIN
from ste_jax.training.batch import Batches
from ste_jax.training.step import abstract_state
from tests.training.training_cases import TINY, examples, one_device, settings


def ill_typed(value) -> list[str]:
    """Returns the fields of a dataclass whose arrays do not have the declared type.

    Axes of one name must have one size in all fields.
    """
    with jaxtyped("context"):
        hints = typing.get_type_hints(type(value))
        return [name for name, hint in hints.items() if not is_bearable(getattr(value, name), hint)]


def test_a_training_state_has_the_declared_types() -> None:
    with jax.set_mesh(one_device()):
        state = abstract_state(TINY, TRAIN, settings(), 10)
    state = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state)
    assert ill_typed(state) == []
    assert ill_typed(dataclasses.replace(state, step=jnp.float32(0))) == ["step"]
    assert ill_typed(dataclasses.replace(state, step=jnp.zeros(2, jnp.int32))) == ["step"]


def test_a_packing_has_the_declared_types() -> None:
    packing = Batches(examples(40), settings(), 0, 1)._packing
    assert ill_typed(packing) == []
    assert len(packing.members) == 40
    assert ill_typed(dataclasses.replace(packing, starts=packing.starts.astype(np.int32))) == ["starts"]
