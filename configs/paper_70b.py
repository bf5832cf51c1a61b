"""The run of the paper: Llama-3-70B-Instruct as the seed, on a TPU pod slice.

  ste run --config=configs/paper_70b.py:v5p-128 --workdir=/mnt/runs/paper \\
      --config.model=/mnt/models/70b --config.instructions=/mnt/prompts.jsonl
  ste plan --config=configs/paper_70b.py:v5p-128 --topology=v5p-128

Slices: v5p-32, v5p-128, 2xv5p-64, v6e-64 (the default); and two that can train a model of this size, but have
too little memory per chip to decode it: v5e-128, and v5e-16, which trains adapters.

Comments name the section of the paper that a value is from. `:runlocal` shrinks the sizes and
makes pairs that need no modified instructions, so that the same file runs on a CPU with a small model
(`--config=configs/paper_70b.py:runlocal --config.model=MODEL`).
"""

from ml_collections import ConfigDict

# Settings by slice, checked with `scripts/plan_tables.py`: the meshes of decoding and training, the rows per
# micro-batch, and the number of slots (15 samples, two prompts) that fit if all have the maximum length.
SLICES = {
    "v5p-32": {"mesh": (1, 2, 8), "train_mesh": (1, 16, 1), "rows": 16, "slots": 48},
    "v5p-128": {"mesh": (1, 8, 8), "train_mesh": (1, 64, 1), "rows": 64, "slots": 192},
    "2xv5p-64": {"mesh": (2, 4, 8), "train_mesh": (2, 32, 1), "rows": 64, "slots": 192},
    # First moments in bfloat16: in float32, validation needs 32.5 GiB per device, and 31.25 are available.
    "v6e-64": {"mesh": (1, 8, 8), "train_mesh": (1, 64, 1), "rows": 64, "slots": 32, "moments": "bfloat16"},
    "v5e-16": {"mesh": (1, 2, 8), "train_mesh": (1, 4, 4), "rows": 4, "slots": 2, "rank": 16},
    "v5e-128": {"mesh": (1, 16, 8), "train_mesh": (1, 64, 2), "rows": 64, "slots": 16},
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the configuration; `arg` is "", "runlocal" or one of the slices above."""
    if arg not in ("", "runlocal", *SLICES):
        raise ValueError(f"paper_70b: unknown argument {arg!r}; there are runlocal, {', '.join(SLICES)}")
    slice_ = SLICES[arg if arg in SLICES else "v6e-64"]
    c = ConfigDict()
    c.name = "paper_70b"
    c.seed = 0
    c.iterations = 5  # arXiv 2408.02666, section 4.1: five iterations
    c.model = "meta-llama/Meta-Llama-3-70B-Instruct"  # section 4.1: the seed model
    c.chat_template = ""
    c.instructions = "instructions.jsonl"  # the paper: WildChat prompts that are labelled "reasoning"
    c.labelled_pairs = ""
    c.judge_prompt = "standard"
    c.rubric = ""
    c.train_from = "seed"  # section 3.4: every iteration starts from the seed model again
    c.mesh = slice_["mesh"]  # 8 key/value heads: tensor parallelism over 8 devices at most
    c.train_mesh = slice_["train_mesh"]

    c.select = ConfigDict()
    c.select.pool = 0
    c.select.size = 20582  # section 4.1: 20,582 instructions
    # Section 4.1 keeps one category of the 15; its sampler is not published.
    c.select.quotas = ConfigDict({"Knowledge and Reasoning": 1.0, "Mathematical reasoning": 1.0})
    c.select.max_tokens = 1024
    c.select.max_new_tokens = 48
    c.select.decontaminate = ()
    c.select.filters = ConfigDict({"languages": ("en",)})  # instructions in other languages are left out

    c.pairs = ConfigDict(type_safe=False)  # a mode may be replaced by one of another type
    c.pairs.mode = "modified_one_call"  # section 3.2 and the released prompt: x' and its answer in one call
    c.pairs.max_response_tokens = 1024
    c.pairs.max_modified_tokens = 512
    c.pairs.sampling = ConfigDict({"temperature": 0.7, "top_p": 0.9})  # authors' release
    c.pairs.validation = 256
    c.pairs.test = 256

    c.annotate = ConfigDict()
    c.annotate.samples = 15  # section 4.1: N = 15
    c.annotate.max_new_tokens = 4096  # authors' release
    c.annotate.sampling = ConfigDict({"temperature": 0.7, "top_p": 0.9})  # section 4.1
    c.annotate.force_verdict = False

    c.train = ConfigDict()
    c.train.learning_rate = 1e-6  # authors' release, as are the following seven
    c.train.final_learning_rate_ratio = 0.2
    c.train.warmup_steps = 100
    c.train.epochs = 2.0
    c.train.row_length = 4096
    c.train.b1, c.train.b2 = 0.9, 0.95
    c.train.weight_decay = 0.1
    c.train.lora_rank = slice_.get("rank", 0)  # 0: the whole model, as in the paper
    c.train.dtype = "bfloat16"
    c.train.param_dtype = "float32"  # an update of 1e-6 is lost in bfloat16
    c.train.moment_dtype = slice_.get("moments", "float32")
    c.train.batch_rows = 64
    c.train.micro_rows = slice_["rows"]
    c.train.attention = "auto"  # the Pallas kernel on TPU
    c.train.remat = "full"
    c.train.evaluate_every = 50  # the checkpoint is the one with the best held-out accuracy (section 4.1)
    c.train.checkpoint_every = 50

    c.prefer = ConfigDict()  # the fields in which DPO, which starts from the fine-tuned model, differs
    c.prefer.epochs = 0.0  # 0: none, as in the paper; the authors' released Llama-3.1-70B judge has it
    c.prefer.learning_rate = 5e-7  # not published; preference training needs a smaller rate than fine-tuning
    c.prefer.beta, c.prefer.nll_scale = 0.1, 1.5  # authors' release

    c.evaluate = ConfigDict()
    c.evaluate.votes = 32  # section 4.3: majority vote over 32 samples
    c.evaluate.sampling = ConfigDict({"temperature": 0.7, "top_p": 0.9})

    c.decode = ConfigDict()
    c.decode.sequences = 15 * slice_["slots"]
    c.decode.prefix_tokens = 2 * 4096 * slice_["slots"]  # two prompts a slot
    c.decode.prefill_tokens = 4096
    c.decode.buckets = (1024, 2048, 4096)
    c.decode.decode_steps_per_sync = 32
    c.decode.suffix_chunk = 128  # fills a tile of the TPU's memory
    c.decode.samples_per_slot = 15
    c.decode.dtype = "bfloat16"

    if slice_.get("rank"):
        c.train.learning_rate = 1e-4  # not from the paper: adapters need larger updates
        c.pairs.validation, c.train.evaluate_every = 0, 0  # this slice cannot sample: keeps the last model
    if arg == "runlocal":
        shrink(c)
    return c


def shrink(c: ConfigDict) -> None:
    """Shrinks a configuration of this family to two CPU cores and a small model."""
    c.iterations, c.instructions = 1, "starter"
    c.mesh = c.train_mesh = (1, 1, 1)
    c.select.pool, c.select.size, c.select.quotas = 20, 12, ConfigDict()
    # A small model does not follow the prompt of "modified_one_call".
    c.pairs.mode = ("nearest", "truncated")
    c.pairs.max_response_tokens, c.pairs.max_modified_tokens = 48, 40
    c.pairs.validation, c.pairs.test = 2, 3
    c.annotate.samples, c.annotate.max_new_tokens, c.annotate.force_verdict = 4, 32, True
    c.train.row_length, c.train.batch_rows, c.train.micro_rows = 1536, 1, 1
    c.train.dtype, c.train.attention, c.train.remat = "float32", "xla", "none"
    c.train.moment_dtype = "float32"
    c.train.warmup_steps, c.train.epochs = 1, 1.0
    c.evaluate.votes = 4
    c.decode.sequences, c.decode.prefix_tokens, c.decode.prefill_tokens = 32, 16384, 512
    c.decode.buckets = (256, 512, 1024)
    c.decode.suffix_chunk, c.decode.samples_per_slot = 32, 4
    c.decode.decode_steps_per_sync = 8
    c.decode.dtype = "float32"
