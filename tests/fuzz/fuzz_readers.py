"""Every reader of files that users give, with a small valid file for each: what the fuzzing damages."""

import itertools

import fuzz_data
import fuzz_models
import fuzz_own
from fuzz_reader import Reader, check

__all__ = ["READERS", "check"]

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in itertools.chain(fuzz_data.readers(), fuzz_own.readers(), fuzz_models.readers())
}
