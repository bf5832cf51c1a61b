"""Log-probabilities of choices, recorded with the tokens of a sample."""

import jax
import numpy as np
import pytest

from ste_jax.checkpoint.source import open_model
from ste_jax.decode import steps
from ste_jax.decode.engine import DecodeSettings, Engine
from ste_jax.decode.protocol import GREEDY, ForcedSuffix, Request
from ste_jax.randomness import key_data
from ste_jax.sharding import DECODE, make_mesh
from ste_jax.text.chat import Message, encode_chat
from tests.decode.tiny import (
    CFG,
    SAMPLED,
    STOP,
    forward_logits,
    tiny_engine,
    tiny_model,
    tiny_requests,
)

CHOICES = (7, 9, 30)
SUFFIX = ForcedSuffix((1, 2, 3), (7, 9), should_force=lambda tokens: len(tokens) % 2 == 0)
STOPS = (STOP, 40, 41, 42)


def _engine(model, stop=STOPS, **changes):
    return tiny_engine(model, stop, **changes)


def _requests(count=12, **options):
    return tiny_requests(count=count, **options)


def _completions(engine, requests, sampling=SAMPLED, choices=CHOICES, **options):
    groups = engine.generate(requests, sampling, choices=choices, **options)
    return {(g.id, c.sample): c for g in groups for c in g.completions}


def _check(model, requests, found, choices=CHOICES, length=CFG.context_length, tolerance=2e-5):
    """Compares with the log-softmax, in float64, of the logits of one full forward pass over all samples."""
    prompts = {request.id: request.prompt for request in requests}
    rows = [[*prompts[id_], *completion.tokens] for (id_, _), completion in found.items()]
    logits = forward_logits(model, rows, length).astype(np.float64)
    top = logits.max(axis=-1, keepdims=True)
    expected = (logits - top - np.log(np.exp(logits - top).sum(axis=-1, keepdims=True)))[..., list(choices)]
    for ((id_, _), completion), row, values in zip(found.items(), rows, expected, strict=True):
        logprobs = completion.choice_logprobs
        assert logprobs.dtype == np.float32
        assert logprobs.shape == (len(completion.tokens), len(choices))
        before = len(prompts[id_]) - 1
        np.testing.assert_allclose(logprobs, values[before : len(row) - 1], rtol=0, atol=tolerance)


def _same(found, others):
    assert found == others
    for key, completion in found.items():
        np.testing.assert_array_equal(completion.choice_logprobs, others[key].choice_logprobs)


@pytest.mark.parametrize("suffix", [None, SUFFIX])
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_log_probabilities_are_those_of_the_full_forward_pass(model, sampling, suffix):
    requests = _requests()
    found = _completions(_engine(model), requests, sampling, suffix=suffix)
    assert len(found) == 48
    _check(model, requests, found)
    # Every way to end: at the budget, at a stop id, and with a suffix after either.
    ends = {(c.finish, c.forced, len(c.tokens) < 20) for c in found.values()}
    assert ("stop", False, True) in ends
    if suffix:
        assert {("stop", True, True), ("stop", True, False)} <= ends
    else:
        assert ("length", False, False) in ends


def test_a_suffix_without_budget_has_log_probabilities(model):
    requests = _requests(new=0)
    found = _completions(_engine(model), requests, suffix=SUFFIX)
    assert {len(c.tokens) for c in found.values()} == {4}
    _check(model, requests, found)


def test_a_sample_that_stops_at_once_has_none(model):
    found = _completions(_engine(model, stop=range(64)), _requests(count=2))
    assert {c.choice_logprobs.shape for c in found.values()} == {(0, 3)}


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
def test_recording_changes_no_token(model, sampling):
    recorded = _completions(_engine(model), _requests(), sampling, suffix=SUFFIX)
    bare = _completions(_engine(model), _requests(), sampling, (), suffix=SUFFIX)
    assert recorded == bare
    assert all(completion.choice_logprobs is None for completion in bare.values())


def test_values_are_the_same_bits_alone_and_among_others(model):
    requests = _requests()
    found = _completions(_engine(model), requests, suffix=SUFFIX)
    _same(_completions(_engine(model), requests[::-1], suffix=SUFFIX), found)
    _same(_completions(_engine(model, sequences=6), requests, suffix=SUFFIX), found)
    _same(_completions(_engine(model, decode_steps_per_sync=3), requests, suffix=SUFFIX), found)
    # Of another number of requests the programs have other sizes, and their sums round differently.
    for request in requests[:3]:
        done = {r.id for r in requests} - {request.id}
        alone = _completions(_engine(model), requests, suffix=SUFFIX, done=done)
        _same(alone, {key: c for key, c in found.items() if key[0] == request.id})


@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2), (1, 2, 4)])
def test_a_mesh_of_eight_devices_equals_one(model, shape):
    """The same tokens, suffixes included, and the same log-probabilities up to rounding."""
    requests = _requests(n=3, count=16)
    sizes = {"sequences": 48, "prefix_tokens": 4096, "prefill_tokens": 1024}
    expected = _completions(_engine(model, **sizes), requests, GREEDY, suffix=SUFFIX)
    engine = _engine(tiny_model(shape), **sizes)
    # Several prompts to a row.
    assert engine.shape(requests, SUFFIX).packing(64).packed.gather_index.shape[1] > 1
    found = _completions(engine, requests, GREEDY, suffix=SUFFIX)
    assert found == expected
    _check(model, requests, found)


def test_choices_are_ids_of_the_vocabulary(model):
    with pytest.raises(ValueError, match="vocabulary of 64"):
        _completions(_engine(model), _requests(count=1), choices=(64,))


def test_other_choices_of_the_same_number_compile_nothing(model):
    _completions(_engine(model), _requests())
    before = steps.decode._cache_size()
    _completions(_engine(model), _requests(), choices=(1, 2, 3))
    assert steps.decode._cache_size() == before


@pytest.mark.optimized
def test_the_real_model_agrees_with_its_full_forward_pass(smollm2_path):
    source, mesh = open_model(str(smollm2_path)), make_mesh((1, 1, 1), jax.devices()[:1])
    texts = ["Which is larger, 7 or 9?", "Name a colour.", "Why is the sky blue? Answer in one word."]
    prompts = [tuple(encode_chat(source.tokenizer, [Message("user", text)])) for text in texts]
    model = source.load(DECODE, mesh, param_dtype="float32", dtype="float32")
    settings = DecodeSettings(sequences=6, buckets=(64,), samples_per_slot=2)
    engine = Engine(model, mesh, settings, source.tokenizer.stop_ids)
    requests = [
        Request(str(i), prompt, np.stack([key_data(0, "t", str(i), s) for s in range(2)]), 16)
        for i, prompt in enumerate(prompts)
    ]
    encode = source.tokenizer.encode_plain
    choices = (encode("A")[0], encode("B")[0])
    suffix = ForcedSuffix(tuple(encode("\nVerdict: [[")), choices, should_force=lambda tokens: True)
    for sampling in (GREEDY, SAMPLED):
        found = _completions(engine, requests, sampling, choices, suffix=suffix)
        assert len(found) == 6
        _check((model, mesh), requests, found, choices, length=128, tolerance=2e-4)
