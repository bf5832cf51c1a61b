import itertools
import json
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import special, stats

from ste_jax.judging.ranking import rank_many, rank_responses, schedule_of
from tests.errors import raises


class Referee:
    """Win probabilities of texts by planted strengths, with a list of the rounds."""

    def __init__(self, texts: Sequence[str], probabilities: np.ndarray):
        self.texts, self.rounds = list(texts), []
        self.p = {
            (a, b): probabilities[i, j] for (i, a), (j, b) in itertools.product(enumerate(texts), repeat=2)
        }

    def __call__(self, responses: Sequence[str]):
        def answer(pairs):
            self.rounds.append([(responses[i], responses[j]) for i, j in pairs])
            return [self.p[pair] for pair in self.rounds[-1]]

        return answer


def _planted(n: int, seed: int, noise: float) -> tuple[list[str], np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    strengths = 2 * random.normal(size=n)
    error = noise * random.normal(size=(n, n))
    odds = strengths[:, None] - strengths[None, :] + (error - error.T) / np.sqrt(2)
    # 1 - p exactly, as a judge's probabilities are.
    p = special.expit(-np.abs(odds))
    return [f"response {i}" for i in range(n)], strengths, np.where(odds > 0, 1 - p, p)


@pytest.mark.parametrize(
    ("n", "method", "comparisons", "tau"),
    [
        (4, None, 6, 0.85),
        (8, "round_robin", 28, 0.85),
        (8, None, 12, 0.8),
        (8, "knockout", 7, 0.7),
        (33, "swiss", 96, 0.85),
        (33, "knockout", 32, 0.6),
        (64, None, 192, 0.85),
        (64, "knockout", 63, 0.55),
    ],
)
def test_recovers_a_planted_order_under_noise(n, method, comparisons, tau):
    found, best = [], []
    for seed in range(12):
        texts, strengths, p = _planted(n, seed, 0.7)
        referee = Referee(texts, p)
        r = rank_responses(texts, referee(texts), seed=seed, method=method)
        assert r.comparisons == comparisons == sum(map(len, referee.rounds))
        assert len({frozenset(pair) for round_ in referee.rounds for pair in round_}) == comparisons
        found.append(stats.kendalltau(r.ranks, -strengths).statistic)
        best.append(strengths[r.best] >= np.sort(strengths)[-min(3, n)])
    assert np.mean(found) > tau
    assert np.mean(best) > 0.8


@pytest.mark.parametrize("method", ["round_robin", "swiss", "knockout"])
@pytest.mark.parametrize("n", [2, 3, 4, 5, 7, 8, 13, 16, 64])
def test_does_not_depend_on_the_order_of_the_responses(n, method):
    texts, _, p = _planted(n, n, 1.0)
    referee = Referee(texts, p)
    expected = rank_responses(texts, referee(texts), seed=1, method=method)
    random = np.random.default_rng(0)
    for _ in range(4):
        order = random.permutation(n)
        turned = [texts[k] for k in order]
        r = rank_responses(turned, referee(turned), seed=1, method=method)
        assert r.ranks == [expected.ranks[k] for k in order]
        assert r.strengths == [expected.strengths[k] for k in order]
        assert r.win_probabilities == [expected.win_probabilities[k] for k in order]
        assert turned[r.best] == texts[expected.best]
        assert len(r.cycles) == len(expected.cycles)
    half = len(referee.rounds) // 5
    assert referee.rounds[:half] == referee.rounds[half : 2 * half]


def test_every_permutation_of_four_gives_the_same_ranks():
    texts, _, p = _planted(4, 3, 1.0)
    referee = Referee(texts, p)
    seen = set()
    for turned in itertools.permutations(texts):
        r = rank_responses(turned, referee(turned), seed=0)
        seen.add(tuple(sorted(zip(turned, r.ranks, r.strengths, strict=True))))
    assert len(seen) == 1


@pytest.mark.parametrize("n", [*range(1, 12), 16, 31, 32, 33, 63, 64])
def test_any_number_of_responses_gets_finite_strengths_and_whole_ranks(n):
    texts = [f"response {i}" for i in range(n)]
    certain = np.triu(np.ones((n, n)), 1)  # no regularisation: infinite strengths
    for method in ("swiss", "knockout"):
        r = rank_responses(texts, Referee(texts, certain)(texts), seed=0, method=method)
        assert r.best <= 2  # two that lost to nobody may not have met
        assert min(r.ranks) == 1
        assert r.ranks[r.best] == 1
        assert np.isfinite(r.strengths).all()
        assert all(0 <= p <= 1 for p in r.win_probabilities)
        assert np.mean(r.win_probabilities) == pytest.approx(0.5)
        assert r.comparisons <= n * (n - 1) // 2


def test_round_robin_ranks_by_mean_win_probability():
    texts, _, p = _planted(6, 5, 2.0)
    r = rank_responses(texts, Referee(texts, p)(texts), seed=0, method="round_robin")
    np.fill_diagonal(p, 0)
    assert r.win_probabilities == pytest.approx(list(p.sum(axis=1) / 5))
    assert r.ranks == list(stats.rankdata(-p.sum(axis=1)))


def test_one_response_needs_no_comparison():
    r = rank_responses(["alone"], lambda pairs: pytest.fail("compared"), seed=0)
    assert (r.ranks, r.best, r.comparisons, r.win_probabilities) == ([1], 0, 0, [0.5])


def test_identical_responses_tie_and_are_compared_once():
    texts, _, p = _planted(3, 0, 0.0)
    referee = Referee(texts, p)
    plain = rank_responses(texts, referee(texts), seed=0)
    doubled = [texts[0], texts[1], texts[0], texts[2], texts[1]]
    r = rank_responses(doubled, referee(doubled), seed=0)
    assert r.comparisons == plain.comparisons == 3
    assert r.strengths == [plain.strengths[k] for k in (0, 1, 0, 2, 1)]
    assert r.ranks[0] == r.ranks[2]
    assert r.ranks[1] == r.ranks[4]
    assert sorted(r.ranks)[0] == 1
    assert r.best in (0, 1, 3)
    assert r.win_probabilities[0] == pytest.approx((0.5 + 2 * p[0, 1] + p[0, 2]) / 4)
    same = rank_responses(["x"] * 5, lambda pairs: pytest.fail("compared"), seed=0)
    assert same.ranks == [1] * 5
    assert same.win_probabilities == [0.5] * 5


def test_shared_ranks_leave_a_gap_after_them():
    r = rank_responses(["a", "a", "b"], lambda pairs: [0.9 if i == 0 else 0.1 for i, _ in pairs], seed=0)
    assert r.ranks == [1, 1, 3]


def test_abstentions_count_as_draws():
    texts = [f"response {i}" for i in range(9)]
    r = rank_responses(texts, lambda pairs: [None] * len(pairs), seed=0)
    assert r.ranks == [1] * 9
    assert r.abstained == r.comparisons == 16
    assert r.strengths == pytest.approx([0.0] * 9, abs=1e-6)
    turned = rank_responses(texts[::-1], lambda pairs: [None] * len(pairs), seed=0)
    assert texts[::-1][turned.best] == texts[r.best]


def test_names_the_cycles_that_it_found():
    p = np.array([[0.5, 0.8, 0.3, 0.9], [0.2, 0.5, 0.7, 0.9], [0.7, 0.3, 0.5, 0.9], [0.1, 0.1, 0.1, 0.5]])
    texts = ["rock", "scissors", "paper", "nothing"]
    r = rank_responses(texts, Referee(texts, p)(texts), seed=0)
    assert r.cycles == [(0, 1, 2)]
    assert r.ranks[3] == 4
    even = np.full((4, 4), 0.5)
    assert rank_responses(texts, Referee(texts, even)(texts), seed=0).cycles == []


@pytest.mark.parametrize(
    ("n", "budget", "method", "comparisons"),
    [
        (4, 6, "round_robin", 6),
        (4, 5, "swiss", 5),
        (4, 3, "knockout", 3),
        (8, 7, "knockout", 7),
        (8, 11, "knockout", 7),
        (8, 12, "swiss", 12),
        (8, 27, "swiss", 27),
        (8, 28, "round_robin", 28),
        (8, 1000, "round_robin", 28),
        (7, 20, "swiss", 20),
    ],
)
def test_the_budget_chooses_the_method_and_is_kept(n, budget, method, comparisons):
    texts, _, p = _planted(n, 1, 0.5)
    r = rank_responses(texts, Referee(texts, p)(texts), seed=0, max_comparisons=budget)
    assert (r.method, r.comparisons) == (method, comparisons)


def test_a_round_is_one_call():
    texts, _, p = _planted(16, 1, 0.5)
    sizes = {}
    for method in ("round_robin", "swiss", "knockout"):
        referee = Referee(texts, p)
        rank_responses(texts, referee(texts), seed=0, method=method)
        sizes[method] = [len(pairs) for pairs in referee.rounds]
    assert sizes["round_robin"] == [120]
    assert sizes["knockout"] == [8, 4, 2, 1]
    assert sum(sizes["swiss"]) == 32
    assert len(sizes["swiss"]) <= 6


def test_another_seed_draws_another_bracket():
    texts, _, p = _planted(16, 1, 0.5)
    rounds = []
    for seed in range(2):
        referee = Referee(texts, p)
        rank_responses(texts, referee(texts), seed=seed, method="knockout")
        rounds.append(referee.rounds[0])
    assert rounds[0] != rounds[1]


def test_to_dict_is_json():
    texts, _, p = _planted(5, 1, 3.0)
    value = rank_responses(texts, Referee(texts, p)(texts), seed=0, method="round_robin").to_dict()
    assert json.loads(json.dumps(value)) == value
    assert set(value) >= {"ranks", "best", "win_probabilities", "strengths", "comparisons", "cycles"}


def _never(pairs):
    pytest.fail("compared before the arguments were checked")


def test_bad_arguments_are_refused_before_any_comparison():
    with raises("argument_invalid", "at least one"):
        rank_responses([], _never, seed=0)
    with raises("argument_invalid", "at least one"):
        rank_responses("text", _never, seed=0)
    with raises("argument_invalid", "responses[1]"):
        rank_responses(["a", None], _never, seed=0)  # pyright: ignore[reportArgumentType]
    with raises("argument_invalid", "bubble"):
        rank_responses(["a", "b"], _never, seed=0, method="bubble")  # pyright: ignore[reportArgumentType]
    with raises("argument_invalid", "max_comparisons=2", "3"):
        rank_responses(["a", "b", "c", "d"], _never, seed=0, max_comparisons=2)
    with raises("argument_invalid", "round_robin", "6"):
        rank_responses(["a", "b", "c", "d"], _never, seed=0, method="round_robin", max_comparisons=5)
    with raises("argument_invalid", "-1"):
        rank_responses(["a"], _never, seed=0, max_comparisons=-1)
    with pytest.raises(ValueError, match=r"1\.5"):
        rank_responses(["a", "b"], lambda pairs: [1.5], seed=0)


def test_several_lists_share_the_calls_of_their_rounds():
    lists, expected, referees = [], [], []
    for n in (1, 3, 5, 8, 2):
        texts, _, p = _planted(n, n, 1.0)
        referees.append(Referee(texts, p))
        lists.append((texts, schedule_of(texts, 0)))
        expected.append(rank_responses(texts, referees[-1](texts), seed=0))
    calls = []

    def answer(games):
        calls.append(games)
        return [referees[k].p[lists[k][0][i], lists[k][0][j]] for k, i, j in games]

    assert rank_many(lists, answer) == expected
    assert len(calls) == max(len(referee.rounds) for referee in referees)
    assert rank_many([], answer) == []
