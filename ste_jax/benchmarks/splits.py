"""Which files of a folder are of which split."""

from collections.abc import Sequence

from ste_jax.data.files import path_words


def without_splits(files: Sequence[str], splits: tuple[str, ...]) -> list[str]:
    """Returns the files of no split whose name begins with one of `splits`.

    A split may be a folder (default/raw/0000.parquet, train/data.jsonl) or the beginning of the name of a
    file (data/raw-00000-of-00001.parquet), wherever it stands in the path.
    """
    return [file for file in files if not any(word.startswith(splits) for word in path_words(file))]
