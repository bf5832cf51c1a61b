import json

from ste_jax.pairs.audit import audit
from ste_jax.pairs.candidate import Candidate


def candidate(better: str, worse: str, *, is_tie: bool = False) -> Candidate:
    return Candidate(key="k", sources=("s",), instruction="x", better=better, worse=worse, is_tie=is_tie)


def test_lengths_wins_and_hubs() -> None:
    numbers = audit(
        [
            candidate("aaaa", "bb"),
            candidate("bb", "aaaa"),
            candidate("cccc", "hub"),
            candidate("ddd", "hub"),
            candidate("eeeeeeeeee", "hub"),
            candidate("tie", "another", is_tie=True),
        ]
    )
    # Ratios 0.5, 2, 0.75, 1, 0.3; longer in 1 + 0 + 1 + 0.5 + 1 of 5; a and b are balanced, of six responses.
    assert numbers.to_dict() == {
        "count": 6,
        "ties": 1,
        "median_ratio": 0.75,
        "better_longer": 0.7,
        "within_tenth": 0.2,
        "balanced": 2 / 6,
        "hubs": 1,
        "longest": 10,
    }
    json.dumps(numbers.to_dict())


def test_no_candidates_and_only_ties() -> None:
    assert audit([]).to_dict() | {"count": 0, "better_longer": None} == audit([]).to_dict()
    ties = audit([candidate("a", "b", is_tie=True)])
    assert (ties.ties, ties.median_ratio, ties.hubs, ties.longest) == (1, None, 0, 1)
