"""The public `Judge` and `Model`, with the real small model."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from ste_jax.judge import Judge
from ste_jax.model import buckets_below
from ste_jax.records import ComparisonResult
from tests.errors import raises
from tests.judges import BAD, GOOD, PAIRS, X, load_judge, load_model

# One of the models is real.
pytestmark = pytest.mark.optimized


@pytest.fixture(scope="module")
def real(smollm2_path: Path) -> Judge:
    """SmolLM2; writes up to four tokens before its verdict is forced."""
    return load_judge(smollm2_path, max_new_tokens=4)


@pytest.fixture(scope="module")
def judge(tiny_model: Path) -> Judge:
    """The same with a random model of two layers, where the size does not matter."""
    return load_judge(tiny_model, max_new_tokens=4)


@pytest.fixture(scope="module")
def result(judge: Judge) -> ComparisonResult:
    return judge.compare(X, GOOD, BAD)


def test_a_comparison_has_every_number(real: Judge) -> None:
    judge, result = real, real.compare(X, GOOD, BAD)
    assert result.winner in ("A", "B")
    assert result.winner == ("A" if result.probability_a > 0.5 else "B")
    assert result.confidence == max(result.probability_a, 1 - result.probability_a)
    given, swapped = result.orders
    assert result.log_odds == (given.log_odds - swapped.log_odds) / 2
    assert result.consistent == (given.verdict != swapped.verdict)
    assert given.text.endswith(f"Verdict: [[{given.verdict}]]")
    protocol = judge.protocol()
    usage = result.usage
    assert usage["prompt_tokens"] > len(protocol.prompt_ids(result.comparison, "as_given"))
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert result.prompt_digest == judge.settings.prompt.digest()
    assert json.loads(json.dumps(result.to_dict()))["winner"] == result.winner


def test_a_template_is_checked_when_a_judge_is_loaded(smollm2_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "template.jinja"
    written = "{% for m in messages %}<|im_start|>{{ m.role }}: {{ m.content }}<|im_end|>{% endfor %}"
    file.write_text(written)
    judge = load_judge(smollm2_path, chat_template=file, chat_date="2020-02-03")
    assert judge.model.source.tokenizer.chat_template == written
    assert judge.model.source.tokenizer.chat_date == "2020-02-03"
    assert judge.calibration_settings() != load_judge(smollm2_path).calibration_settings()
    file.write_text(written.replace("m.content", "m.content[:99]"))
    with raises("chat_invalid", str(file), "--chat_template=FILE"):
        load_judge(smollm2_path, chat_template=str(file))


@pytest.mark.parametrize("votes", [1, 3])
def test_exchanging_the_responses_negates_the_log_odds_bit_for_bit(real: Judge, votes: int) -> None:
    one, other = real.compare(X, GOOD, BAD, votes=votes), real.compare(X, BAD, GOOD, votes=votes)
    assert one.log_odds == -other.log_odds
    assert {one.winner, other.winner} == {"A", "B"}


def test_many_comparisons_give_what_each_gives_alone(real: Judge) -> None:
    pairs = [{"instruction": X, "response_a": GOOD, "response_b": BAD}, *PAIRS]
    result, together = real.compare(X, GOOD, BAD), real.compare_many(iter(pairs))
    assert [r.id for r in together[1:]] == [pair["id"] for pair in PAIRS]
    assert together[0].log_odds == pytest.approx(result.log_odds, abs=1e-4)
    assert together[1].to_dict()["source"] == "s0"


def test_what_is_not_judged_says_why(judge: Judge) -> None:
    same = judge.compare(X, GOOD, GOOD)
    assert (same.winner, same.abstained, same.probability_a, same.orders) == (None, "tie", 0.5, ())
    long = judge.compare(X, GOOD, "word " * 50_000)
    assert (long.winner, long.abstained, long.probability_a) == (None, "too_long", None)
    mixed = judge.compare_many([PAIRS[0], PAIRS[1] | {"response_b": "word " * 50_000}])
    assert [r.abstained for r in mixed] == [None, "too_long"]
    assert judge.compare(X, "", BAD).winner in ("A", "B")


def test_one_order_and_flips(judge: Judge, result: ComparisonResult) -> None:
    one = judge.compare(X, GOOD, BAD, orders="one")
    assert (len(one.orders), one.consistent) == (1, None)
    assert one.log_odds == pytest.approx(result.orders[0].log_odds, abs=1e-4)
    strict = judge.compare(X, GOOD, BAD, on_flip="abstain")
    assert strict.abstained == (None if result.consistent else "flip")
    assert strict.probability_a == result.probability_a


@pytest.fixture(scope="module")
def idle(smollm2_path: Path) -> Judge:
    """A judge that compares nothing, so that its model has no engine."""
    return load_judge(smollm2_path)


@pytest.mark.parametrize(
    ("arguments", "options", "code"),
    [
        (("", GOOD, BAD), {}, "data_invalid"),
        (("  ", GOOD, BAD), {}, "data_invalid"),
        ((X, 3, BAD), {}, "data_invalid"),
        ((X, None, BAD), {}, "data_invalid"),
        ((X, float("nan"), BAD), {}, "data_invalid"),
        ((X, GOOD, BAD), {"votes": 0}, "argument_invalid"),
        ((X, GOOD, BAD), {"votes": True}, "argument_invalid"),
        ((X, GOOD, BAD), {"orders": "three"}, "argument_invalid"),
        ((X, GOOD, BAD), {"on_flip": "maybe"}, "argument_invalid"),
        ((X, GOOD, BAD), {"rubric": " "}, "prompt_invalid"),
        (([{"role": "user"}], GOOD, BAD), {}, "data_invalid"),
    ],
)
def test_bad_arguments_raise_before_any_compute(idle: Judge, arguments: Any, options: Any, code: str) -> None:
    with raises(code):
        idle.compare(*arguments, **options)
    assert idle.model._engine is None


def test_a_reference_is_shown_or_refused(judge: Judge, tmp_path: Path) -> None:
    shown = judge.compare(X, GOOD, BAD, reference="The Elbe.")
    assert shown.prompt_digest != judge.compare(X, GOOD, BAD).prompt_digest
    ids = judge.protocol().prompt_ids(shown.comparison, "as_given")
    assert "The Elbe." in judge.model.source.tokenizer.decode(ids)
    template = tmp_path / "own.toml"
    texts = "\n".join(f"# {name}\n{{{name}}}\n# end" for name in ("instruction", "response_a", "response_b"))
    template.write_text(f'user = """{texts}\nSay [[A]] or [[B]]."""')
    fresh = load_judge(judge.model.source.path, prompt=str(template))
    for call in (
        lambda: fresh.compare(X, GOOD, BAD, reference="The Elbe."),
        lambda: fresh.compare_many([PAIRS[0], PAIRS[1] | {"reference": "The Elbe."}]),
    ):
        with raises("prompt_no_reference"):
            call()
    assert fresh.model._engine is None


def test_pairs_are_checked_before_the_first_is_judged(smollm2_path: Path) -> None:
    fresh = load_judge(smollm2_path)
    with raises("data_invalid", "pairs[1]"):
        fresh.compare_many([PAIRS[0], {"instruction": X}])
    with raises("data_invalid", "r0"):
        fresh.compare_many([PAIRS[0], PAIRS[0]])
    with raises("argument_invalid"):
        fresh.compare_many("pairs.jsonl")
    assert fresh.model._engine is None


def test_a_finished_file_is_read_and_not_judged_again(judge: Judge, tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "verdicts.jsonl"
    first = judge.compare_many(PAIRS, out=out)
    content = out.read_bytes()
    fresh = load_judge(tiny_model, max_new_tokens=4)
    assert fresh.compare_many(PAIRS, out=out) == first
    assert fresh.model._engine is None
    assert out.read_bytes() == content
    header, *records = map(json.loads, content.splitlines())
    assert header["schema"] == "ste-verdicts"
    assert [r["id"] for r in records] == [p["id"] for p in PAIRS]
    assert records == [json.loads(json.dumps(r.to_dict())) for r in first]
    for other in (
        load_judge(tiny_model, max_new_tokens=5),
        load_judge(tiny_model, max_new_tokens=4, seed=1),
    ):
        with raises("output_mismatch", "verdicts.jsonl"):
            other.compare_many(PAIRS, out=out)
    with raises("output_mismatch", "verdicts.jsonl"):
        fresh.compare_many(PAIRS[:2], out=out)


def test_an_interrupted_call_continues(judge: Judge, tiny_model: Path, tmp_path: Path) -> None:
    """A call that was stopped after its first result ends with the bytes of an uninterrupted call."""
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    judge.compare_many(PAIRS, out=whole)
    results = Judge._results

    def stop_after_one(self: Judge, *arguments: Any, **options: Any) -> Any:
        for number, item in enumerate(results(self, *arguments, **options)):
            if number:
                raise KeyboardInterrupt
            yield item

    stopping = load_judge(tiny_model, max_new_tokens=4)
    stopping._results = stop_after_one.__get__(stopping)
    stopping.model = judge.model
    with pytest.raises(KeyboardInterrupt):
        stopping.compare_many(PAIRS, out=out)
    assert not out.exists()
    made = []
    again = load_judge(tiny_model, max_new_tokens=4)
    again.model = judge.model
    again._results = lambda *a, **o: (made.append(r.id) or r for r in results(again, *a, **o))
    again.compare_many(PAIRS, out=out)
    assert len(made) == len(PAIRS) - 1
    assert out.read_bytes() == whole.read_bytes()


def test_threads_get_the_results_of_their_own_calls(judge: Judge, result: ComparisonResult) -> None:
    found: dict[str, ComparisonResult] = {}

    def call(name: str, first: str, second: str) -> None:
        found[name] = judge.compare(X, first, second)

    threads = [
        threading.Thread(target=call, args=arguments)
        for arguments in (("given", GOOD, BAD), ("turned", BAD, GOOD), ("again", GOOD, BAD))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found["given"] == found["again"] == result
    assert found["turned"].log_odds == -result.log_odds


def test_conversations_are_flattened(judge: Judge) -> None:
    single = judge.compare([{"role": "user", "content": X}], GOOD, BAD)
    assert single.comparison.instruction == X
    turns = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": X},
    ]
    flat = judge.compare(turns, GOOD, BAD).comparison.instruction
    assert [flat.index(turn["content"]) for turn in turns] == sorted(flat.index(t["content"]) for t in turns)


def test_nothing_is_printed(judge: Judge, capfd: pytest.CaptureFixture[str]) -> None:
    judge.compare(X, GOOD, BAD)
    judge.compare_many(PAIRS[:2])
    assert capfd.readouterr() == ("", "")


def test_small_models_are_forced_to_decide(smollm2_path: Path) -> None:
    default = load_judge(smollm2_path)
    assert (default.settings.prompt.name, default.settings.max_new_tokens) == ("short", 32)
    assert (default.settings.force_verdict, default.model.settings.dtype, default.trained) == (
        True,
        "float32",
        False,
    )
    alone = load_judge(smollm2_path, max_new_tokens=0, prompt="verdict")
    assert (alone.settings.max_new_tokens, alone.settings.prompt.name) == (0, "verdict")
    with raises("argument_invalid", "max_new_tokens"):
        load_judge(smollm2_path, max_new_tokens=0, force_verdict=False)
    with raises("argument_invalid", "dtype"):
        load_judge(smollm2_path, dtype="float16")


def test_samples_depend_on_seed_prompt_and_number_alone(judge: Judge) -> None:
    model = judge.model
    both = model.generate(["Say a word.", "Say two words."], n=2, max_new_tokens=6, seed=3)
    assert [len(samples) for samples in both] == [2, 2]
    (alone,) = model.generate(["Say two words."], n=2, max_new_tokens=6, seed=3)
    assert alone == both[1]
    assert [str(s) for s in alone] == [s.text for s in alone]
    assert model.generate(["Say a word."], n=2, max_new_tokens=6, seed=4)[0] != both[0]
    turns = [[{"role": "user", "content": "Say two words."}]]
    assert model.generate(turns, n=2, max_new_tokens=6, seed=3)[0] == alone
    parts = [{"type": "text", "text": text} for text in ("Say two", " words.")]
    in_parts = [[{"role": "user", "content": parts}]]
    assert model.generate(in_parts, n=2, max_new_tokens=6, seed=3)[0] == alone
    (failed,) = model.generate(["word " * 50_000], max_new_tokens=4)
    assert (failed[0].text, failed[0].finish_reason) == ("", "error")
    assert failed[0].error
    for arguments in (("text",), (["x"], {"n": 0}), (["x"], {"top_p": 0.0}), (["x"], {"max_new_tokens": 0})):
        options = arguments[1] if len(arguments) > 1 else {}
        with raises("argument_invalid"):
            model.generate(arguments[0], **options)


def test_a_model_of_a_folder_is_opened_lazily(tiny_model: Path) -> None:
    model = load_model(tiny_model)
    assert model._engine is None
    assert model.generate(["Hello"], max_new_tokens=2)[0][0].finish_reason in ("stop", "length")


def test_every_length_that_a_model_can_read_has_a_program() -> None:
    assert buckets_below(1024) == (128, 256, 384, 512, 768, 1023)
    assert buckets_below(131072)[-2:] == (65536, 131071)
