"""Flags of the commands that load a judge: `ste judge`, `ste evaluate` and `ste calibrate`."""

from pathlib import Path
from typing import TYPE_CHECKING

from absl import app, flags

from ste_jax.checkpoint.location import check_exists
from ste_jax.commands.mesh import mesh_shape
from ste_jax.errors import SteError
from ste_jax.paths import local_path

if TYPE_CHECKING:
    from ste_jax.judge import Judge

MODEL = flags.DEFINE_string(
    "model", None, "Model folder of a run, Hugging Face folder or hub name, or GGUF file."
)
_PROMPT = flags.DEFINE_string(
    "prompt",
    "",
    "Judge prompt: short, standard, verdict, pointwise or a template file. Default: that of the judge's "
    "training.",
)
RUBRIC = flags.DEFINE_string(
    "rubric",
    "",
    "Criteria that replace those of the judge's prompt in every comparison, as with `Judge.load`; for `ste "
    "judge score` also the question to grade by on a scale.",
)
_TOKENS = flags.DEFINE_integer(
    "max_new_tokens",
    None,
    "Max new tokens per judgment. 0 = verdict only. Default: that of the judge's training, else 32 below 1B "
    "parameters and 2048 above.",
    lower_bound=0,
)
_FORCE = flags.DEFINE_bool(
    "force_verdict",
    None,
    "Append the verdict opening to judgments without a verdict. Default: as in the judge's training, else "
    "only below 1B parameters.",
)
_SEQUENCES = flags.DEFINE_integer("sequences", 32, "Samples in flight.", lower_bound=1)
_DTYPE = flags.DEFINE_enum(
    "dtype",
    None,
    ["float32", "bfloat16"],
    "Dtype of weights and caches. Default: that of the judge's training, else float32 below 1B parameters.",
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of vote sampling, tie-breaks, bootstrap and --limit.")
_UNTRAINED = flags.DEFINE_bool(
    "allow_untrained_prompt", False, "Accept a prompt or rubric that the judge was not trained with."
)
_CHAT_TEMPLATE = flags.DEFINE_string(
    "chat_template", "", "File of a chat template (Jinja) that replaces that of the model."
)
_CHAT_DATE = flags.DEFINE_string(
    "chat_date",
    "",
    "Date, as YYYY-MM-DD, that a chat template prints as today's. Default: that of the judge's training, "
    "else 2024-07-26.",
)


def load_judge() -> "Judge":
    """Returns the judge that the flags name; its weights are not loaded yet."""
    if not MODEL.value:
        raise app.UsageError("--model is needed")
    check_exists(MODEL.value)
    from ste_jax.judge import Judge  # imported here: the help of a command must not wait for JAX

    return Judge.load(
        MODEL.value,
        prompt=_PROMPT.value or None,
        rubric=RUBRIC.value,
        max_new_tokens=_TOKENS.value,
        force_verdict=_FORCE.value,
        dtype=_DTYPE.value,
        seed=_SEED.value,
        mesh=mesh_shape(),
        sequences=_SEQUENCES.value,
        allow_untrained_prompt=_UNTRAINED.value,
        chat_template=_CHAT_TEMPLATE.value,
        chat_date=_CHAT_DATE.value,
    )


def check_single_command(argv: list[str]) -> None:
    """Refuses words behind the command."""
    if len(argv) != 2:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[2:])}")


def output_path(value: str) -> Path:
    """Returns the file that --out names.

    Raises:
      SteError: see `check_output`.
    """
    from ste_jax.storage.jsonl_output import check_output  # here: the help must not wait for JAX

    path = Path(local_path(value, "--out"))
    try:
        check_output(path)
    except SteError as error:
        raise SteError(error.code, f"--out {error}") from error
    return path
