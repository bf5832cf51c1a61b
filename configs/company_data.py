"""A judge for your own use case: your instructions, categories and rubric, and optionally labelled pairs.

  ste run --config=company_data --workdir=runs/support \\
      --config.instructions=tickets.csv --config.labelled_pairs=judged_by_us.jsonl

`instructions`: a file or folder with a column instruction, prompt, text, question or messages, .txt (one a
line) or tfds:NAME. `labelled_pairs` (optional): instruction, response_a, response_b, label (A or B), or a
published form (`ste data FILE` shows what is read). They are never trained on: half of them choose the
checkpoint of every iteration, on the other half every model is evaluated, and instructions with their texts
are left out. Instructions in all languages are kept.
Slices: v5e-16, v6e-8. `:runlocal` shrinks it to two CPU cores and the starter
instructions (add `--config.model=` a small model).
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
    # All languages: the filter of the paper's configuration keeps English alone.
    c.select.filters = ConfigDict({"languages": ()})
    c.pairs.validation, c.pairs.test = 200, 200

    c.train.learning_rate = 2e-6
    c.annotate.stop_when_correct = 1  # one correct judgment is used; do not sample more
    c.decode.sequences = 480
    c.decode.prefix_tokens = 262144
    c.decode.samples_per_slot = 5

    if arg == "runlocal":
        _PAPER["shrink"](c)
        # A small model rarely names a category: also select unlabelled instructions.
        c.select.quotas = ConfigDict()
    elif arg:
        raise ValueError(f"company_data: unknown argument {arg!r}; there is only 'runlocal'")
    return c
