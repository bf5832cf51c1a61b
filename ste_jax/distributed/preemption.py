"""Stopping at a safe point: SIGTERM (a preemption, a maintenance notice) asks for it, the stages answer.

Whoever started the command reads the exit code `EXIT_STOPPED`: the same command goes on from there.
"""

import signal
import threading

# "Temporary failure" of the BSD convention (sysexits.h); nothing else here ends with it.
EXIT_STOPPED = 75
_requested = threading.Event()


class StopRequested(Exception):
    """The command was asked to stop; everything up to here is safe."""


def install_handler() -> None:
    """Lets SIGTERM ask for a stop from now on, in the place of ending the process at once."""
    signal.signal(signal.SIGTERM, lambda *_: _requested.set())


def request_stop() -> None:
    """Asks for a stop in the name of another process."""
    _requested.set()


def stop_requested() -> bool:
    """Says whether this process was asked to stop."""
    return _requested.is_set()
