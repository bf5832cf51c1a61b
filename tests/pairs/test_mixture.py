"""Mixtures of kinds of pairs: their shares, what belongs together, and the lengths of uncertain kinds."""

from collections import Counter

import pytest

from ste_jax.pairs.mixture import mixed
from ste_jax.records import Comparison


def pair(
    kind: str, number: int, sources: list[str] | None = None, better: int = 5, worse: int = 5
) -> Comparison:
    return Comparison(
        id=f"{number}.{kind}",
        instruction="q",
        response_a="a" * better,
        response_b="b" * worse,
        label="A",
        subset=kind,
        metadata={"sources": sources} if sources else {},
    )


PAIRS = {
    "padded": [pair("padded", n) for n in range(100)],
    "garbled": [pair("garbled", n) for n in range(40)],
    # Both directions of twenty matches.
    "crossed": [pair("crossed", n, [f"{n // 2}", f"{n // 2}x"][:: 1 - n % 2 * 2]) for n in range(40)],
}


@pytest.mark.parametrize(
    ("shares", "wanted"),
    [
        ({"padded": 0.5, "garbled": 0.5}, {"padded": 40, "garbled": 40}),
        ({"padded": 3.0, "garbled": 1.0}, {"padded": 100, "garbled": 33}),
        ({"padded": 0.1, "garbled": 0.4}, {"padded": 10, "garbled": 40}),
        ({"crossed": 1.0, "garbled": 0.25}, {"crossed": 40, "garbled": 10}),
    ],
)
def test_shares_hold_and_the_scarcest_kind_is_used_up(shares: dict, wanted: dict) -> None:
    assert Counter(pair.subset for pair in mixed(PAIRS, shares, 0)) == wanted


def test_pairs_of_the_same_sources_are_drawn_together() -> None:
    made = mixed(PAIRS, {"crossed": 0.5, "garbled": 2.0}, 0)
    crossed = Counter(min(p.metadata["sources"]) for p in made if p.subset == "crossed")
    assert len(crossed) == 5
    assert set(crossed.values()) == {2}


def test_draws_follow_from_the_seed_and_not_from_the_order() -> None:
    shares = {"padded": 0.25, "garbled": 1.0}
    one, other = mixed(PAIRS, shares, 0), mixed({k: v[::-1] for k, v in PAIRS.items()}, shares, 0)
    assert {p.id for p in one} == {p.id for p in other}
    assert {p.id for p in one} != {p.id for p in mixed(PAIRS, shares, 1)}


def test_labels_of_uncertain_kinds_do_not_follow_the_length() -> None:
    long = [pair("high_temperature", n, better=9) for n in range(30)]
    short = [pair("high_temperature", n, worse=9) for n in range(30, 40)]
    made = mixed({"high_temperature": long + short}, {"high_temperature": 1.0}, 0)
    assert Counter(len(p.chosen) > len(p.rejected) for p in made) == {True: 10, False: 10}


def test_a_kind_without_pairs_leaves_nothing() -> None:
    assert mixed({"padded": [], "garbled": PAIRS["garbled"]}, {"padded": 1.0, "garbled": 1.0}, 0) == []
