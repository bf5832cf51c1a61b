"""Which files of a folder are of which split."""

from collections.abc import Sequence

from ste_jax.data.files import path_words


def without_splits(files: Sequence[str], splits: tuple[str, ...]) -> list[str]:
    """Returns the files that belong to none of `splits`.

    A split may be a folder (default/raw/0000.parquet, train/data.jsonl) or a word in the name of a file
    (data/raw-00000-of-00001.parquet, helpsteer2_train.jsonl), wherever it stands in the path.

    Args:
      files: relative paths.
      splits: names of splits; one that ends in an underscore stands for all that begin with it.
    """
    groups = tuple(split for split in splits if split.endswith("_"))
    return [
        file
        for file in files
        if not any(word in splits or (groups and word.startswith(groups)) for word in path_words(file))
    ]
