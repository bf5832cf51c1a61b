"""The arrays of the pytrees of decoding have the shapes and dtypes that their annotations declare."""

import dataclasses
import typing

import jax
import numpy as np
import pytest
from beartype.door import is_bearable
from jaxtyping import jaxtyped

from ste_jax.decode import schedule
from ste_jax.decode.cache import Prefix, SuffixSegment
from ste_jax.decode.engine import DecodeSettings, Engine
from ste_jax.decode.packing import Packed
from ste_jax.decode.protocol import ForcedSuffix, Request, Sampling
from ste_jax.decode.steps import Generated, SamplingParams, SamplingState
from ste_jax.models.llama import LlamaConfig, initialize
from ste_jax.randomness import sample_keys
from ste_jax.sharding import DECODE, make_mesh

CFG = LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=64,
    num_layers=1,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    context_length=64,
    tie_embeddings=True,
)


def ill_typed(value) -> list[str]:
    """Returns the fields of a dataclass or named tuple whose arrays do not have the declared type.

    Axes of one name must have one size in all fields.
    """
    with jaxtyped("context"):
        hints = typing.get_type_hints(type(value))
        return [name for name, hint in hints.items() if not is_bearable(getattr(value, name), hint)]


@pytest.fixture(scope="module")
def passed():
    """The arguments and results of all calls of the two programs in a run of the engine."""
    found = []

    def record(function):
        def call(*arguments):
            result = function(*arguments)
            # Donated arrays keep their type after the call.
            found.extend([*arguments, *(result if type(result) is tuple else (result,))])
            return result

        return call

    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        model = initialize(CFG, DECODE, jax.random.key(0), param_dtype="float32", dtype="float32")
    settings = DecodeSettings(sequences=4, buckets=(8, 16), samples_per_slot=2, suffix_chunk=4)
    requests = [Request(str(i), (1,) * (i + 2), sample_keys(0, "t", str(i), 2), 6) for i in range(4)]
    suffix = ForcedSuffix((1, 2), (3, 4), should_force=lambda tokens: True)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("prefill", "decode"):
            patch.setattr(schedule, name, record(getattr(schedule, name)))
        engine = Engine(model, mesh, settings, (5,))
        assert len(list(engine.generate(requests, Sampling(), suffix=suffix, choices=(3, 4)))) == 4
    return found


@pytest.mark.parametrize("kind", [Packed, Prefix, SamplingState, SamplingParams, Generated])
def test_arrays_have_their_declared_types(passed, kind):
    values = [value for value in passed if type(value) is kind]
    assert values
    assert [ill_typed(value) for value in values] == [[]] * len(values)


def test_segments_have_their_declared_types(passed):
    segments = [segment for value in passed if type(value) is tuple for segment in value]
    assert segments
    assert all(is_bearable(segment, SuffixSegment) for segment in segments)
    k, v = segments[-1]  # a result: earlier ones were donated
    assert not is_bearable((k[0], v), SuffixSegment)


def test_the_host_side_of_the_programs_has_these_types_too(passed):
    """The scheduler keeps state and packed prompts as NumPy arrays."""
    states = [jax.device_get(value) for value in passed if type(value) in (Packed, SamplingState)]
    assert all(not ill_typed(state) for state in states)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("token", lambda x: x.astype(np.int64)),
        ("budget", lambda x: x[..., None]),
        ("status", lambda x: x[:-1]),
        ("keys", lambda x: x[..., :1]),
        ("prompt_index", lambda x: x.astype(np.float32)),
    ],
)
def test_a_wrong_shape_or_dtype_is_found(passed, name, change):
    state = next(jax.device_get(value) for value in passed if type(value) is SamplingState)
    wrong = dataclasses.replace(state, **{name: change(getattr(state, name))})
    assert name in ill_typed(wrong)
