"""Every reader of files, on damaged files: success or a user error that names the file, in bounded time.

`scripts/fuzz.py` tries many more inputs of the same kinds, and the readers that are not here yet.
"""

import pytest
from fuzz_readers import READERS, check
from hypothesis import HealthCheck, given, settings

from ste_jax.benchmarks.names import BENCHMARKS

EXAMPLES = 200
# Readers that still end in other errors on some inputs.
UNFINISHED = frozenset(
    (
        *(f"benchmark_{name}" for name in BENCHMARKS),
        *("gguf", "hf_config", "result", "result_format_1"),
        *(f"tokenizer_{name}.json" for name in ("tokenizer", "tokenizer_config", "generation_config")),
    )
)


@pytest.mark.parametrize("name", sorted(READERS.keys() - UNFINISHED))
def test_damaged_files_are_read_or_refused_by_name(name: str) -> None:
    reader = READERS[name]

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(reader.contents)
    def try_content(content: bytes) -> None:
        check(reader, content)

    try_content()
