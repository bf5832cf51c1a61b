"""Llama-3.1-8B-Instruct as the seed, for slices of 8 to 16 chips.

  ste run --config=configs/llama3_8b.py --workdir=/mnt/runs/8b \\
      --config.model=/mnt/models/8b --config.instructions=/mnt/prompts.jsonl

Slices: v5e-16, v6e-8.

The paper studied 70B only. Fields that are not set here are those of `llama3_70b`; `:runlocal` shrinks the
sizes in the same way.
"""

from ml_collections import ConfigDict

from ste_jax.shipped import import_config

_BIG = import_config("llama3_70b")


def get_config(arg: str = "") -> ConfigDict:
    """Returns the configuration; `arg` is "" or "runlocal"."""
    if arg not in ("", "runlocal"):
        raise ValueError(f"llama3_8b: unknown argument {arg!r}; there is only 'runlocal'")
    c = _BIG["get_config"](arg)
    c.name = "llama3_8b"
    c.model = "meta-llama/Llama-3.1-8B-Instruct"
    c.chat_template = ""
    c.train.learning_rate = 2e-6  # smaller models take larger rates; not from the paper
    c.train.moment_dtype = "float32"
    if arg == "runlocal":
        return c
    c.mesh, c.train_mesh = (1, -1, 8), (1, -1, 1)
    c.train.micro_rows = 16
    c.decode.sequences = 300  # 20 slots of 15 samples and two prompts
    c.decode.prefix_tokens = 20 * 2 * 4096
    return c
