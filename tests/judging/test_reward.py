import inspect
import math
import pickle
import threading
from collections.abc import Iterable
from types import SimpleNamespace

import numpy as np
import pytest

from ste_jax.judging.reward import RewardFunction
from tests.errors import raises

_CALLS: list[list[dict]] = []


class LongerWins:
    """A judge that prefers longer responses, and abstains where one is empty."""

    def compare_many(self, pairs: Iterable[dict], **options):
        rows = list(pairs)
        _CALLS.append(rows)
        for row in rows:
            a, b = len(row["response_a"]), len(row["response_b"])
            p = None if "?" in (row["response_a"], row["response_b"]) else 1 / (1 + math.exp(b - a))
            yield SimpleNamespace(probability_a=p)


@pytest.fixture(autouse=True)
def calls() -> list[list[dict]]:
    _CALLS.clear()
    return _CALLS


def _p(margin: float) -> float:
    return 1 / (1 + math.exp(-margin))


def _user(text):
    return [{"role": "user", "content": text}]


def _assistant(text):
    return [{"role": "assistant", "content": text}]


def test_with_a_baseline_it_is_the_probability_to_beat_it(calls):
    reward = RewardFunction(LongerWins(), baseline="answer")
    rewards = reward(["q1", "q2"], ["aaaa", "b"], answer=["aa", "bb"], trainer_state=object(), other=[1, 2])
    assert rewards == pytest.approx([_p(2), _p(-1)])
    assert all(type(r) is float for r in rewards)
    assert len(calls) == 1
    assert "reference" not in calls[0][0]


def test_without_a_baseline_it_is_the_mean_over_the_group(calls):
    reward = RewardFunction(LongerWins())
    rewards = reward(["q", "r", "q", "q"], ["a", "alone", "aaa", "aa"])
    assert rewards == pytest.approx([(_p(-2) + _p(-1)) / 2, 0.5, (_p(2) + _p(1)) / 2, 0.5])
    assert len(calls) == 1
    assert len(calls[0]) == 3


def test_group_rewards_do_not_depend_on_the_order_of_the_batch():
    reward = RewardFunction(LongerWins())
    prompts, completions = ["q", "r", "q", "r", "q"], ["a", "aaa", "aaaaa", "aa", ""]
    expected = reward(prompts, completions)
    for order in np.random.default_rng(0).permuted(np.tile(np.arange(5), (5, 1)), axis=1):
        turned = reward([prompts[k] for k in order], [completions[k] for k in order])
        assert turned == [expected[k] for k in order]
    assert np.mean(expected) == pytest.approx(0.5)


def test_identical_completions_and_comparisons_are_judged_once(calls):
    reward = RewardFunction(LongerWins())
    assert reward(["q"] * 4, ["x", "x", "yy", "yy"]) == pytest.approx(
        [(0.5 + 2 * _p(-1)) / 3] * 2 + [(0.5 + 2 * _p(1)) / 3] * 2
    )
    assert len(calls[0]) == 1
    assert reward(["q"] * 3, ["x"] * 3) == [0.5] * 3
    assert len(calls) == 1
    baseline = RewardFunction(LongerWins(), baseline="b")
    assert baseline(["q"] * 3, ["x", "yy", "x"], b=["yy", "x", "yy"]) == pytest.approx(
        [_p(-1), _p(1), _p(-1)]
    )
    assert len(calls[1]) == 1


def test_turns_and_texts_give_the_same_rewards(calls):
    reward = RewardFunction(LongerWins(), baseline="answer")
    plain = reward(["q", "q"], ["aa", "b"], answer=["b", "b"])
    turns = reward([_user("q")] * 2, [_assistant("aa"), _assistant("b")], answer=[_assistant("b"), "b"])
    assert plain == turns
    assert calls[0] == calls[1]
    reward([[*_user("q"), *_assistant("r"), *_user("s")]], ["aa"], answer=["b"])
    assert calls[2][0]["instruction"] == "User:\nq\n\nAssistant:\nr\n\nUser:\ns"


def test_a_reference_is_shown_to_the_judge_and_separates_groups(calls):
    reward = RewardFunction(LongerWins(), reference="solution")
    reward(["q", "q", "q", "q"], ["a", "bb", "c", "dd"], solution=["1", "1", "2", "2"])
    assert sorted((row["reference"], row["response_a"], row["response_b"]) for row in calls[0]) == [
        ("1", "a", "bb"),
        ("2", "c", "dd"),
    ]


def test_columns_of_the_prompt_are_shown_to_the_judge_and_separate_groups(calls):
    reward = pickle.loads(pickle.dumps(RewardFunction(LongerWins(), shown=("context",), on_abstain=0.2)))
    reward(["q", "q", "q"], ["a", "bb", "ccc"], context=["1", ["2", "3"], "1"], other=[0, 0, 0])
    assert [(row["context"], row["response_a"], row["response_b"]) for row in calls[0]] == [("1", "a", "ccc")]
    against = RewardFunction(LongerWins(), baseline="b", shown=("context",))
    against(["q"], ["aa"], b=["a"], context=[["x", "y"]])
    assert calls[1][0]["context"] == "x\n\ny"
    against.for_verl()("set", "aa", "g", {"question": "q", "b": "a", "context": "z"})
    assert calls[2][0]["context"] == "z"
    with raises("data_invalid", "context"):
        against(["q"], ["aa"], b=["a"])
    with raises("data_invalid", "context[0]"):
        against(["q"], ["aa"], b=["a"], context=[{"x": 1}])


def test_abstentions_become_numbers_and_are_logged():
    reward = RewardFunction(LongerWins(), baseline="b", on_abstain=0.25)
    logged = {}
    assert reward(["q", "q"], ["?", "a"], b=["x", "a"], log_metric=logged.__setitem__) == [0.25, 0.5]
    assert logged == {"judge_against_b/abstained": 0.5}
    group = RewardFunction(LongerWins(), on_abstain=0.25)
    assert group(["q"] * 3, ["?", "a", "bb"])[0] == 0.25
    assert group(["q"], ["a"]) == [0.25]
    assert RewardFunction(LongerWins())(["q"], ["a"]) == [0.5]


def test_options_reach_the_judge():
    seen = {}

    class Judge:
        def compare_many(self, pairs, **options):
            seen.update(options)
            return [SimpleNamespace(probability_a=0.5) for _ in pairs]

    RewardFunction(Judge(), votes=3, rubric="brevity")(["q", "q"], ["a", "b"])
    assert seen == {"votes": 3, "rubric": "brevity"}


def test_trainers_find_what_they_look_for():
    reward = RewardFunction(LongerWins())
    # TRL and tunix log under it: two functions of one run must differ.
    assert reward.__name__ == "judge_within_group"
    assert RewardFunction(LongerWins(), baseline="b").__name__ == "judge_against_b"
    assert set(inspect.signature(reward).parameters) == {"prompts", "completions", "columns"}  # tunix
    assert reward(prompts=np.array(["q", "q"]), completions=["a", "b"]) == [0.5, 0.5]
    assert reward([], []) == []


def test_bad_batches_are_refused(calls):
    reward = RewardFunction(LongerWins(), baseline="answer", reference="solution")
    good = {"answer": ["a"], "solution": ["s"]}
    with raises("data_invalid", "answer"):
        reward(["q"], ["a"], solution=["s"])
    with raises("data_invalid", "answer", "1"):
        reward(["q"], ["a"], **good | {"answer": ["a", "b"]})
    with raises("data_invalid", "prompts"):
        reward("q", ["a"], **good)
    with raises("data_invalid", "solution[0]"):
        reward(["q"], ["a"], **good | {"solution": [3]})
    with raises("data_invalid", "completions[0]"):
        reward(["q"], [None], **good)
    with raises("data_invalid", "prompts[0]"):
        reward([[{"role": "user", "content": None}]], ["a"], **good)
    assert calls == []


def test_verl_signatures():
    reward = RewardFunction(LongerWins(), baseline="ground_truth")
    score = reward.for_verl()
    info = {"question": "q", "index": 3}
    one = score(data_source="gsm8k", solution_str="aaa", ground_truth="a", extra_info=info)
    assert one == pytest.approx(_p(2))
    router = {"reward_router_address": None, "reward_model_tokenizer": None}
    assert score("gsm8k", "aaa", "a", info, **router) == one
    batch = RewardFunction(LongerWins()).for_verl(instruction="prompt", batch=True)
    fields = {"data_sources": ["x"] * 2, "solution_strs": ["aa", "a"], "ground_truths": [None] * 2}
    assert batch(**fields, extra_infos=[{"prompt": "q"}] * 2) == pytest.approx([_p(1), _p(-1)])
    column = RewardFunction(LongerWins(), baseline="old").for_verl()
    assert column("x", "aa", None, {"question": "q", "old": "a"}) == pytest.approx(_p(1))
    with raises("data_invalid", "question"):
        score("gsm8k", "a", "b", {})
    with raises("argument_invalid", "baseline"):
        RewardFunction(LongerWins()).for_verl()


def test_areal_signature_survives_its_process_pool():
    reward = RewardFunction(LongerWins(), baseline="answer", on_abstain=0.0)
    function = pickle.loads(pickle.dumps(reward.for_areal()))
    assert function("q", "aaa", [1], [2, 3], answer="a", task_id=7) == pytest.approx(_p(2))
    assert function("q", "?", [1], [2, 3], answer="a") == 0.0
    with raises("argument_invalid", "baseline"):
        RewardFunction(LongerWins()).for_areal()


def test_threads_are_served_in_turn():
    inside, most = [0], [0]

    class Slow:
        def compare_many(self, pairs, **options):
            for _ in pairs:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                threading.Event().wait(0.01)
                inside[0] -= 1
                yield SimpleNamespace(probability_a=0.5)

    reward = RewardFunction(Slow())
    threads = [threading.Thread(target=reward, args=(["q", "q"], ["a", "b"])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1


def test_a_row_without_a_reference_is_judged_without_one(calls):
    reward = RewardFunction(LongerWins(), baseline="answer", reference="solution")
    assert reward(["q", "q"], ["a", "b"], answer=["aa", "bb"], solution=[None, "s"]) == [_p(-1), _p(-1)]
    assert sorted(pair.get("reference", "") for pair in calls[0]) == ["", "s"]
