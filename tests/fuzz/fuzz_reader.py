"""A reader of one kind of file, and the check of how it ends.

A reader gets a folder with its file, `Reader.file`, and whatever stands next to it. It may return anything;
the only exception that it may raise is a `SteError` that names the file, or the folder if that was given.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from ste_jax.errors import SteError

ROOT = Path(__file__).parents[2]
SECONDS = 10.0
# Files in memory: what is written here is forced to disk, which takes time and shows nothing.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


@dataclasses.dataclass(frozen=True)
class Reader:
    """A reader of one kind of file.

    Attributes:
      name: name of the reader.
      file: the file that is damaged, below the folder that the reader gets.
      contents: draws what stands in the file.
      read: reads the folder.
      prepare: writes what stands next to the file.
      names: the error names the file; otherwise nothing in particular.
    """

    name: str
    file: str
    contents: st.SearchStrategy[bytes]
    read: Callable[[Path], Any]
    prepare: Callable[[Path], object] = lambda _: None
    names: bool = True


class UnexpectedError(AssertionError):
    """A reader ended in another way than with success or a user error that names the file."""


def check(reader: Reader, content: bytes) -> str:
    """Lets a reader read a file with this content, and returns "read" or the code of the error.

    Raises:
      UnexpectedError: it ended in another way.
    """
    with _prepared(reader) as folder:
        (folder / reader.file).write_bytes(content)
        started = time.process_time()
        try:
            reader.read(folder)
            outcome = "read"
        except SteError as error:
            outcome = error.code
            if reader.names and Path(reader.file).name not in str(error) and str(folder) not in str(error):
                raise UnexpectedError(f"{reader.name}: the file is not named: {error}") from error
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise UnexpectedError(f"{reader.name}: {type(error).__name__}: {str(error)[:200]}") from error
        if (seconds := time.process_time() - started) > SECONDS:
            raise UnexpectedError(f"{reader.name}: it took {seconds:.0f} s")
        return outcome


@contextmanager
def _prepared(reader: Reader) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=MEMORY) as name:
        folder = Path(name)
        (folder / reader.file).parent.mkdir(parents=True, exist_ok=True)
        reader.prepare(folder)
        yield folder
