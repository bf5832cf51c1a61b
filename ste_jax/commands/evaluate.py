"""`ste evaluate`: a judge on a benchmark or a file of pairs; with --config, the evaluation stage of a run."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import app, flags

from ste_jax.benchmarks.names import BENCHMARKS
from ste_jax.checkpoint.location import check_exists
from ste_jax.commands import run as run_commands
from ste_jax.commands.column_flag import COLUMN
from ste_jax.commands.judge_flags import MODEL, check_single_command, load_judge, output_path
from ste_jax.commands.results import JSON, POLICY
from ste_jax.distributed import preemption, process
from ste_jax.metrics.policy import POLICIES

if TYPE_CHECKING:
    from ste_jax.benchmarks.benchmark import Benchmark
    from ste_jax.evaluation.run import Evaluation

_BENCHMARK = flags.DEFINE_enum("benchmark", None, BENCHMARKS, "Benchmark to evaluate on.")
_PATH = flags.DEFINE_string("path", "", "Folder of the benchmark's files. Default: its data set on the hub.")
_DATA = flags.DEFINE_string("data", None, "File or folder of labelled pairs (`ste data` shows what is read).")
_OUT = flags.DEFINE_string("out", None, "Result file; an interrupted evaluation continues there.")
_LIMIT = flags.DEFINE_integer(
    "limit", 0, "Comparisons to judge, drawn at random; 0 judges all.", lower_bound=0
)
_VOTES = flags.DEFINE_integer(
    "votes", 1, "Samples of each comparison and order; 1 is one greedy judgment.", lower_bound=1
)
_PROBES = flags.DEFINE_integer(
    "probes",
    0,
    "Comparisons of which about 20 altered versions are judged too, to show what the judge decides by.",
    lower_bound=0,
)
_CHECKPOINT_PAIRS = flags.DEFINE_bool(
    "include_checkpoint_pairs",
    False,
    "Also judge the pairs of --data that chose the checkpoint of this judge, which its model card names; "
    "they are no test of it.",
)


def main(argv: list[str]) -> None:
    """Runs `ste evaluate`."""
    if run_commands.is_given():
        if MODEL.value:
            raise app.UsageError("--config evaluates a stage of a run, --model a model: give one of them")
        run_commands.main(argv)
        return
    check_single_command(argv)
    if not MODEL.value or not _OUT.value:
        raise app.UsageError("evaluate needs --model and --out (or --config and --workdir)")
    if bool(_BENCHMARK.value) == bool(_DATA.value):
        raise app.UsageError("evaluate needs either --benchmark or --data")
    out = output_path(_OUT.value)
    check_exists(MODEL.value)
    # Imported here: the help of a command must not wait for JAX.
    from ste_jax.distributed.rendezvous import session
    from ste_jax.evaluation.run import evaluate

    with session(out.parent, {"model": MODEL.value, "votes": str(_VOTES.value)}):
        preemption.install_handler()
        judge = load_judge()
        evaluation = evaluate(
            judge,
            _benchmark(judge.columns),
            out=out,
            votes=_VOTES.value,
            limit=_LIMIT.value,
            probes=_PROBES.value,
            include_checkpoint_pairs=_CHECKPOINT_PAIRS.value,
            progress=True,
            policy=POLICIES[POLICY.value],
        )
        if process.is_process_zero():
            _print(evaluation)


def _print(evaluation: "Evaluation") -> None:
    from rich.console import Console

    from ste_jax.evaluation.terminal import tables

    if JSON.value:
        print(json.dumps(evaluation.numbers))
    else:
        Console().print(tables(evaluation.numbers))


def _benchmark(shown: Sequence[str]) -> "Benchmark":
    """Returns what to evaluate on, with the columns that the judge's prompt shows."""
    from ste_jax.benchmarks.benchmark import read_pairs_file
    from ste_jax.benchmarks.catalogue import load
    from ste_jax.data.named_columns import NamedColumns

    if _BENCHMARK.value:
        return load(_BENCHMARK.value, _PATH.value)
    return read_pairs_file(_DATA.value or "", NamedColumns(prompt=COLUMN.value, shown=tuple(shown)))
