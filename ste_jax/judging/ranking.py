"""Ranking of several responses to one instruction from pairwise win probabilities.

A tournament decides which pairs are compared; a Bradley-Terry model, fitted with `choix` to the fractional
wins, turns the comparisons into strengths, and the strengths into ranks. Everything is computed over the
distinct texts in an order given by a hash of seed and text, so that neither the order of the responses nor
duplicates among them change the result.
"""

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Literal, Self, get_args

import choix
import numpy as np
from scipy import special, stats

from ste_jax.checks import check_whole
from ste_jax.errors import SteError
from ste_jax.typed_json import build_known

Method = Literal["round_robin", "swiss", "knockout"]
WinProbabilities = Callable[[list[tuple[int, int]]], Sequence[float | None]]

# Up to this number of distinct responses, all pairs are compared by default.
ROUND_ROBIN_LIMIT = 4
# Total weight of the prior games per response: half won, half lost, against all others. It keeps strengths
# finite and the comparison graph connected.
_PRIOR = 0.02
# A probability of a single game counts at most this much, so that the fit stays well conditioned.
_MAX_PROBABILITY = 0.999
# Strengths that differ by less than this share a rank; the fit is accurate to 1e-8.
_DIGITS = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankResult:
    """A ranking of responses; all sequences are aligned with the responses as given.

    Attributes:
      ranks: rank of each response; 1 is best, ties share the smaller number.
      best: index of the best response.
      win_probabilities: mean probability of each response to beat another one of the list: as judged for the
        pairs that were compared, from the strengths for the others; 0.5 against an identical response.
      strengths: Bradley-Terry log-strengths with mean 0 over the distinct responses.
      method: "round_robin", "swiss" or "knockout".
      comparisons: number of comparisons made.
      abstained: number of comparisons without a probability, which counted as 0.5.
      cycles: index triples (i, j, k) where i beats j, j beats k and k beats i.
      flips: number of comparisons whose verdicts depend on the order; probabilities decide them.
      errors: why comparisons could not be judged at all, one text for each; they count as abstained.
      usage: "prompt_tokens", "completion_tokens" and "total_tokens" of all comparisons.
    """

    ranks: list[int]
    best: int
    win_probabilities: list[float]
    strengths: list[float]
    method: Method
    comparisons: int
    abstained: int
    cycles: list[tuple[int, int, int]]
    flips: int = 0
    errors: list[str] = dataclasses.field(default_factory=list)
    usage: dict[str, int] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a JSON-ready dict."""
        return {**dataclasses.asdict(self), "cycles": [list(cycle) for cycle in self.cycles]}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        """Builds the result from a dict that `to_dict` made; other keys are ignored.

        Raises:
          SteError: "data_invalid": a field is missing or of another type.
        """
        result = build_known(cls, value, "the result of a ranking")
        return dataclasses.replace(result, cycles=[(i, j, k) for i, j, k in result.cycles])


def rank_responses(
    responses: Sequence[str],
    win_probabilities: WinProbabilities,
    *,
    seed: int,
    method: Method | None = None,
    max_comparisons: int | None = None,
) -> RankResult:
    """Ranks responses by a tournament of pairwise comparisons.

    Args:
      responses: texts; identical ones tie and are compared once.
      win_probabilities: function of a list of index pairs (i, j) that returns, for each, the probability that
        response i beats response j, or None for an abstention. It is called once per round.
      seed: seed of the bracket, which also depends on the texts.
      method: "round_robin" compares all pairs, "swiss" pairs responses of similar strength in rounds,
        "knockout" compares winners only. Default: round robin up to 4 distinct responses, Swiss above; under
        `max_comparisons` the most thorough of the three that fits.
      max_comparisons: largest number of comparisons. Swiss rounds go on until it is spent.

    Raises:
      SteError: if there is no response, one is not text, or `max_comparisons` is too small for the method.
    """
    (result,) = rank_many(
        [(responses, schedule_of(responses, seed, method, max_comparisons))],
        lambda games: win_probabilities([(i, j) for _, i, j in games]),
    )
    return result


def rank_many(
    rankings: Sequence[tuple[Sequence[str], "Schedule"]],
    win_probabilities: Callable[[list[tuple[int, int, int]]], Sequence[float | None]],
) -> list[RankResult]:
    """Ranks several lists of responses in lockstep: each call has the current round of all of them.

    Args:
      rankings: the responses and the schedule of each list.
      win_probabilities: as in `rank_responses`, but of triples (number of the list, i, j).
    """
    rounds = {number: _rounds(*ranking) for number, ranking in enumerate(rankings)}
    results: dict[int, RankResult] = {}
    answers: dict[int, list[float | None] | None] = dict.fromkeys(rounds)
    while answers:
        games: dict[int, list[tuple[int, int]]] = {}
        for number, answer in answers.items():
            try:
                games[number] = rounds[number].send(answer)
            except StopIteration as end:
                results[number] = end.value
        flat = [(number, i, j) for number, pairs in games.items() for i, j in pairs]
        given = iter(win_probabilities(flat) if flat else ())
        answers = {number: list(itertools.islice(given, len(pairs))) for number, pairs in games.items()}
    return [results[number] for number in range(len(rankings))]


def _rounds(
    responses: Sequence[str], schedule: "Schedule"
) -> Generator[list[tuple[int, int]], list[float | None] | None, RankResult]:
    """Yields the index pairs of each round, is sent their probabilities, and returns the result."""
    games = _Games(len(schedule.indices))
    for pairs in _ROUNDS[schedule.method](games, schedule.budget):
        answer = yield [(schedule.indices[i], schedule.indices[j]) for i, j in pairs]
        games.add(pairs, answer or [])
    return _result(responses, schedule, games)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Plan of the comparisons of a ranking.

    Attributes:
      indices: first index of each distinct response, in the order of the bracket.
      method: method of the tournament.
      budget: largest number of comparisons.
    """

    indices: list[int]
    method: Method
    budget: int


def schedule_of(
    responses: Sequence[str], seed: int, method: Method | None = None, max_comparisons: int | None = None
) -> Schedule:
    """Returns the schedule that `rank_responses` follows, after checking the arguments.

    Raises:
      SteError: see `rank_responses`.
    """
    _check(responses, method, max_comparisons)
    first: dict[str, int] = {}
    for index, text in enumerate(responses):
        first.setdefault(text, index)
    indices = [first[text] for text in sorted(first, key=lambda text: _hash(seed, text))]
    n = len(indices)
    all_pairs, swiss, least = n * (n - 1) // 2, (n // 2) * math.ceil(math.log2(max(n, 1))), n - 1
    if method is None and max_comparisons is None:
        method = "round_robin" if n <= ROUND_ROBIN_LIMIT else "swiss"
    elif method is None:
        assert max_comparisons is not None
        fits = max_comparisons >= all_pairs, max_comparisons >= swiss
        method = "round_robin" if fits[0] else "swiss" if fits[1] else "knockout"
    assert method is not None
    default = {"round_robin": all_pairs, "swiss": min(swiss, all_pairs), "knockout": least}[method]
    budget = default if max_comparisons is None else min(max_comparisons, all_pairs)
    needed = all_pairs if method == "round_robin" else least
    if budget < needed:
        raise SteError(
            "argument_invalid",
            f"rank: max_comparisons={max_comparisons} is too small: {method} of {n} distinct responses needs "
            f"{needed} comparisons",
        )
    return Schedule(indices, method, budget)


def _check(responses: Sequence[str], method: str | None, max_comparisons: int | None) -> None:
    if isinstance(responses, str) or not len(responses):
        raise SteError("argument_invalid", "rank: responses must be a list of at least one text")
    for index, text in enumerate(responses):
        if not isinstance(text, str):
            raise SteError(
                "argument_invalid", f"rank: responses[{index}] must be text, not {type(text).__name__}"
            )
    if method not in (None, *get_args(Method)):
        names = ", ".join(get_args(Method))
        raise SteError("argument_invalid", f"rank: method must be one of {names}, not {method!r}")
    if max_comparisons is not None:
        check_whole("rank: max_comparisons", max_comparisons, least=0)


def _hash(seed: int, text: str) -> bytes:
    return hashlib.sha256(f"{seed}\x1f{text}".encode("utf-8", "surrogatepass")).digest()


class _Games:
    """Comparisons made so far among `n` distinct responses.

    Attributes:
      wins: [n, n] probability that row beats column, 0 where not compared.
      played: [n, n] True where compared.
      abstained: number of comparisons without a probability.
    """

    def __init__(self, n: int):
        self.wins = np.zeros((n, n))
        self.played = np.zeros((n, n), bool)
        self.abstained = 0

    def add(self, pairs: Sequence[tuple[int, int]], probabilities: Sequence[float | None]) -> None:
        """Records the outcomes of a round."""
        for (i, j), probability in zip(pairs, probabilities, strict=True):
            self.abstained += probability is None
            p = 0.5 if probability is None else float(probability)
            if not 0.0 <= p <= 1.0:
                raise ValueError(f"win probability {p} is not within 0 and 1")
            self.wins[i, j], self.wins[j, i] = p, 1.0 - p
            self.played[i, j] = self.played[j, i] = True

    @property
    def comparisons(self) -> int:
        """Number of comparisons made."""
        return int(self.played.sum()) // 2

    def strengths(self) -> np.ndarray:
        """Returns the Bradley-Terry log-strengths [n], with mean 0."""
        n = len(self.wins)
        if n < 2:
            return np.zeros(n)
        wins = np.where(self.played, np.clip(self.wins, 1 - _MAX_PROBABILITY, _MAX_PROBABILITY), 0.0)
        prior = (1.0 - np.eye(n)) * _PRIOR / (2 * (n - 1))
        return choix.ilsr_pairwise_dense(wins + prior, max_iter=10_000)


def _round_robin(games: _Games, budget: int) -> Iterator[list[tuple[int, int]]]:
    pairs = list(itertools.combinations(range(len(games.wins)), 2))
    if pairs:
        yield pairs


def _swiss(games: _Games, budget: int) -> Iterator[list[tuple[int, int]]]:
    """Pairs neighbours by strength that have not met; whoever played most sits out of an odd number."""
    while games.comparisons < budget:
        order = list(np.argsort(-games.strengths().round(_DIGITS), kind="stable"))
        if len(order) % 2:
            count = games.played.sum(axis=1)
            order.remove(max(reversed(order), key=lambda i: count[i]))
        pairs = []
        while order:
            i = order.pop(0)
            opponent = next((j for j in order if not games.played[i, j]), None)
            if opponent is not None:
                order.remove(opponent)
                pairs.append((int(i), int(opponent)))
        if not pairs:
            # Only pairs of the response that sat out, or of the last ones of the order, are left.
            pairs = [(int(i), int(j)) for i, j in np.argwhere(np.triu(~games.played, 1))[:1]]
        yield pairs[: budget - games.comparisons]


def _knockout(games: _Games, budget: int) -> Iterator[list[tuple[int, int]]]:
    """Yields the rounds of a bracket; the first responses of an uneven bracket enter in the second round."""
    left = list(range(len(games.wins)))
    size = 1 << max(len(left) - 1, 0).bit_length()
    free = size - len(left)
    while len(left) > 1:
        waiting, playing = left[:free], left[free:]
        pairs = list(zip(playing[::2], playing[1::2], strict=True))
        yield pairs
        left = waiting + [i if games.wins[i, j] >= 0.5 else j for i, j in pairs]
        free = 0


_ROUNDS = {"round_robin": _round_robin, "swiss": _swiss, "knockout": _knockout}


def _result(responses: Sequence[str], schedule: Schedule, games: _Games) -> RankResult:
    strengths = games.strengths()
    ranking = stats.rankdata(-strengths.round(_DIGITS), method="min")
    position = {responses[index]: k for k, index in enumerate(schedule.indices)}
    place = [position[text] for text in responses]
    weights = np.bincount(place, minlength=len(strengths)).astype(float)
    expected = special.expit(strengths[:, None] - strengths[None, :])
    wins = np.where(games.played, games.wins, expected)
    np.fill_diagonal(wins, 0.5)
    others = len(responses) - 1
    # A response does not meet itself: one 0.5 less, and one opponent less.
    means = (wins @ weights - 0.5) / others if others else np.full(1, 0.5)
    return RankResult(
        ranks=_shared_ranks(ranking[place]),
        best=schedule.indices[int(np.argmin(ranking))],
        win_probabilities=[float(means[k]) for k in place],
        strengths=[float(strengths[k]) for k in place],
        method=schedule.method,
        comparisons=games.comparisons,
        abstained=games.abstained,
        cycles=_cycles(games, schedule.indices),
    )


def _shared_ranks(ranking: np.ndarray) -> list[int]:
    return [int(rank) for rank in stats.rankdata(ranking, method="min")]


def _cycles(games: _Games, indices: Sequence[int]) -> list[tuple[int, int, int]]:
    beats = games.played & (games.wins > 0.5)
    found = []
    for i, j in np.argwhere(beats):
        for k in map(int, np.flatnonzero(beats[j] & beats[:, i])):
            triple = indices[i], indices[j], indices[k]
            if triple[0] == min(triple):
                found.append(triple)
    return sorted(found)
