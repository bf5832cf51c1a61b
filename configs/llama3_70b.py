"""Llama-3-70B-Instruct as the seed, on a TPU pod slice, with kinds of pairs whose label is certain.

  ste run --config=configs/llama3_70b.py:v5p-128 --workdir=/mnt/runs/70b \\
      --config.model=/mnt/models/70b --config.instructions=/mnt/prompts.jsonl
  ste plan --config=configs/llama3_70b.py:v5p-128 --topology=v5p-128

`paper_70b` is the run of the paper, whose worse responses all answer a modified instruction: their labels are
as good as the seed model. Here these are two fifths of the pairs; the labels of the others follow from how
the pairs are made (docs/PAIRS.md). No model of this size has been trained with this mixture. All other
settings, the slices and `:runlocal` are those of `paper_70b`.
"""

from ml_collections import ConfigDict

from ste_jax.shipped import import_config

_PAPER = import_config("paper_70b")
_MIXTURE = {
    "modified_one_call": 0.4,
    "constraint": 0.2,
    "arithmetic": 0.2,
    "crossed": 0.1,
    "composite": 0.1,
}


def get_config(arg: str = "") -> ConfigDict:
    """Returns the configuration; `arg` is one of `paper_70b`."""
    slices = _PAPER["SLICES"]
    if arg not in ("", "runlocal", *slices):
        raise ValueError(f"llama3_70b: unknown argument {arg!r}; there are runlocal, {', '.join(slices)}")
    c = _PAPER["get_config"](arg)
    c.name = "llama3_70b"
    # With shares, the scarcest kind sets the number of pairs; a dozen instructions are too few for that.
    del c.pairs["mode"]  # a ConfigDict keeps the type of a field
    c.pairs.mode = tuple(_MIXTURE) if arg == "runlocal" else ConfigDict(_MIXTURE)
    # Two fifths of the pairs are answers to modified instructions, one for each instruction.
    c.select.size = c.select.size if arg == "runlocal" else 8233
    if c.train.evaluate_every:
        c.train.choose_by = "worst_kind"
    return c
