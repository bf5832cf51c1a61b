"""A judge for your own use case: your instructions, categories and rubric, and optionally labelled pairs.

  ste run --config=company_data --workdir=runs/support \\
      --config.instructions=tickets.csv --config.labelled_pairs=judged_by_us.jsonl

`instructions`: a file or folder with a column instruction, prompt, text, question or messages (any other one:
`--config.instructions_column=body`), .txt (one instruction per line) or tfds:NAME. If a column holds the
replies that your team has sent, `--config.pairs.better_from=reply` takes them as the better responses.
`labelled_pairs` (optional): instruction, response_a, response_b, label (A or B), or a published form (`ste
data FILE` shows what is read). They are never trained on: half of them choose the checkpoint of every
iteration, on the other half every model is evaluated, and instructions with their texts are left out.
Slices: v5e-16, v6e-8. `:runlocal` is a trial of your files on two CPU cores, in minutes:

  ste run --config=company_data:runlocal --workdir=runs/trial \\
      --config.model=models/SmolLM2-135M-Instruct.Q4_1.gguf --config.instructions=tickets.csv

It trains a small model with a pointwise prompt on pairs whose label is certain (docs/PAIRS.md). Without
`instructions` it takes the starter instructions.
"""

from ml_collections import ConfigDict

from ste_jax.shipped import import_config

_PAPER = import_config("paper_70b")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the configuration; `arg` is "" or "runlocal"."""
    c = _PAPER["get_config"]()
    c.name = "company_data"
    c.iterations = 3
    c.model = "meta-llama/Llama-3.1-8B-Instruct"
    c.chat_template = ""
    c.mesh, c.train_mesh = (1, -1, 8), (1, -1, 1)
    c.train.micro_rows = 16
    c.train.moment_dtype = "float32"
    c.instructions = "instructions.csv"
    c.labelled_pairs = ""

    # Criteria of the judge, in the words of the team that is responsible for it.
    c.rubric = (
        "Is every statement correct and supported by our documentation? Does the answer solve the "
        "customer's problem "
        "in steps that they can follow? Is it polite without empty phrases, and no longer than it has to be?"
    )
    c.select.categories = (
        "Billing",
        "Technical problem",
        "How-to question",
        "Complaint",
        "Cancellation",
        "Other",
    )
    c.select.quotas = ConfigDict(
        {
            "Technical problem": 2.0,
            "How-to question": 2.0,
            "Billing": 1.0,
            "Complaint": 1.0,
            "Cancellation": 1.0,
        }
    )
    c.select.size = 5000
    c.select.filters = ConfigDict(
        {
            # Codes of the languages to keep, such as ("en", "de"). Empty: all; the paper keeps English alone.
            "languages": (),
            # E-mail addresses, phone and card numbers: "drop" leaves out the instructions that hold one,
            # "mask" puts <EMAIL>, <PHONE> and <CARD> in their place, "keep" changes nothing.
            "personal_data": "drop",
            # Longer instructions are left out.
            "max_chars": 4000,
            # Of two instructions that are at least as similar, one is left out. 1: only if they are equal.
            "near_duplicate_threshold": 0.8,
        }
    )
    c.pairs.validation, c.pairs.test = 200, 200

    c.train.learning_rate = 2e-6
    c.annotate.stop_when_correct = 1  # one correct judgment is used; do not sample more
    c.decode.sequences = 480
    c.decode.prefix_tokens = 262144
    c.decode.samples_per_slot = 5

    if arg == "runlocal":
        _PAPER["shrink"](c)
        _try_locally(c)
    elif arg:
        raise ValueError(f"company_data: unknown argument {arg!r}; there is only 'runlocal'")
    return c


def _try_locally(c: ConfigDict) -> None:
    """Replaces what a model of 135M parameters cannot do: to label, to modify instructions, to reason."""
    c.judge_prompt = "pointwise"
    c.select.pool, c.select.size, c.select.categories, c.select.max_tokens = 0, 60, (), 256
    c.pairs.mode = ("random_crossed", "padded", "cut_off")
    c.pairs.max_response_tokens = 40
    c.pairs.validation, c.pairs.test = 9, 30

    # One sample records the log-odds of the verdict, which are all that there is to know.
    c.annotate.max_pairs, c.annotate.samples, c.annotate.stop_when_correct = 16, 1, 0
    c.annotate.max_new_tokens, c.annotate.force_verdict = 0, True

    c.train.objective, c.train.choose_by = "pairwise", "accuracy_pooled"
    c.train.learning_rate, c.train.warmup_steps, c.train.epochs = 1e-4, 4, 1.0
    c.train.row_length, c.train.batch_rows, c.train.micro_rows = 1024, 2, 2  # a row holds two pairs
    c.train.remat = "dots"
    c.train.evaluate_every = c.train.checkpoint_every = 12

    c.evaluate.votes = 0
    c.decode.sequences, c.decode.samples_per_slot = 64, 1
    c.decode.buckets = (128, 256, 512)
    c.decode.prefill_tokens = 1024
