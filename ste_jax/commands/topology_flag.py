"""The flag `--topology` of `ste plan` and of a dry run."""

from absl import flags

TOPOLOGY = flags.DEFINE_list("topology", None, "TPU slices, such as v5p-128 or 2xv6e-256.")
