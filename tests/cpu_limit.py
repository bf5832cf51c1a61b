"""A limit of CPU time for tests of hostile inputs: what grows with the square of their length exceeds it."""

import contextlib
import time
from collections.abc import Iterator


@contextlib.contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Fails if the body takes more CPU time of its thread than this; it is not interrupted."""
    begin = time.thread_time()
    try:
        yield
    finally:
        taken = time.thread_time() - begin
        assert taken <= seconds, f"{taken:.1f} seconds of CPU time, more than {seconds}"
