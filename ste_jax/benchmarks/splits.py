"""Which files of a folder are of which split."""

from collections.abc import Sequence

from ste_jax.data.files import path_parts, says


def without_splits(files: Sequence[str], splits: Sequence[str], wanted: Sequence[str] = ()) -> list[str]:
    """Returns the files that belong to none of `splits`.

    A split may be words of a folder (default/partial-train/0000.parquet, raw_split/data.jsonl) or of the name
    of a file (data/raw-00000-of-00001.parquet, helpsteer2_train.jsonl). The part of the path nearest to the
    data that names a split counts: my-training/validation.jsonl is the validation split.

    Args:
      files: relative paths.
      splits: names of splits, such as "train", which stands for "training" and "trainset" too.
      wanted: names of the splits of the benchmark.
    """
    return [file for file in files if not _is_of(file, splits, wanted)]


def _is_of(file: str, splits: Sequence[str], wanted: Sequence[str]) -> bool:
    for part in path_parts(file):
        if any(says(part, name) for name in splits):
            return True
        if any(says(part, name) for name in wanted):
            return False
    return False
