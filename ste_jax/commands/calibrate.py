"""`ste calibrate`: fits the temperature and the abstention threshold of a judge on labelled pairs.

Both go into the model card of a model folder of ste_jax; for any other model into a file of the user's data
folder, which `Judge.load` finds by the fingerprint of the weights.
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import app, flags

from ste_jax.commands.column_flag import COLUMN
from ste_jax.commands.judge_flags import check_single_command, load_judge, output_path
from ste_jax.data.comparisons import read_labelled_pairs
from ste_jax.data.named_columns import NamedColumns
from ste_jax.distributed import preemption, process
from ste_jax.visible import visible

if TYPE_CHECKING:
    from ste_jax.judge import Judge
    from ste_jax.judging.calibration import Calibration

_DATA = flags.DEFINE_string("data", None, "File or folder of labelled pairs (`ste data` shows what is read).")
_OUT = flags.DEFINE_string("out", None, "Keep the verdicts in this file, so that the command can continue.")
_AGREEMENT = flags.DEFINE_float(
    "agreement", None, "Share of decisions that are to agree with the labels; the judge abstains below."
)
_JSON = flags.DEFINE_bool("json", False, "Print the calibration as JSON.")


def main(argv: list[str]) -> None:
    """Runs `ste calibrate`."""
    check_single_command(argv)
    if not _DATA.value:
        raise app.UsageError("calibrate needs --model and --data")
    # Imported here: the help of a command must not wait for JAX.
    from ste_jax.distributed.rendezvous import session
    from ste_jax.judging.calibration import check_agreement, check_size, fit_calibration

    check_agreement(_AGREEMENT.value)
    pairs, ties, identical = read_labelled_pairs(_DATA.value, named=NamedColumns(prompt=COLUMN.value))
    prompts = [pair.cluster for pair in pairs]
    check_size(len(pairs), len(set(prompts)))
    out = output_path(_OUT.value) if _OUT.value else None
    with session(out.parent if out else Path.cwd(), {"data": _DATA.value}):
        preemption.install_handler()
        judge = load_judge()
        # Log-odds do not depend on a calibration that is there already; the settings of `out` would.
        judge.calibration = None
        if judge.columns:  # the file was read before, so that its errors do not wait for a model
            named = NamedColumns(prompt=COLUMN.value, shown=judge.columns)
            pairs = read_labelled_pairs(_DATA.value, named=named).pairs
        results = judge.compare_many(pairs, out=out, progress=True)
        calibration = fit_calibration(
            [result.log_odds for result in results],
            [pair.label == "A" for pair in pairs],
            prompts,
            agreement=_AGREEMENT.value,
            settings=judge.calibration_settings(),
            seed=judge.settings.seed,
        )
        path = save(judge, calibration)
        if process.is_process_zero():
            text = report(calibration, len(ties), identical)
            print(json.dumps(calibration.to_dict()) if _JSON.value else text)
            print(f"written: {visible(str(path))}", file=sys.stderr)


def save(judge: "Judge", calibration: "Calibration") -> Path:
    """Stores the calibration of a judge where `Judge.load` finds it, and returns the file."""
    from ste_jax.checkpoint.folder import update_card
    from ste_jax.judging.calibration import write_calibration

    source = judge.model.source
    if source.card is not None:
        update_card(source.path, calibration=calibration.to_dict())
        return Path(source.path) / "model.json"
    return write_calibration(source.digest(), calibration)


def report(calibration: "Calibration", ties: int, identical: int) -> str:
    """Returns a calibration, and the numbers of pairs that were left out, as lines of text."""
    held_out = calibration.held_out
    lines = [
        f"{calibration.pairs} pairs of {calibration.prompts} prompts; {ties} ties and "
        f"{identical} pairs of equal responses left out, "
        f"{calibration.without_numbers} without log-odds",
        f"temperature {calibration.temperature:.3f}, abstention threshold {calibration.threshold:.3f}",
        "held out (each half of the prompts with the fit of the other):",
        f"  agreement of all decisions  {_share(held_out, 'agreement')}",
        f"  calibration error (ECE)     {held_out['ece_before']:.3f} -> {held_out['ece_after']:.3f}",
        f"  negative log-likelihood     {held_out['nll_before']:.3f} -> {held_out['nll_after']:.3f}",
    ]
    if calibration.agreement is not None:
        lines += [
            f"  kept at agreement {calibration.agreement:g}    {held_out['kept']:.1%} of the pairs",
            f"  agreement of kept decisions {_share(held_out, 'kept_agreement')}",
        ]
    lines.append("  coverage  agreement  least confidence")
    lines += [
        f"  {row['coverage']:8.0%}  {row['agreement']:9.3f}  {row['confidence']:16.3f}"
        for row in held_out["risk_coverage"]
    ]
    return "\n".join(lines)


def _share(held_out: dict[str, Any], name: str) -> str:
    value, interval = held_out[name], held_out[f"{name}_interval95"]
    if value is None:
        return "none is kept"
    return f"{value:.3f}" + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")
