"""`ste stats` and `ste compare`: every number of result files, without a model."""

import json

from absl import app, flags

from ste_jax.metrics.policy import POLICIES

JSON = flags.DEFINE_bool("json", False, "Print one JSON object instead of tables.")
_CALIBRATE = flags.DEFINE_bool(
    "length_calibration",
    False,
    "For stats: also give the accuracy after the part of the decisions that lengths explain is subtracted.",
)
POLICY = flags.DEFINE_enum("policy", "wrong", list(POLICIES), "Score of a judgment without a verdict.")


def main(argv: list[str]) -> None:
    """Runs `ste stats RESULT` or `ste compare RESULT_A RESULT_B`."""
    # Imported here: the help of a command must not wait for them.
    from rich.console import Console

    from ste_jax.evaluation.compare import compare
    from ste_jax.evaluation.numbers import numbers
    from ste_jax.evaluation.result import read_result
    from ste_jax.evaluation.terminal import comparison_table, tables

    command, paths = argv[1], argv[2:]
    single = command == "stats"
    if len(paths) != (1 if single else 2):
        raise app.UsageError(f"{command} needs {'one result file' if single else 'two result files'}")
    policy = POLICIES[POLICY.value]
    results = [read_result(path) for path in paths]
    if single:
        report = numbers(results[0], policy, calibrate_length=_CALIBRATE.value)
    else:
        report = compare(results[0], results[1], policy)
    if JSON.value:
        print(json.dumps(report))
    else:
        Console().print(tables(report) if single else comparison_table(report))
