"""Bounds what compressed files grow to: a few megabytes can hold terabytes of blanks."""

import gzip
import io
from collections.abc import Iterator

from ste_jax.errors import SteError

# Tables of texts compress ten times, rarely fifty times; blanks and empty rows a thousand times and more.
_MOST_TIMES = 100
_ALWAYS = 100_000_000  # bytes that any file may hold
_PIECE = 2**20
_ROWS = 1024  # of a table, which are decompressed at once
_ROW_BYTES = 64  # of memory that a row without any text takes


def decompressed(content: bytes, name: str) -> bytes:
    """Returns the content of a gzip file.

    Args:
      content: the file.
      name: the file as errors name it.

    Raises:
      SteError: "data_invalid" if it holds more than `_MOST_TIMES` its size.
      OSError, EOFError, zlib.error: it is damaged.
    """
    most, found = _most(content), io.BytesIO()
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        while piece := file.read(_PIECE):
            found.write(piece)
            if found.tell() > most:
                raise _too_large(name)
    return found.getvalue()


def check_table(content: bytes, name: str, ending: str) -> None:
    """Refuses a Parquet or Arrow file that holds more than `_MOST_TIMES` its size.

    Damaged files pass: reading them says what is wrong.

    Args:
      content: the file.
      name: the file as errors name it.
      ending: ".parquet" or ".arrow".

    Raises:
      SteError: "data_invalid".
    """
    from pyarrow import ArrowException

    left = _most(content)
    try:
        for size in _parquet_sizes(content) if ending == ".parquet" else _arrow_sizes(content):
            left -= size
            if left < 0:
                break
    except (ArrowException, ValueError, OverflowError, OSError):
        return
    if left < 0:
        raise _too_large(name)


def _most(content: bytes) -> int:
    return max(_ALWAYS, _MOST_TIMES * len(content))


def _too_large(name: str) -> SteError:
    return SteError(
        "data_invalid",
        f"{name}: holds more than {_MOST_TIMES} times its size, as files do that are made to fill the "
        "memory; decompress it, or write it in parts",
    )


def _parquet_sizes(content: bytes) -> Iterator[int]:
    """Yields the sizes of the batches of a Parquet file."""
    from pyarrow import BufferReader, parquet

    yield from map(_size, parquet.ParquetFile(BufferReader(content)).iter_batches(batch_size=_ROWS))


def _arrow_sizes(content: bytes) -> Iterator[int]:
    """Yields the sizes of the batches of an Arrow file or stream."""
    from pyarrow import BufferReader, ipc

    source = BufferReader(content)
    if content.startswith(b"ARROW1"):
        file = ipc.open_file(source)
        yield from (_size(file.get_batch(i)) for i in range(file.num_record_batches))
    else:
        yield from map(_size, ipc.open_stream(source))


def _texts() -> list:
    import pyarrow as pa

    return [pa.string(), pa.large_string(), pa.binary(), pa.large_binary()]


def _size(batch) -> int:
    """Returns the number of bytes of the rows of a batch; texts of a dictionary count wherever they occur."""
    from pyarrow import compute, types

    size = batch.num_rows * _ROW_BYTES
    for column in batch.columns:
        size += column.nbytes
        if types.is_dictionary(column.type) and column.type.value_type in _texts():
            lengths = compute.call_function("binary_length", [column.dictionary])
            size += compute.call_function("sum", [lengths.take(column.indices)]).as_py() or 0
    return size
