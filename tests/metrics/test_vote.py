import pytest

from ste_jax.metrics.vote import majority, vote_curve
from tests.errors import raises


def test_most_votes_win_and_the_unparsed_do_not_vote():
    assert majority(["A", "B", "A"], seed_key=(0, "p")) == "A"
    assert majority([None, None, "B", None], seed_key=(0, "p")) == "B"
    assert majority([None, None], seed_key=(0, "p")) is None
    assert majority([], seed_key=(0, "p")) is None


def test_a_tie_is_a_fair_coin_of_seed_and_key():
    coins = [majority(["A", None, "B"], seed_key=(3, f"pair-{i}")) for i in range(1000)]
    assert coins == [majority(["B", "A"], seed_key=(3, f"pair-{i}")) for i in range(1000)]
    assert coins != [majority(["B", "A"], seed_key=(4, f"pair-{i}")) for i in range(1000)]
    assert 440 < coins.count("A") < 560


def test_curve_over_the_first_k_samples():
    verdicts = {
        "x": ["A", "A", "B", "B", "B"],
        "y": [None, "B", "A", "B", None],
        "z": [None, None, "A", "A", "A"],
    }
    curve = vote_curve({"x": "A", "y": "B", "z": "A"}, verdicts, seed=1)
    assert curve[:2] == pytest.approx([1 / 3, 2 / 3])
    y3 = majority(["A", "B"], seed_key=(1, "y")) == "B"
    assert curve[2] == pytest.approx((2 + y3) / 3)
    assert curve[4] == pytest.approx(2 / 3)


def test_curve_needs_equal_numbers_of_samples():
    with raises("samples_differ", "[1, 2]"):
        vote_curve({"x": "A", "y": "A"}, {"x": ["A"], "y": ["A", "B"]}, seed=0)
    with raises("samples_differ"):
        vote_curve({}, {}, seed=0)
