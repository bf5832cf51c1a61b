"""Labelled pairs that a training has used to choose its checkpoint, by the hash of their texts.

A judge looks better on these pairs than on others, so they are no test of it. The model card keeps the
hashes, and `splits.json` in the workdir of a run the ids.
"""

import json
from collections.abc import Iterable

from etils import epath

from ste_jax.pairs.splits import Splits
from ste_jax.records import Comparison
from ste_jax.storage.files import digest, write_atomically

SPLITS_FILE = "splits.json"
# Hexadecimal digits of a hash: among a million pairs, two have the same with a probability of 3e-8.
_DIGITS = 16


def text_hash(pair: Comparison) -> str:
    """Returns the hash of the texts of a pair, whatever its label and the order of its responses."""
    responses = sorted((pair.response_a.strip(), pair.response_b.strip()))
    shown = [text for item in sorted(pair.texts.items()) for text in item]
    return digest([pair.instruction.strip(), *responses, *shown])[:_DIGITS]


def text_hashes(pairs: Iterable[Comparison]) -> tuple[str, ...]:
    """Returns the hashes of the texts of pairs, each once, sorted."""
    return tuple(sorted(set(map(text_hash, pairs))))


def write_splits(workdir: epath.Path, labelled_path: str, splits: Splits) -> None:
    """Writes `splits.json`: which labelled pairs choose checkpoints, and which every model is evaluated on.

    Each is named by its id, with the hash of its texts. A run without labelled pairs has no such file.
    """
    path = workdir / SPLITS_FILE
    if not labelled_path:
        path.unlink(missing_ok=True)
        return
    value = {
        "labelled_pairs": labelled_path,
        "choose_checkpoints": {pair.id: text_hash(pair) for pair in splits.validation},
        "evaluate": {pair.id: text_hash(pair) for pair in splits.labelled},
    }
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    if not path.exists() or path.read_bytes() != text.encode():
        write_atomically(path, text)
