"""The decoding engine on a tiny random model: tokens, order, refusals, callbacks and counts."""

import dataclasses

import jax
import numpy as np
import pytest

from ste_jax.decode import steps
from ste_jax.decode.cache import empty_prefix
from ste_jax.decode.engine import DecodeSettings
from ste_jax.decode.packing import Packing
from ste_jax.decode.protocol import GREEDY, ForcedSuffix, Request, Sampling
from ste_jax.models.llama import initialize
from ste_jax.sharding import DECODE, make_mesh
from tests.decode.tiny import CFG, SAMPLED, STOP, forward_logits, tiny_engine, tiny_requests
from tests.errors import raises


def _serve(engine, requests, sampling=SAMPLED, **options):
    return {g.id: g for g in engine.generate(requests, sampling, **options)}


def _next_logits(model, ids):
    """Returns the float32 logits [len(ids), V] of the full forward pass."""
    return forward_logits(model, [ids])[0, : len(ids)]


def test_greedy_tokens_are_those_of_the_full_forward_pass(model):
    requests = tiny_requests(n=2, count=6)
    groups = _serve(tiny_engine(model), requests, GREEDY)
    for request in requests:
        first, second = groups[request.id].completions
        assert first.tokens == second.tokens
        logits = _next_logits(model, [*request.prompt, *first.tokens])[len(request.prompt) - 1 :]
        ended = (STOP,) if first.finish == "stop" else ()
        expected = (*first.tokens, *ended)
        assert tuple(logits.argmax(-1)[: len(expected)].tolist()) == expected


def test_samples_do_not_depend_on_their_company(model):
    requests = tiny_requests()
    everything = _serve(tiny_engine(model), requests)
    assert len(everything) == len(requests)
    # Fewer slots, one prompt per slot, another order, fewer lanes, and a restart after half of the requests.
    assert _serve(tiny_engine(model, sequences=6), requests) == everything
    assert _serve(tiny_engine(model, prompts_per_slot=1), requests) == everything
    assert _serve(tiny_engine(model), requests[::-1]) == everything
    assert _serve(tiny_engine(model, samples_per_slot=2), requests) == everything
    half = {r.id for r in requests[::2]}
    rest = _serve(tiny_engine(model), requests, done=half)
    assert rest == {k: v for k, v in everything.items() if k not in half}
    assert len({c.tokens for g in everything.values() for c in g.completions}) > len(requests)


def test_what_prompts_begin_with_alike_is_read_once(model):
    opening = tuple(range(10, 40))
    requests = [
        dataclasses.replace(r, prompt=(*opening[: 30 - i % 3], *r.prompt[:30]))
        for i, r in enumerate(tiny_requests(n=1, count=16))
    ]
    sizes = {"sequences": 16, "prefix_tokens": 1024}
    apart, together = (tiny_engine(model, prefill_tokens=size, **sizes) for size in (64, 256))
    assert _serve(together, requests) == _serve(apart, requests)
    assert together.usage.prompt_tokens == apart.usage.prompt_tokens
    # A prompt at a time, or twice as many as would have room with nothing in common.
    assert (apart.usage.prompt_positions, together.usage.prompt_positions) == (16 * 64, 2 * 256)


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_that_share_the_requests_make_the_samples_of_one(model, hosts):
    requests = tiny_requests()
    shares = [_serve(tiny_engine(model), requests[host::hosts]) for host in range(hosts)]
    assert {id_: g for share in shares for id_, g in share.items()} == _serve(tiny_engine(model), requests)


def test_budget_and_stop_end_a_sample(model):
    groups = _serve(tiny_engine(model, stop=range(6, 40)), tiny_requests(new=3))
    completions = [c for g in groups.values() for c in g.completions]
    assert {c.finish for c in completions} == {"stop", "length"}
    for completion in completions:
        assert len(completion.tokens) == 3 if completion.finish == "length" else len(completion.tokens) <= 3
        assert not set(completion.tokens) & set(range(6, 40))


def test_the_suffix_is_forced_where_it_is_needed(model):
    suffix = ForcedSuffix(
        prefix_ids=(1, 2, 3), allowed_ids=(7, 9), should_force=lambda tokens: len(tokens) % 2 == 0
    )
    engine = tiny_engine(model, stop=range(6, 40))
    bare, with_suffix = _serve(engine, tiny_requests()), _serve(engine, tiny_requests(), suffix=suffix)
    forced = 0
    for id_, group in bare.items():
        for before, after in zip(group.completions, with_suffix[id_].completions, strict=True):
            if len(before.tokens) % 2:
                assert after == before
                continue
            forced += 1
            assert after.forced
            assert after.finish == "stop"
            assert after.tokens[:-1] == (*before.tokens, 1, 2, 3)
            assert after.tokens[-1] in (7, 9)
    assert forced > 10


def test_a_greedy_suffix_takes_the_likelier_choice(model):
    request = tiny_requests(count=1, n=1)[0]
    suffix = ForcedSuffix(prefix_ids=(1, 2), allowed_ids=(7, 9, 30), should_force=lambda tokens: True)
    tokens = _serve(tiny_engine(model), [request], GREEDY, suffix=suffix)["0"].completions[0].tokens
    logits = _next_logits(model, [*request.prompt, *tokens[:-1]])[-1]
    assert tokens[-1] == max((7, 9, 30), key=lambda t: logits[t])


def test_without_a_budget_the_suffix_is_all_there_is(model):
    suffix = ForcedSuffix(prefix_ids=(1, 2), allowed_ids=(7, 9), should_force=lambda tokens: False)
    requests = tiny_requests(new=0)
    drawn = set()
    for request in requests:
        served = _serve(tiny_engine(model), [request], suffix=suffix)[request.id]
        assert served.error is None
        for completion in served.completions:
            assert (completion.tokens[:2], completion.forced, completion.finish) == ((1, 2), True, "stop")
            drawn.add(completion.tokens[2:])
    assert drawn == {(7,), (9,)}
    prompt = requests[0].prompt
    logits = _next_logits(model, [*prompt, 1, 2])[-1]
    greedy = _serve(tiny_engine(model), requests[:1], GREEDY, suffix=suffix)["0"].completions[0].tokens
    assert greedy[2] == (7 if logits[7] > logits[9] else 9)
    with raises("request_refused", "max_new_tokens"):
        raise _serve(tiny_engine(model), requests[:1])["0"].error


def test_stop_request_when_ends_a_request_and_leaves_the_others(model):
    requests = tiny_requests(n=7)
    everything = _serve(tiny_engine(model), requests)
    ended = _serve(
        tiny_engine(model), requests, stop_request_when=lambda id_, done: id_ == "3" and len(done) >= 3
    )
    assert ended["3"].completions == everything["3"].completions[:3]
    assert {k: v for k, v in ended.items() if k != "3"} == {k: v for k, v in everything.items() if k != "3"}


def test_tokens_are_reported_as_they_are_made(model):
    counts = []
    groups = _serve(tiny_engine(model), tiny_requests(), on_tokens=counts.append)
    assert sum(counts) == sum(len(c.tokens) for g in groups.values() for c in g.completions)
    assert len(counts) > 3


def test_no_program_is_compiled_twice(model):
    engine, requests = tiny_engine(model), tiny_requests(count=24)
    _serve(engine, requests)
    before = steps.prefill._cache_size(), steps.decode._cache_size()
    assert len(_serve(engine, tiny_requests(count=1000), Sampling(0.3, 0.5))) == 1000
    assert (steps.prefill._cache_size(), steps.decode._cache_size()) == before


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (Request("r", (), np.zeros((1, 2), np.uint32), 4), "prompt"),
        (Request("r", (1,) * 70, np.zeros((1, 2), np.uint32), 4), "decode.buckets"),
        (Request("r", (1,) * 60, np.zeros((1, 2), np.uint32), 100), "context"),
        (Request("r", (1, 2), np.zeros((0, 2), np.uint32), 4), "n "),
        (Request("r", (1, 2), np.zeros((1, 2), np.uint32), 0), "max_new_tokens"),
    ],
)
def test_what_cannot_be_served_is_refused_and_the_others_go_on(model, request_, name):
    others = tiny_requests(count=3)
    served = _serve(tiny_engine(model), [others[0], request_, *others[1:]])
    refused = served.pop("r")
    assert not refused.completions
    with raises("request_refused", "request r: ", name):
        raise refused.error
    assert served == _serve(tiny_engine(model), others)


@pytest.mark.parametrize("which", ["stop_request_when", "suffix"])
def test_a_failing_callback_ends_its_request_alone_and_keeps_what_is_finished(model, which):
    requests = tiny_requests(n=5)

    def stop(id_, done):
        if which == "stop_request_when" and id_ == "3" and len(done) == 2:
            raise RuntimeError("no verdict parser")
        return False

    calls = []

    def should_force(tokens):
        calls.append(tokens)
        if which == "suffix" and len(calls) == 30:
            raise RuntimeError("no verdict parser")
        return False

    served = _serve(
        tiny_engine(model), requests, stop_request_when=stop, suffix=ForcedSuffix((1,), (7,), should_force)
    )
    everything = _serve(tiny_engine(model), requests)
    failed = [g for g in served.values() if g.error]
    assert [str(g.error) for g in failed] == ["no verdict parser"]
    assert failed[0].completions == everything[failed[0].id].completions[: len(failed[0].completions)]
    assert which == "suffix" or len(failed[0].completions) == 2
    rest = {k: g for k, g in served.items() if not g.error}
    assert rest == {k: everything[k] for k in rest}
    assert len(rest) == len(requests) - 1


def test_a_failing_report_comes_after_what_is_finished(model):
    found = []

    def report(count):
        raise OSError("terminal gone")

    groups = tiny_engine(model).generate(tiny_requests(n=3, count=3, new=4), SAMPLED, on_tokens=report)
    with pytest.raises(OSError, match="terminal gone"):
        found.extend(groups)
    assert found


def test_usage_adds_up(model):
    engine, requests = tiny_engine(model), tiny_requests(n=7)
    groups = _serve(
        engine, requests, stop_request_when=lambda id_, done: id_ in {"1", "3", "5"} and len(done) == 2
    )
    usage = engine.usage
    assert usage.prompts == len(requests)
    assert usage.prompt_tokens == sum(len(r.prompt) - 1 for r in requests) <= usage.prompt_positions
    assert usage.samples == sum(len(g.completions) for g in groups.values())
    assert usage.tokens == sum(len(c.tokens) for g in groups.values() for c in g.completions)
    assert usage.skipped_samples == 3 * 5
    assert usage.wasted_tokens > 0
    stopped = sum(c.finish == "stop" for g in groups.values() for c in g.completions)
    assert usage.used_steps >= usage.tokens + stopped
    assert 0.2 < usage.occupancy <= 1.0


def test_a_second_prompt_of_a_slot_keeps_the_lanes_busy(model):
    one, two = tiny_engine(model, prompts_per_slot=1), tiny_engine(model)
    for engine in (one, two):
        _serve(engine, tiny_requests(count=40))
    assert one.usage.used_steps == two.usage.used_steps
    assert two.usage.occupancy > 1.15 * one.usage.occupancy


def test_settings_are_checked():
    with raises("config_invalid", "temperature"):
        Sampling(-1.0, 0.9)
    with raises("config_invalid", "top_p"):
        Sampling(1.0, 0.0)
    with raises("config_invalid", "decode.buckets"):
        DecodeSettings(buckets=(64, 32))
    with raises("config_invalid", "decode.samples_per_slot"):
        DecodeSettings(sequences=8, samples_per_slot=9)


def test_a_prompt_has_the_same_keys_wherever_it_stands_in_a_row():
    cfg = dataclasses.replace(CFG, hidden_size=192, intermediate_size=512, num_heads=6, num_kv_heads=3)
    cfg = dataclasses.replace(cfg, head_dim=32)
    mesh = make_mesh((1, 1, 1))
    rng = np.random.default_rng(0)
    prompt, others = rng.integers(6, 64, 23), [rng.integers(6, 64, size) for size in (1, 17, 30, 5, 9)]

    def read(before: int) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
        """Returns what a prefill leaves of `prompt` behind some others: keys and values, and lengths."""
        packing = Packing(rows=1, positions=125, prompts=7, longest=32, slots=2)
        for other in [*others[:before], [*prompt[: 3 * before], 7]]:
            assert packing.add(other) is not None
        packing.assign(packing.add(prompt) or (0, 0), 1, 0)
        with jax.set_mesh(mesh):
            prefix = empty_prefix(model, slots=2, prompts_per_slot=1, pages=(32,))
            prefix = jax.device_get(steps.prefill(model, prefix, packing.packed))
        return prefix.pages[0], prefix.length

    with jax.set_mesh(mesh):
        model = initialize(cfg, DECODE, jax.random.key(0), param_dtype="float32", dtype="float32")
    (k, v), length = read(0)
    assert length[1, 0] == 23
    for before in range(1, 6):
        (other_k, other_v), _ = read(before)
        np.testing.assert_array_equal(k[:, 1, ..., :23], other_k[:, 1, ..., :23])
        np.testing.assert_array_equal(v[:, 1, ..., :23, :], other_v[:, 1, ..., :23, :])
    assert np.abs(k[:, 1, ..., :23]).min() > 0
