"""Headers of GGUF files that are made to take all time."""

import struct
from pathlib import Path

import pytest

from ste_jax.storage.gguf_file import GgufFile
from tests.cpu_limit import cpu_limit
from tests.errors import raises


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def header(tensors: int, *fields: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, len(fields)) + b"".join(fields)


def texts(key: str, count: int) -> bytes:
    return text(key) + struct.pack("<IIQ", 9, 8, count) + text("") * count


MANY = 2_000_000
HOSTILE = {
    "keys": lambda: header(0, *(text(f"{n}") + struct.pack("<IB", 0, 0) for n in range(MANY // 4))),
    "tensors": lambda: (
        header(MANY)
        + b"".join(text(f"{n}") + struct.pack("<IQIQ", 1, 1, 0, 0) for n in range(MANY // 4))
        + bytes(32 * MANY)
    ),
    "tokens": lambda: header(0, texts("tokenizer.ggml.tokens", 4 * MANY)),
    "texts of several keys": lambda: header(0, *(texts(f"other.{n}", MANY // 4) for n in range(9))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_every_header_comes_to_an_end(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(HOSTILE[name]())
    with raises("model_damaged", path.name), cpu_limit(15):
        GgufFile(path)


def test_large_vocabularies_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(
        header(0, texts("tokenizer.ggml.tokens", 300_000), texts("tokenizer.ggml.merges", 600_000))
    )
    with cpu_limit(15):
        fields = GgufFile(path).fields
    assert {key: len(values) for key, values in fields.items()} == {
        "tokenizer.ggml.tokens": 300_000,
        "tokenizer.ggml.merges": 600_000,
    }
