"""A judge of 135M parameters that is trained on its decision between two responses (docs/PAIRS.md).

  ste run --config=pairwise_judge --workdir=runs/pairwise_judge --config.instructions=FILE.jsonl

The label of all pairs but those of `high_temperature` is certain, and length tells nothing about it: in
`crossed`, `random_crossed`, `constraint` and `composite` each response or its mirror image wins as often as
it loses, `handicapped` and `advantaged`, `padded` and `cut_off` balance each other. A judgment is the verdict
alone, and training maximizes the likelihood of the decision over both orders.
`:runlocal` shrinks it to a smoke test. It needs the extra [select].
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """Returns the configuration; `arg` is "" or "runlocal"."""
    if arg not in ("", "runlocal"):
        raise ValueError(f"pairwise_judge: unknown argument {arg!r}; there is only 'runlocal'")
    small = arg == "runlocal"
    c = ConfigDict()
    c.name = "pairwise_judge"
    c.seed = 0
    c.iterations = 1
    c.model = "models/SmolLM2-135M-Instruct.Q4_1.gguf"
    c.chat_template = ""
    c.instructions = "starter"
    c.labelled_pairs = ""
    c.judge_prompt = "verdict"
    c.rubric = ""
    c.train_from = "seed"
    c.mesh = (1, 1, 1)

    c.select = ConfigDict()
    c.select.pool = 0
    c.select.size = 12 if small else 900
    # Labels of a model of this size carry almost no information.
    c.select.categories = ()
    c.select.max_tokens = 48
    c.select.decontaminate = ()
    c.select.filters = ConfigDict(
        {"languages": ("en",), "near_duplicate_threshold": 0.8, "max_chars": 200, "personal_data": "drop"}
    )

    c.pairs = ConfigDict(type_safe=False)  # a mode may be replaced by one of another type
    mixture = {
        "crossed": 3.0,
        "random_crossed": 1.0,
        "handicapped": 1.0,
        "advantaged": 1.0,
        "padded": 1.0,
        "cut_off": 1.0,
        "garbled": 1.0,
        "high_temperature": 2.0,
        "composite": 2.0,
        "constraint": 1.0,
    }
    # A dozen instructions are too few for most kinds.
    c.pairs.mode = ("padded", "cut_off") if small else ConfigDict(mixture)
    c.pairs.high_temperature = ConfigDict({"temperature": 1.0, "top_p": 1.0})
    c.pairs.max_response_tokens = 32 if small else 64
    c.pairs.validation = 2 if small else 140
    c.pairs.test = 2 if small else 200

    c.annotate = ConfigDict()
    # How the seed judges a part of the pairs. One sample records the log-odds of the letters, which are all
    # that there is to know.
    c.annotate.max_pairs = 200
    c.annotate.samples = 1
    c.annotate.max_new_tokens = 0
    c.annotate.force_verdict = True

    c.train = ConfigDict()
    c.train.objective = "pairwise"
    c.train.choose_by = "worst_kind"
    c.train.learning_rate = 1e-4
    c.train.warmup_steps = 10
    c.train.epochs = 1.0
    # A row holds both orders of two pairs or more.
    c.train.batch_rows = 4
    c.train.micro_rows = 2
    c.train.row_length = 1024
    c.train.remat = "dots"
    c.train.evaluate_every = 25
    c.train.checkpoint_every = 25

    c.evaluate = ConfigDict()
    c.evaluate.votes = 0

    c.decode = ConfigDict()
    c.decode.sequences = 64
    c.decode.buckets = (64, 96, 128, 160, 192, 256, 320, 512)
    c.decode.decode_steps_per_sync = 6
    c.decode.suffix_chunk = 16
    c.decode.samples_per_slot = 3
    return c
