"""Audit of a kind of pair: how far the lengths of responses, or a response alone, give the label away."""

import collections
import dataclasses
import statistics
from collections.abc import Sequence
from typing import Any

from ste_jax.pairs.candidate import Candidate

# Losses above which a response is a hub: a judge can learn it by heart.
HUB_LOSSES = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairAudit:
    """Numbers of a list of candidates. Ties count only for `count` and `ties`; ratios of none are None.

    Attributes:
      count: number of candidates.
      ties: number of ties.
      median_ratio: median of the length of the worse response divided by that of the better one, in
        characters.
      better_longer: share in which the better response is longer; equal lengths count one half.
      within_tenth: share in which the shorter response has at least nine tenths of the length of the longer
        one.
      balanced: share of the different responses that win as often as they lose.
      hubs: number of different responses that lose more than twice.
      longest: length of the longest response in characters.
    """

    count: int
    ties: int
    median_ratio: float | None
    better_longer: float | None
    within_tenth: float | None
    balanced: float | None
    hubs: int
    longest: int

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers by name."""
        return dataclasses.asdict(self)


def audit(candidates: Sequence[Candidate]) -> PairAudit:
    """Returns the audit of the candidates of a kind, or of a mixture."""
    decided = [candidate for candidate in candidates if not candidate.is_tie]
    lengths = [(len(c.better), len(c.worse)) for c in decided]
    wins = collections.Counter(c.better for c in decided)
    losses = collections.Counter(c.worse for c in decided)
    responses = wins.keys() | losses.keys()
    return PairAudit(
        count=len(candidates),
        ties=len(candidates) - len(decided),
        median_ratio=statistics.median(worse / max(1, better) for better, worse in lengths)
        if lengths
        else None,
        better_longer=_mean([(better > worse) + 0.5 * (better == worse) for better, worse in lengths]),
        within_tenth=_mean([min(pair) >= 0.9 * max(pair) for pair in lengths]),
        balanced=_mean([wins[response] == losses[response] for response in responses]),
        hubs=sum(count > HUB_LOSSES for count in losses.values()),
        longest=max((len(text) for c in candidates for text in (c.better, c.worse)), default=0),
    )


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None
