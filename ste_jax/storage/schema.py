"""Version of the files that this package writes.

Version 1 (until November 2026): record sets without a version, parts of 4,096 records, and the record `Pair`.
Version 2: SUCCESS.json lists its parts; `Comparison` replaces `Pair`.
"""

from pathlib import PurePath
from typing import Any

from ste_jax.errors import SteError

# Raise it with every change after which an older program would misread a record set or an output file, and
# extend storage/migration.py. A new record field with a default needs no new version.
SCHEMA_VERSION = 2


def check_version(value: dict[str, Any], where: str | PurePath) -> int:
    """Returns the schema version of a JSON object read from a file; objects without one are of version 1.

    Raises:
      SteError: "schema_newer", or "data_invalid" if the version is not a positive integer.
    """
    version = value.get("schema_version", 1)
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise SteError("data_invalid", f"{where}: schema_version {version!r} is not a positive integer")
    if version > SCHEMA_VERSION:
        raise SteError(
            "schema_newer",
            f"{where}: has schema version {version}, this program reads versions up to {SCHEMA_VERSION}; "
            "update ste_jax",
        )
    return version
