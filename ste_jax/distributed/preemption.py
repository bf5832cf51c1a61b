"""Stopping at a safe point after SIGTERM (a preemption or a maintenance notice).

The handler only records the request. The stages poll `stop_requested`, raise `StopRequested` at a safe point,
and the command exits with code `EXIT_STOPPED`: the same command resumes from there.
"""

import signal
import threading

# EX_TEMPFAIL of sysexits.h; no other path of the program exits with it.
EXIT_STOPPED = 75
_requested = threading.Event()


class StopRequested(Exception):
    """A stop was requested; everything finished so far is on disk."""


def install_handler() -> None:
    """Makes SIGTERM request a stop instead of ending the process at once."""
    signal.signal(signal.SIGTERM, lambda *_: _requested.set())


def request_stop() -> None:
    """Requests a stop, as SIGTERM does; used when another process received the signal."""
    _requested.set()


def stop_requested() -> bool:
    """Returns True if a stop of this process was requested."""
    return _requested.is_set()
