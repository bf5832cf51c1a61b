"""Every reader of files that users give, with a small valid file for each: what the fuzzing damages."""

import itertools

from tests.fuzz import fuzz_data, fuzz_models, fuzz_own
from tests.fuzz.fuzz_reader import Reader, check

__all__ = ["READERS", "check"]

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in itertools.chain(fuzz_data.readers(), fuzz_own.readers(), fuzz_models.readers())
}
