"""Every reader of files, on damaged files: success or a user error that names the file, in bounded time.

`scripts/fuzz.py` tries many more inputs of the same kinds, and the readers that are not here yet.
"""

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzz.fuzz_readers import READERS, check

EXAMPLES = 200


# Readers that still end in other errors on some inputs.
@pytest.mark.parametrize("name", sorted(READERS))
def test_damaged_files_are_read_or_refused_by_name(name: str) -> None:
    reader = READERS[name]

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large),
    )
    @given(reader.contents)
    def try_content(content: bytes) -> None:
        check(reader, content)

    try_content()
