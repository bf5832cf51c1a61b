"""A limit of CPU time for tests of hostile inputs: what grows with the square of their length ends there."""

import contextlib
import signal
from collections.abc import Iterator


@contextlib.contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raises TimeoutError once the body has taken so many seconds of CPU time; regular expressions, too."""

    def stop(*_):
        raise TimeoutError(f"more than {seconds} seconds of CPU time")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
