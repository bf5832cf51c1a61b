"""`ste judge compare|rank|score|show`: a judge on a file of comparisons, rankings or single responses.

The whole file is checked before the model is loaded. Every record gives one line of JSON in the output, in
input order, equal to `to_dict()` of the Python result. An interrupted command continues where it ended.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from absl import app, flags

from ste_jax.commands.column_flag import COLUMN
from ste_jax.commands.judge_flags import RUBRIC, load_judge, output_path
from ste_jax.data.comparisons import read_comparisons, read_rankings, read_scorings
from ste_jax.data.named_columns import NamedColumns
from ste_jax.distributed import preemption, process
from ste_jax.errors import SteError
from ste_jax.records import ORDERS, Comparison, ComparisonResult
from ste_jax.visible import visible

if TYPE_CHECKING:
    from ste_jax.judge import Judge
    from ste_jax.judging.compare import OnFlip, Orders
    from ste_jax.judging.ranking import Method, RankResult
    from ste_jax.judging.scoring import ScoreResult

R = TypeVar("R")
T = TypeVar("T")

_DATA = flags.DEFINE_string("data", None, "File or folder to judge (`ste data` shows what is read).")
_OUT = flags.DEFINE_string("out", None, "File of JSON lines to write.")
_REFERENCE = flags.DEFINE_string(
    "reference_column", None, "Column that holds a correct answer to show to the judge."
)
_VOTES = flags.DEFINE_integer("votes", 1, "Samples of each order; 1 is one greedy judgment.", lower_bound=1)
_ORDERS = flags.DEFINE_enum(
    "orders", "both", ["both", "one"], "Judge both orders, or only the order as given."
)
_ON_FLIP = flags.DEFINE_enum(
    "on_flip",
    "probability",
    ["probability", "abstain"],
    "Where the verdicts of both orders disagree: decide by the pooled probability, or abstain.",
)
_METHOD = flags.DEFINE_enum(
    "method",
    None,
    ["round_robin", "swiss", "knockout"],
    "Tournament of `ste judge rank`. Default: all pairs up to 4 responses, Swiss rounds above.",
)
_MAX_COMPARISONS = flags.DEFINE_integer(
    "max_comparisons", None, "Largest number of comparisons per ranking.", lower_bound=0
)
_SCALE = flags.DEFINE_list(
    "scale",
    None,
    "Lowest and highest level for the rows of `ste judge score` without a baseline. Default: 1,5, or the "
    "grade of a pointwise judge.",
)
_QUESTION = flags.DEFINE_string(
    "question",
    "",
    "Question that `ste judge score` grades by on a scale. Default: that of --rubric, else general quality.",
)
_ROW = flags.DEFINE_integer("row", 0, "Row of the file to show, from 0.", lower_bound=0)

# The actions that flags belong to; the other flags belong to all.
_ACTIONS = {
    "out": ("compare", "rank", "score"),
    "votes": ("compare", "rank", "score"),
    "orders": ("compare",),
    "on_flip": ("compare",),
    "method": ("rank",),
    "max_comparisons": ("rank",),
    "scale": ("score",),
    "question": ("score",),
    "row": ("show",),
}
USAGE = "expected: ste judge compare|rank|score|show --model=MODEL --data=FILE [--out=FILE]"


def main(argv: list[str]) -> None:
    """Runs `ste judge ACTION`."""
    actions = {"compare": _compare, "rank": _rank, "score": _score, "show": _show}
    if len(argv) != 3 or argv[2] not in actions:
        raise app.UsageError(USAGE)
    if not _DATA.value:
        raise app.UsageError("--data is needed")
    for name, used_by in _ACTIONS.items():
        if flags.FLAGS[name].present and argv[2] not in used_by:
            raise app.UsageError(f"--{name} is a flag of ste judge {' and '.join(used_by)}")
    actions[argv[2]]()


def _named(shown: Sequence[str] = ()) -> NamedColumns:
    return NamedColumns(prompt=COLUMN.value, reference=_REFERENCE.value or "", shown=tuple(shown))


def _reread(judge: "Judge", rows: list[T], read: Callable[..., list[T]]) -> list[T]:
    """Returns the rows of the file with the columns that the judge's prompt shows.

    The file was read before, so that its errors do not wait for a model.
    """
    return read(_DATA.value or "", named=_named(judge.columns)) if judge.columns else rows


def _read_pairs(path: str, named: NamedColumns) -> list[Comparison]:
    return read_comparisons(path, labels="optional", named=named)


def _compare() -> None:
    out, comparisons = _out(), _read_pairs(_DATA.value or "", _named())
    _write(
        out,
        lambda judge: judge.compare_many(
            _reread(judge, comparisons, _read_pairs),
            out=out,
            votes=_VOTES.value,
            orders=cast("Orders", _ORDERS.value),
            on_flip=cast("OnFlip", _ON_FLIP.value),
            progress=True,
        ),
        summary,
    )


def _rank() -> None:
    from ste_jax.judging.ranking import schedule_of

    out, rows = _out(), read_rankings(_DATA.value or "", named=_named())
    method, most = cast("Method | None", _METHOD.value), _MAX_COMPARISONS.value
    for row in rows:
        schedule_of(row.responses, 0, method, most)
    _write(
        out,
        lambda judge: judge.rank_many(
            _reread(judge, rows, read_rankings),
            out=out,
            votes=_VOTES.value,
            method=method,
            max_comparisons=most,
            progress=True,
        ),
        rank_summary,
    )


def _score() -> None:
    out, rows = _out(), read_scorings(_DATA.value or "", named=_named())
    scale = None
    if _SCALE.value is not None:
        try:
            low, high = map(int, _SCALE.value)
        except ValueError as error:
            raise app.UsageError("--scale is the lowest and the highest level, such as 1,5") from error
        scale = low, high
    rubric = score_rubric(_QUESTION.value, RUBRIC.value)
    _write(
        out,
        lambda judge: judge.score_many(
            _reread(judge, rows, read_scorings),
            out=out,
            scale=scale,
            rubric=rubric,
            votes=_VOTES.value,
            progress=True,
        ),
        lambda results, seconds, _: score_summary(results, seconds),
    )


def _out() -> Path:
    if not _OUT.value:
        raise app.UsageError("--out is needed")
    return output_path(_OUT.value)


def _write(
    out: Path,
    judge_all: Callable[["Judge"], Sequence[R]],
    summarize: Callable[[Sequence[R], float, bool], str],
) -> None:
    """Judges a file and prints the summary of the results and the seconds to stderr."""
    from ste_jax.distributed.rendezvous import session
    from ste_jax.storage.jsonl_output import is_finished

    with session(out.parent, {"data": _DATA.value or ""}):
        preemption.install_handler()
        known, started = is_finished(out), time.monotonic()
        judge = load_judge()
        results = judge_all(judge)
        if process.is_process_zero():
            line = summarize(results, time.monotonic() - started, judge.is_pointwise)
            done = "made earlier, nothing was judged" if known else "written"
            print(line, f"{done}: {visible(str(out))}", sep="\n", file=sys.stderr)


def rank_summary(results: Sequence["RankResult"], seconds: float, pointwise: bool) -> str:
    """Returns one line about rankings: comparisons, flips, abstentions, cycles, tokens and seconds."""
    flips = "" if pointwise else f"{sum(r.flips for r in results)} flipped with the order, "
    return (
        f"{len(results)} rankings: {sum(r.comparisons for r in results)} comparisons, {flips}"
        f"{sum(r.abstained for r in results)} abstained, {sum(len(r.cycles) for r in results)} cycles; "
        f"{sum(r.usage.get('total_tokens', 0) for r in results)} tokens; {seconds:.1f} s"
    )


def score_rubric(question: str, rubric: str) -> str | None:
    """Returns what `ste judge score` grades by on a scale: --question or --rubric; None for the default.

    Raises:
      app.UsageError: both are given.
    """
    if question and rubric:
        raise app.UsageError("--question and --rubric both name what to grade by: give one of them")
    return question or rubric or None


_METHODS = {
    "baseline": "against a baseline",
    "anchors": "against anchors",
    "pointwise": "by grading the response",
    "scale": "on a scale",
}


def score_summary(results: Sequence["ScoreResult"], seconds: float) -> str:
    """Returns one line about scores: methods, abstentions by reason, tokens and seconds."""
    methods = Counter(result.method for result in results)
    counts = ", ".join(f"{methods[name]} {text}" for name, text in _METHODS.items() if methods[name])
    abstained = Counter(result.abstained for result in results if result.abstained)
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(abstained.items()))
    tokens = sum(result.usage.get("total_tokens", 0) for result in results)
    return (
        f"{len(results)} scores: {counts or 'none'}, abstained {abstained.total()}"
        f"{f' ({reasons})' if reasons else ''}; {tokens} tokens; {seconds:.1f} s"
    )


def summary(results: Sequence[ComparisonResult], seconds: float, pointwise: bool) -> str:
    """Returns one line about results: decisions, flips, abstentions by reason, tokens and seconds.

    A pointwise judge shows one response at a time, so that its decisions have no order to flip with.
    """
    winners = Counter(result.winner for result in results)
    abstained = Counter(result.abstained for result in results if result.abstained)
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(abstained.items()))
    tokens = sum(result.usage.get("total_tokens", 0) for result in results)
    flips = sum(result.consistent is False for result in results)
    flipped = "" if pointwise else f"{flips} flipped with the order; "
    return (
        f"{len(results)} comparisons: A {winners['A']}, B {winners['B']}, abstained {abstained.total()}"
        f"{f' ({reasons})' if reasons else ''}; {flipped}{tokens} tokens; {seconds:.1f} s"
    )


def _show() -> None:
    comparisons = _read_pairs(_DATA.value or "", _named())
    if _ROW.value >= len(comparisons):
        raise SteError(
            "row_missing", f"{_DATA.value}: rows are 0 to {len(comparisons) - 1}, not {_ROW.value}"
        )
    judge = load_judge()
    comparison = _reread(judge, comparisons, _read_pairs)[_ROW.value]
    print(visible(show(judge, comparison)))


def show(judge: "Judge", comparison: Comparison) -> str:
    """Returns the exact prompts that a judge reads for a comparison, their tokens, and its answers."""
    (result,) = judge.compare_many([comparison], votes=1)
    protocol, tokenizer = judge.protocol(), judge.model.source.tokenizer
    names, what = ORDERS, "first"
    if judge.is_pointwise:
        names, what = ("response A", "response B"), "good"
    lines = []
    for order, name in zip(ORDERS, names, strict=True):
        ids = protocol.prompt_ids(comparison, order)
        lines += [f"===== {name}: {len(ids)} tokens =====", tokenizer.decode(ids, control=True)]
        answers = [found for found in result.orders if found.order == order]
        for found in answers:
            lines += [
                f"----- answer: verdict {found.verdict}, P({what}) {_number(found.probability_first)} -----",
                found.text.strip(),
            ]
    probability = _number(result.probability_a)
    lines.append(f"===== winner {result.winner}, P(A) {probability}, abstained {result.abstained} =====")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
