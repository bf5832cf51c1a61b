"""Migration of records and journals that older versions wrote; see storage/schema.py."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from etils import epath

from ste_jax.storage.files import canonical_json, matching, parse_object
from ste_jax.storage.journal import Journal
from ste_jax.storage.sink import Work

# Kinds of constructed pairs by their names in version 1.
_SUBSETS = {"hotter": "high_temperature", "shortened": "truncated", "worse": "degraded"}


def migrate(kind: str, value: dict[str, Any], version: int) -> dict[str, Any]:
    """Returns the JSON object of a record in the current version.

    Args:
      kind: name of the record class.
      value: JSON object of a record.
      version: schema version that it was written in.
    """
    if version < 2 and kind == "Comparison" and "instruction_id" in value:
        return _comparison_of_pair(value)
    return value


def _comparison_of_pair(pair: dict[str, Any]) -> dict[str, Any]:
    copied = ("id", "instruction", "response_a", "response_b", "label", "category")
    metadata = ("generator", "modified_instruction")
    mode = pair.get("mode", "labelled")
    return {
        **{name: pair[name] for name in copied if name in pair},
        "prompt_id": pair["instruction_id"],
        "subset": _SUBSETS.get(mode, mode),
        "metadata": {
            **{name: pair[name] for name in metadata if name in pair},
            **{f"num_tokens_{letter}": len(pair.get(f"tokens_{letter}", ())) for letter in "ab"},
        },
    }


def migrate_journal(folder: epath.Path, kind: str, work: Work, hint: str) -> None:
    """Rewrites the journal of an unfinished record set of version 1, whose lines are single records.

    A kill during the migration does no harm: requests that are in both formats are the same.

    Args:
      folder: folder of the journal.
      kind: name of the record class.
      work: progress of the record set. Its tokens are stored with the first request, since version 1 does not
        have those of each.
      hint: remedy for a broken line, for the error message.
    """
    paths = matching(folder, "*.jsonl")
    if not paths:
        return
    journal = Journal(folder, writes=True)
    tokens = {"prompt_tokens": int(work.prompt_tokens), "generated_tokens": int(work.generated_tokens)}
    for path in paths:
        for request_id, records in groupby(_records(path, hint), _request_id):
            texts = [canonical_json(migrate(kind, record, 1)) for record in records]
            journal.append(request_id, texts, **tokens)
            tokens = {}
    journal.flush()
    for path in paths:
        path.unlink()


def _records(path: epath.Path, hint: str) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            yield parse_object(line, f"{path}, line {number}", hint)


def _request_id(record: dict[str, Any]) -> str:
    return f"{record['pair_id']}/{record['order']}" if "sample" in record else record["id"]
