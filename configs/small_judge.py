"""A judge of 135M parameters that gives verdicts without reasoning; an hour per iteration on two CPU cores.

  ste run --config=small_judge --workdir=runs/small_judge --config.instructions=FILE.jsonl

A model of this size can neither reason nor write a deliberately worse response. It can learn which of two
answers belongs to an instruction, is complete, and makes sense. The rejected response is therefore the answer
to another instruction, the beginning of the better one, or an answer at a higher temperature, and a judgment
is the verdict alone. In pairs of the first two kinds only one response is good, so a judge can decide by
looking at one response, and a judge trained on them alone answers A wherever both are good. Answers at two
temperatures differ by degrees. docs/RESULTS.md reports the results.
`:runlocal` shrinks it to a smoke test. It needs the extra [select].
"""

from ml_collections import ConfigDict


def get_config(arg: str = "") -> ConfigDict:
    """Returns the configuration; `arg` is "" or "runlocal"."""
    if arg not in ("", "runlocal"):
        raise ValueError(f"small_judge: unknown argument {arg!r}; there is only 'runlocal'")
    small = arg == "runlocal"
    c = ConfigDict()
    c.name = "small_judge"
    c.seed = 0
    c.iterations = 1 if small else 3
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
    c.select.size = 12 if small else 320
    # Labels of a model of this size carry almost no information.
    c.select.categories = ()
    c.select.max_tokens = 48
    c.select.decontaminate = ()
    c.select.filters = ConfigDict(
        {"languages": ("en",), "near_duplicate_threshold": 0.8, "max_chars": 200, "personal_data": "drop"}
    )

    c.pairs = ConfigDict(type_safe=False)  # a mode may be replaced by one of another type
    c.pairs.mode = ("nearest", "random", "truncated", "high_temperature")
    c.pairs.high_temperature = ConfigDict({"temperature": 1.0, "top_p": 1.0})
    c.pairs.max_response_tokens = 24 if small else 48
    c.pairs.validation = 3 if small else 60
    c.pairs.test = 6 if small else 150

    c.annotate = ConfigDict()
    # Enough to sample a verdict that the seed model gives one time in ten.
    c.annotate.samples = 15
    c.annotate.stop_when_correct = 1
    c.annotate.max_new_tokens = 0
    c.annotate.force_verdict = True
    c.annotate.sampling = ConfigDict({"temperature": 1.0, "top_p": 1.0})

    c.train = ConfigDict()
    c.train.learning_rate = 1e-4
    c.train.warmup_steps = 10
    c.train.epochs = 1.0
    c.train.batch_rows = 5
    c.train.micro_rows = 5
    # Three examples per row, so attention costs little.
    c.train.row_length = 512
    c.train.remat = "dots"
    c.train.loss_chunk = 32
    c.train.evaluate_every = 25
    c.train.checkpoint_every = 50

    c.evaluate = ConfigDict()
    c.evaluate.votes = 0

    c.decode = ConfigDict()
    c.decode.sequences = 64
    c.decode.buckets = (64, 96, 128, 160, 192, 224, 256, 320)
    c.decode.decode_steps_per_sync = 6
    c.decode.suffix_chunk = 16
    c.decode.samples_per_slot = 3
    return c
