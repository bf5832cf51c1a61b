"""A judge of 135M parameters that gains on kinds of pairs it was not trained with, in minutes on two cores.

  ste run --config=quickstart --workdir=runs/quickstart

The judge is pointwise: it sees one response at a time and says how likely it is a good one. It is trained on
pairs whose better response is certain, since the worse one answers another instruction, is cut off, or ends
with something useless (docs/PAIRS.md), and tested on pairs of other kinds and other instructions.
`:runlocal` (`--config=quickstart:runlocal`) shrinks it to a smoke test of a minute or two.
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """Returns the configuration; `arg` is "" or "runlocal"."""
    if arg not in ("", "runlocal"):
        raise ValueError(f"quickstart: unknown argument {arg!r}; there is only 'runlocal'")
    small = arg == "runlocal"
    c = ConfigDict()
    c.name = "quickstart"
    c.seed = 0
    c.iterations = 1
    # Fetched to ~/.cache/ste_jax if the file is not there.
    c.model = "models/SmolLM2-135M-Instruct.Q4_1.gguf"
    c.chat_template = ""
    c.instructions = "starter"
    c.labelled_pairs = ""
    c.judge_prompt = "pointwise"
    c.rubric = ""
    c.train_from = "seed"
    c.mesh = (1, 1, 1)

    c.select = ConfigDict()
    c.select.pool = 0
    c.select.size = 12 if small else 280
    # Labels of a model of this size carry almost no information.
    c.select.categories = ()
    c.select.max_tokens = 96
    c.select.decontaminate = ()
    # The starter instructions are English and hold no personal data. For other instructions install
    # ste-jax[select] and switch on the filters: languages ("en",), as scripts/quickstart.sh does, and
    # personal_data "drop".
    c.select.filters = ConfigDict(
        {"languages": (), "near_duplicate_threshold": 0.8, "max_chars": 600, "personal_data": "keep"}
    )

    c.pairs = ConfigDict(type_safe=False)  # a mode may be replaced by one of another type
    trained = {"random_crossed": 3.0, "cut_off": 1.0, "padded": 1.0}
    tested = {"garbled": 2.0, "composite": 1.0}
    # A dozen instructions are too few for most kinds.
    c.pairs.mode = ("padded", "cut_off") if small else ConfigDict(trained)
    c.pairs.test_mode = ("random_crossed",) if small else ConfigDict(tested)
    c.pairs.max_response_tokens = 24 if small else 40
    c.pairs.validation = 2 if small else 30
    c.pairs.test = 2 if small else 120

    c.annotate = ConfigDict()
    # How the seed judges a part of the pairs. One sample records the log-odds of the letters, which are all
    # that there is to know.
    c.annotate.max_pairs = 40
    c.annotate.samples = 1
    c.annotate.max_new_tokens = 0
    c.annotate.force_verdict = True

    c.train = ConfigDict()
    c.train.objective = "pairwise"
    c.train.choose_by = "accuracy_pooled"
    # A model of 135M parameters needs a far larger rate than the 1e-6 of the paper.
    c.train.learning_rate = 1e-4
    c.train.warmup_steps = 4
    c.train.epochs = 1.0
    # A row holds two pairs.
    c.train.batch_rows = 4
    c.train.micro_rows = 4
    c.train.row_length = 512
    # Keeps memory below 8 GB; the recomputation takes little time.
    c.train.remat = "dots"
    c.train.evaluate_every = 18
    c.train.checkpoint_every = 18

    c.evaluate = ConfigDict()
    c.evaluate.votes = 0

    c.decode = ConfigDict()
    c.decode.sequences = 64
    c.decode.buckets = (64, 96, 128, 160, 192, 256, 320, 512)
    c.decode.decode_steps_per_sync = 6
    c.decode.prefill_tokens = 1024
    return c
