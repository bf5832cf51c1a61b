"""Splits of the files in a folder."""

from collections.abc import Sequence

from ste_jax.data.files import path_parts, says, splits_in
from ste_jax.errors import SteError


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


def refuse_several_splits(source: str, files: Sequence[str], own: str | None) -> None:
    """Raises SteError "data_invalid" if files are of several splits, of which one at most is the benchmark.

    Args:
      source: the folder, as errors name it.
      files: relative paths of the files that were taken for the benchmark.
      own: name of the benchmark's split, if its data set has several. Next to a file of that split, a file
        that names no split is another one.
    """
    by_split = {_split(file, own): file for file in files}
    splits = by_split.keys() - {""} if own not in by_split else by_split.keys()
    if len(splits) > 1:
        one, other = sorted(by_split[split] for split in splits)[:2]
        raise SteError(
            "data_invalid",
            f"{source}: {one} and {other} are not of one split; remove what is not the benchmark, or give "
            "its file as --path",
        )


def _split(file: str, own: str | None) -> str:
    """Returns the split that the part of a path nearest to the data names; "" if none does."""
    for part in path_parts(file):
        if own and says(part, own):
            return own
        if splits := splits_in(part):
            return splits
    return ""
