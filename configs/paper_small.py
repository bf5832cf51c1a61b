"""The method of the paper on SmolLM2-135M-Instruct and two CPU cores, in a quarter of an hour.

  ste run --config=paper_small --workdir=runs/paper_small

Every step of the paper is there: labels, modified instructions, reasoning before the verdict, rejection
sampling, fine-tuning from the seed. A model of this size follows none of them well, so that the judge gains
nothing; `quickstart` shows a judge of this size that does. `:runlocal` shrinks it to a smoke test of minutes.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """Returns the configuration; `arg` is "" or "runlocal"."""
    if arg not in ("", "runlocal"):
        raise ValueError(f"paper_small: unknown argument {arg!r}; there is only 'runlocal'")
    small = arg == "runlocal"
    c = ConfigDict()
    c.name = "paper_small"
    c.seed = 0
    c.iterations = 1 if small else 2
    # Fetched to ~/.cache/ste_jax if the file is not there.
    c.model = "models/SmolLM2-135M-Instruct.Q4_1.gguf"
    c.chat_template = ""
    c.instructions = "starter"
    c.labelled_pairs = ""
    # A short prompt: a model of this size cannot follow a long one, and two cores read 500 tokens per second.
    c.judge_prompt = "short"
    c.rubric = ""
    c.train_from = "seed"
    c.mesh = (1, 1, 1)

    c.select = ConfigDict()
    c.select.pool = 16 if small else 64
    c.select.size = 12 if small else 48
    c.select.max_tokens = 96
    c.select.max_new_tokens = 32
    c.select.decontaminate = ()
    # The starter instructions are English and hold no personal data. For other instructions install
    # ste-jax[select] and switch on the filters: languages ("en",), personal_data "drop".
    c.select.filters = ConfigDict(
        {"languages": (), "near_duplicate_threshold": 0.8, "max_chars": 600, "personal_data": "keep"}
    )

    c.pairs = ConfigDict(type_safe=False)  # a mode may be replaced by one of another type
    # Two calls for the rejected response: a small model does not follow the format of the single call.
    c.pairs.mode = "modified"
    c.pairs.max_response_tokens = 48
    c.pairs.max_modified_tokens = 40
    c.pairs.validation = 2 if small else 6
    c.pairs.test = 3 if small else 14

    c.annotate = ConfigDict()
    c.annotate.samples = 4
    c.annotate.max_new_tokens = 24
    # The seed model never writes a verdict by itself, so it is forced.
    c.annotate.force_verdict = True

    c.train = ConfigDict()
    # A model of 135M parameters needs a far larger rate than the 1e-6 of the paper.
    c.train.learning_rate = 3e-5
    c.train.warmup_steps = 2
    c.train.epochs = 1.0
    c.train.batch_rows = 2
    c.train.micro_rows = 1
    # Examples have about 270 tokens, so three fill a row.
    c.train.row_length = 832
    # Keeps memory below 8 GB; the recomputation takes little time.
    c.train.remat = "dots"
    c.train.loss_chunk = 64
    c.train.evaluate_every = 4
    c.train.checkpoint_every = 4

    # `--config.prefer.epochs=1` adds preference training after fine-tuning; a row holds two judgments.
    c.prefer = ConfigDict({"epochs": 0.0, "learning_rate": 1e-5})

    c.evaluate = ConfigDict()
    c.evaluate.votes = 0

    c.decode = ConfigDict()
    c.decode.sequences = 64
    c.decode.buckets = (256, 512)
    c.decode.decode_steps_per_sync = 8
    c.decode.samples_per_slot = 4
    return c
