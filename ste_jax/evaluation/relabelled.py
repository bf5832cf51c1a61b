"""Judgments of a finished result whose comparisons have got other labels: they hold as before.

A judgment depends on the texts of a comparison and not on its label, subset or category. So a result file is
written anew with the labels of now, and the judgments of before.
"""

import dataclasses
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from ste_jax.evaluation.result import read_result
from ste_jax.records import Comparison, Judgment
from ste_jax.storage.files import canonical_json, digest
from ste_jax.storage.jsonl_output import is_finished, read_header

_log = logging.getLogger(__name__)
# Fields of `data` that labels and other columns change, and the judgments do not depend on.
_OF_LABELS = ("hash", "judged_hash", "notes", "source")

# Judgments of the pairs by their ids; None for a pair that is too long.
Stored = Mapping[str, list[Judgment] | None]


def texts_hash(comparisons: Sequence[Comparison]) -> str:
    """Returns the hash of what judgments of these comparisons depend on."""
    return digest([comparison.judged_texts for comparison in comparisons])


def stored_judgments(out: Path, run: dict[str, Any], items: Sequence[Comparison]) -> Stored | None:
    """Returns the judgments in a finished result that differs in nothing but labels; None for another file.

    Probes are made of the worse responses, so those of other labels are judged again.

    Args:
      out: the result file.
      run: settings of the evaluation that is to be made.
      items: comparisons of this evaluation, with their labels of now.
    """
    if not is_finished(out):
        return None
    found = read_header(epath.Path(out)).get("settings", {})
    wanted = json.loads(canonical_json(run))
    if found == wanted or "texts_hash" not in found.get("data", {}):
        return None
    if _without_labels(found) != _without_labels(wanted):
        return None
    _log.warning("%s: only labels differ; its judgments are kept, and the numbers are computed anew", out)
    result = read_result(out)
    by_id = {item.id: item for item in items}
    stored: dict[str, list[Judgment] | None] = dict.fromkeys(result.too_long)
    for judgment in result.judgments:
        comparison = by_id[judgment.pair_id]
        stored.setdefault(comparison.id, []).append(_relabelled(judgment, comparison))  # type: ignore[union-attr]
    return stored


def _relabelled(judgment: Judgment, comparison: Comparison) -> Judgment:
    right = comparison.correct_verdict(judgment.order)
    return dataclasses.replace(judgment, correct=None if right is None else judgment.verdict == right)


def _without_labels(run: dict[str, Any]) -> dict[str, Any]:
    data = {name: value for name, value in run["data"].items() if name not in _OF_LABELS}
    return {name: value for name, value in run.items() if name != "probes"} | {"data": data}
