"""The flag `--column` of the commands that read tables."""

from absl import flags

COLUMN = flags.DEFINE_string(
    "column", "", "Column of the data that holds the prompt. Default: the first one with a known name."
)
