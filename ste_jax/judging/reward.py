"""Judges as reward functions of RL trainers: one number per completion, one batch of comparisons per call.

`RewardFunction` has the signature that TRL, tunix and MaxText call. `for_verl` and `for_areal` give those of
verl and AReaL.
"""

import functools
import hashlib
import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ste_jax.checks import check_number, check_text
from ste_jax.data.messages import flatten_messages
from ste_jax.data.named_columns import shown_text
from ste_jax.errors import SteError
from ste_jax.judging.batches import Comparer


class RewardFunction:
    """Reward of completions by a judge, called with (prompts, completions, **columns).

    With a baseline column the reward is the probability that the completion beats the baseline of its row.
    Without, it is the mean probability to beat another completion of the same prompt in the batch, 0.5
    against an identical one; a single completion of a prompt gets `on_abstain`. Prompts and completions are
    text or lists of messages. Identical comparisons are made once. Calls from several threads are served in
    turn.

    Attributes:
      judge: the judge.
      baseline: column with the response to beat, or None.
      reference: column with a correct answer that the judge is shown, or None.
      shown: further columns that the judge's prompt shows.
      on_abstain: reward of a completion that the judge could not compare.
      options: further keyword arguments of `Judge.compare_many`, such as `votes` or `rubric`.
    """

    def __init__(
        self,
        judge: Comparer,
        *,
        baseline: str | None = None,
        reference: str | None = None,
        shown: Sequence[str] = (),
        on_abstain: float = 0.5,
        **options: Any,
    ):
        self.judge, self.baseline, self.reference = judge, baseline, reference
        self.shown = tuple(shown)
        check_number("reward: on_abstain", on_abstain)
        for name, column in (("baseline", baseline), ("reference", reference)):
            if column is not None:
                check_text(f"reward: {name}", column)
        self.on_abstain, self.options = float(on_abstain), options
        # Trainers log under this name.
        self.__name__ = f"judge_against_{baseline}" if baseline else "judge_within_group"
        self._lock = threading.Lock()

    def __reduce__(self):
        names = {"baseline": self.baseline, "reference": self.reference, "shown": self.shown}
        return functools.partial(
            RewardFunction, self.judge, **names, on_abstain=self.on_abstain, **self.options
        ), ()

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float]:
        """Returns the reward of each completion.

        Args:
          prompts: one per completion: text or messages.
          completions: text or messages.
          **columns: columns of the data set, one value per completion, and anything else that a trainer
            passes. Only the columns named as baseline and reference, and those that the judge's prompt shows,
            are read.

        Raises:
          SteError: if a column is missing or holds anything but text, or lengths differ.
        """
        n = len(completions)
        instructions = _texts("prompts", prompts, n)
        if (empty := next((i for i, text in enumerate(instructions) if not text.strip()), None)) is not None:
            raise SteError("data_invalid", f"reward: prompts[{empty}] is empty")
        responses = _texts("completions", completions, n)
        references = self._column(self.reference, columns, n, optional=True) or [""] * n
        further = [self._shown_column(name, columns, n) for name in self.shown]
        rows = list(zip(instructions, responses, references, *further, strict=True))
        baselines = self._column(self.baseline, columns, n)
        games = _groups(rows) if baselines is None else _against(rows, baselines)
        probabilities = self._compare({game for row in games for game in row if game is not None})
        wins = [[0.5 if game is None else probabilities[game] for game in row] for row in games]
        if callable(log_metric := columns.get("log_metric")):  # TRL
            values = [win for row in wins for win in row]
            log_metric(f"{self.__name__}/abstained", values.count(None) / max(len(values), 1))
        return [self._mean(row) for row in wins]

    def _mean(self, wins: Sequence[float | None]) -> float:
        values = [self.on_abstain if win is None else win for win in wins]
        return sum(values) / len(values) if values else self.on_abstain

    def _compare(self, games: set["_Game"]) -> "dict[_Game, float | None]":
        """Returns the probability that the first response wins, by comparison and by its mirror image."""
        # Sorted, so that prompts with a common beginning follow each other.
        distinct = sorted({min(game, _mirrored(game)) for game in games})
        if not distinct:
            return {}
        with self._lock:
            pairs = [_pair(game, self.shown) for game in distinct]
            results = list(self.judge.compare_many(pairs, **self.options))
        found: dict[_Game, float | None] = {}
        for game, result in zip(distinct, results, strict=True):
            p = result.probability_a
            found[game], found[_mirrored(game)] = p, None if p is None else 1.0 - p
        return found

    def _column(
        self, name: str | None, columns: Mapping[str, Any], n: int, *, optional: bool = False
    ) -> list[str] | None:
        return None if name is None else _texts(name, _present(name, columns), n, optional=optional)

    def _shown_column(self, name: str, columns: Mapping[str, Any], n: int) -> list[str]:
        """Returns a column that the judge's prompt shows, as the readers of files do."""
        values = _listed(name, _present(name, columns), n)
        return [shown_text(value, name, f"reward: {name}[{index}]") for index, value in enumerate(values)]

    def for_verl(self, *, instruction: str = "question", batch: bool = False) -> Callable[..., Any]:
        """Returns a `compute_score` for verl, which passes no prompt but the columns of `extra_info`.

        Args:
          instruction: key of `extra_info` with the instruction.
          batch: False for (data_source, solution_str, ground_truth, extra_info) -> float, which needs a
            baseline; True for the reward manager "batch", which passes lists. Columns are `ground_truth` and
            the keys of `extra_info`.

        Raises:
          SteError: without a baseline and `batch`, since there is nothing to compare with.
        """
        if not batch:
            self._require_baseline("for_verl")
        return functools.partial(_verl_batch if batch else _verl, self, instruction)

    def for_areal(self) -> Callable[..., float]:
        """Returns the function (prompt, completions, prompt_ids, completion_ids, **columns) that AReaL calls.

        AReaL calls it in other processes: each of them loads the judge when it is first called.

        Raises:
          SteError: without a baseline, since AReaL passes one completion per call.
        """
        self._require_baseline("for_areal")
        return functools.partial(_areal, self)

    def _require_baseline(self, name: str) -> None:
        if self.baseline is None:
            raise SteError(
                "argument_invalid",
                f"{name}: a completion alone has nothing to be compared with; set baseline",
            )


# A comparison: instruction, response A, response B, reference ("": none), texts of the columns shown.
_Game = tuple[str, ...]


def _against(rows: Sequence[tuple[str, ...]], baselines: Sequence[str]) -> list[list[_Game]]:
    return [[(i, a, b, *shown)] for (i, a, *shown), b in zip(rows, baselines, strict=True)]


def _groups(rows: Sequence[tuple[str, ...]]) -> list[list[_Game | None]]:
    """Returns the comparisons of each row with the others of its prompt, None with an identical response."""
    members: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for index, (instruction, _, *shown) in enumerate(rows):
        members[instruction, *shown].append(index)
    games: list[list[_Game | None]] = [[] for _ in rows]
    for (instruction, *shown), indices in members.items():
        for i, j in itertools.permutations(indices, 2):
            a, b = rows[i][1], rows[j][1]
            games[i].append(None if a == b else (instruction, a, b, *shown))
    return games


def _mirrored(game: _Game) -> _Game:
    instruction, a, b, *shown = game
    return instruction, b, a, *shown


def _id(game: _Game) -> str:
    return hashlib.sha256("\x1f".join(game).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _pair(game: _Game, columns: Sequence[str]) -> dict[str, str]:
    instruction, a, b, reference, *texts = game
    pair = dict(zip(columns, texts, strict=True))
    pair |= {"id": _id(game), "instruction": instruction, "response_a": a, "response_b": b}
    return pair | ({"reference": reference} if reference else {})


def _present(name: str, columns: Mapping[str, Any]) -> Any:
    if name not in columns:
        raise SteError("data_invalid", f"reward: the column {name} is missing; there are {sorted(columns)}")
    return columns[name]


def _listed(name: str, values: Any, n: int) -> Sequence[Any]:
    """Returns the values of a column, one per completion."""
    if isinstance(values, str) or not hasattr(values, "__len__") or len(values) != n:
        found = (
            len(values)
            if hasattr(values, "__len__") and not isinstance(values, str)
            else type(values).__name__
        )
        raise SteError(
            "data_invalid", f"reward: {name} must be a list of {n}, one per completion, not {found}"
        )
    return values


def _texts(name: str, values: Sequence[Any], n: int, *, optional: bool = False) -> list[str]:
    values = _listed(name, values, n)
    return [
        "" if optional and value is None else _text(value, f"reward: {name}[{index}]")
        for index, value in enumerate(values)
    ]


def _text(value: Any, where: str) -> str:
    if isinstance(value, list | tuple):
        return flatten_messages(value, where)
    if not isinstance(value, str):
        raise SteError("data_invalid", f"{where} must be text or messages, not {type(value).__name__}")
    return str(value)  # of a numpy.str_ too


def _verl(
    reward: RewardFunction,
    instruction: str,
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    **_: Any,
) -> float:
    return _verl_batch(
        reward, instruction, [data_source], [solution_str], [ground_truth], [extra_info or {}]
    )[0]


def _verl_batch(
    reward: RewardFunction,
    instruction: str,
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Mapping[str, Any]],
    **_: Any,
) -> list[float]:
    missing = [index for index, info in enumerate(extra_infos) if instruction not in info]
    if missing:
        raise SteError("data_invalid", f"reward: extra_info[{missing[0]}] has no key {instruction!r}")
    columns: dict[str, Any] = {}
    for name in (reward.baseline, reward.reference, *reward.shown):
        if name is not None:
            columns[name] = [info.get(name) for info in extra_infos]
    columns["ground_truth"] = list(ground_truths)
    return reward([info[instruction] for info in extra_infos], list(solution_strs), **columns)


def _areal(
    reward: RewardFunction,
    prompt: str,
    completions: str,
    prompt_ids: Any,
    completion_ids: Any,
    **columns: Any,
) -> float:
    return reward([prompt], [completions], **{name: [value] for name, value in columns.items()})[0]
