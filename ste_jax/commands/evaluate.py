"""`ste evaluate`: a model on a benchmark or a file of pairs; with --config, the evaluation stage of a run."""

import json

from absl import app, flags
from rich.console import Console

from ste_jax.benchmarks.benchmark import Benchmark, read_pairs_file
from ste_jax.benchmarks.catalogue import BENCHMARKS, load
from ste_jax.commands import run as run_commands
from ste_jax.commands.mesh import asked_mesh
from ste_jax.commands.results import JSON, POLICY
from ste_jax.distributed import preemption, process
from ste_jax.distributed.rendezvous import session
from ste_jax.evaluation.numbers import numbers
from ste_jax.evaluation.result import Result
from ste_jax.evaluation.run import evaluate
from ste_jax.evaluation.settings import EvaluationSettings
from ste_jax.evaluation.terminal import tables
from ste_jax.metrics.stats import POLICIES
from ste_jax.paths import local_path

_MODEL = flags.DEFINE_string(
    "model", None, "GGUF file, Hugging Face folder or hub name, or model folder of a run."
)
_BENCHMARK = flags.DEFINE_enum("benchmark", None, list(BENCHMARKS), "Benchmark to evaluate on.")
_PATH = flags.DEFINE_string("path", "", "Folder of the benchmark's files; default: its data set on the hub.")
_DATA = flags.DEFINE_string("data", None, "File of labelled pairs: .jsonl, .csv or .parquet.")
_OUT = flags.DEFINE_string("out", None, "Result file; if it is there, the evaluation goes on where it was.")
_LIMIT = flags.DEFINE_integer("limit", 0, "Comparisons to judge, drawn at random; 0: all.", lower_bound=0)
_VOTES = flags.DEFINE_integer("votes", 1, "Samples a pair and order; 1: one greedy judgment.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of votes, their ties, the bootstrap and --limit.")
_PROMPT = flags.DEFINE_string(
    "prompt", "", "short, standard, verdict or a template file; default: the model's own."
)
_RUBRIC = flags.DEFINE_string("rubric", "", "Takes the place of the prompt's own.")
_TOKENS = flags.DEFINE_integer(
    "max_new_tokens",
    None,
    "Of a judgment; 0: the verdict alone; without: by the size of the model.",
    lower_bound=0,
)
_FORCE = flags.DEFINE_bool(
    "force_verdict", None, "Make judgments end with a verdict; default: small models only."
)
_SEQUENCES = flags.DEFINE_integer("sequences", 32, "Samples in flight.", lower_bound=1)
_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "Of weights and caches.")


def main(argv: list[str]) -> None:
    """Runs `ste evaluate`."""
    if run_commands.is_asked_for():
        if _MODEL.value:
            raise app.UsageError("--config evaluates a stage of a run, --model a model: give one of them")
        run_commands.main(argv)
        return
    if len(argv) != 2:
        raise app.UsageError(f"one command is enough: {' '.join(argv[1:])}")
    if not _MODEL.value or not _OUT.value:
        raise app.UsageError("evaluate wants --model and --out (or --config and --workdir)")
    out, settings = local_path(_OUT.value, "--out"), _settings()
    if out.is_dir():
        raise ValueError(f"--out {out}: a folder; give the name of a file in it")
    with session(out.parent, {"model": _MODEL.value, "settings": str(settings)}):
        preemption.install_handler()
        result = evaluate(_MODEL.value, _benchmark(), settings, out)
        if process.is_process_zero():
            _show(result)


def _show(result: Result) -> None:
    report = numbers(result, POLICIES[POLICY.value])
    if JSON.value:
        print(json.dumps(report))
    else:
        Console().print(tables(report))


def _benchmark() -> Benchmark:
    if _BENCHMARK.value and not _DATA.value:
        return load(_BENCHMARK.value, _PATH.value)
    if _DATA.value and not _BENCHMARK.value:
        return read_pairs_file(_DATA.value)
    raise app.UsageError("evaluate wants either --benchmark or --data")


def _settings() -> EvaluationSettings:
    return EvaluationSettings(
        prompt=_PROMPT.value,
        rubric=_RUBRIC.value,
        max_new_tokens=_TOKENS.value,
        force_verdict=_FORCE.value,
        votes=_VOTES.value,
        seed=_SEED.value,
        limit=_LIMIT.value,
        sequences=_SEQUENCES.value,
        dtype=_DTYPE.value,
        mesh=asked_mesh(),
    )
