"""Hashes of the pairs that a stage reads, for its fingerprint."""

from collections.abc import Sequence
from typing import Any

from etils import epath

from ste_jax.records import Comparison
from ste_jax.storage.files import digest
from ste_jax.storage.record_set import stored_fingerprint


def judged_digest(folder: epath.Path, pairs: Sequence[Comparison]) -> str:
    """Returns the hash of what judgments of the pairs depend on: labels may change without new judgments."""
    return _digest(folder, "pairs", pairs, [pair.judged_texts for pair in pairs])


def scored_digest(folder: epath.Path, pairs: Sequence[Comparison], *, by_kind: bool) -> str:
    """Returns the hash of what a choice of checkpoints by these pairs depends on: texts and labels.

    Args:
      folder: folder of the training.
      pairs: the validation pairs.
      by_kind: True if their subsets matter too.
    """
    keys = [[*pair.judged_texts, pair.label, pair.subset if by_kind else ""] for pair in pairs]
    return _digest(folder, "validation", pairs, keys)


def _digest(folder: epath.Path, name: str, pairs: Sequence[Comparison], keys: list[Any]) -> str:
    """Returns the hash of the keys; a folder of earlier versions has the hash of whole records."""
    stored, records = stored_fingerprint(folder), digest([pair.to_json() for pair in pairs])
    if stored and stored.get("inputs", {}).get(name) == records:
        return records
    return digest(keys)
