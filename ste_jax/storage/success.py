"""SUCCESS.json: the description of a finished record set."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from etils import epath

from ste_jax.errors import SteError
from ste_jax.storage.files import read_json
from ste_jax.storage.schema import check_version
from ste_jax.typed_json import build, check_types, field_checks

SUCCESS = "SUCCESS.json"


@dataclasses.dataclass(frozen=True)
class Part:
    """A file of a finished record set: its name, its sha256 in hex, and the number of its records."""

    name: str
    sha256: str
    records: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Success:
    """Content of SUCCESS.json, the description of a finished record set.

    Attributes:
      schema_version: version of the files, see storage/schema.py.
      kind: name of the record class (None in version 1).
      count: number of records.
      parts: the files, in order (None in version 1).
      content_hash: identifies the records; of version 2 a hash of the hashes of the parts.
      fingerprint: configuration and input hashes that the records were made from.
      summary: numbers of the stage.
      work: fields of `Work`.
    """

    schema_version: int
    kind: str | None
    count: int
    parts: tuple[Part, ...] | None
    content_hash: str
    fingerprint: dict[str, Any]
    summary: dict[str, Any]
    work: dict[str, Any]

    @classmethod
    def from_json(cls, value: dict[str, Any], path: epath.Path) -> "Success":
        """Builds the description from the JSON object in `path`, of this schema version or an older one.

        Raises:
          SteError: "schema_newer" or "data_invalid".
        """
        version = check_version(value, path)
        if version == 1:
            value = {**value, "schema_version": 1, "kind": None, "parts": None}
        try:
            value = {**value, "parts": _parts(value["parts"])}
            check_types(value, field_checks(cls, _PLAIN_FIELDS))
            success = cls(**value)
            if success.parts is not None and sum(part.records for part in success.parts) != success.count:
                raise ValueError(f"the parts do not hold {success.count} records")
            return success
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise SteError(
                "data_invalid", f"{path}: unexpected fields ({error}); {redo_hint(path.parent)}"
            ) from error


# All but the parts, which are objects of their own.
_PLAIN_FIELDS = frozenset(field.name for field in dataclasses.fields(Success)) - {"parts"}


def _parts(value: Any) -> tuple[Part, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise ValueError("parts is no list")
    return tuple(build(Part, part) for part in value)


def read_success(folder: epath.Path) -> Success | None:
    """Returns the description of the finished record set in `folder`, or None."""
    path = folder / SUCCESS
    return Success.from_json(read_json(path, redo_hint(folder)), path) if path.exists() else None


def require_success(folder: epath.Path) -> Success:
    """Returns the description of the finished record set in `folder`.

    Raises:
      SteError: "stage_unfinished".
    """
    success = read_success(folder)
    if success is None:
        raise SteError("stage_unfinished", f"{folder} is not finished; run its stage first")
    return success


def content_hash(parts: Sequence[Part]) -> str:
    """Returns the hash that identifies the records in these parts."""
    return hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest()


def redo_hint(folder: epath.Path) -> str:
    """Returns how to make a folder again; the record sets inside a stage go by the name of the stage."""
    name, parent = folder.name, folder.parent.name
    if parent.startswith("iteration_"):
        name = f"{parent}/{name}"
    elif parent in ("select", "pairs"):
        name = parent
    return f"pass --redo={name} to make it again (everything that depends on it is made again too)"
