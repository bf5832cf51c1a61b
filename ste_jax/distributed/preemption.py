"""Stopping at a safe point: SIGTERM (a preemption, a maintenance notice) asks for it, the stages answer.

Whoever started the command reads the exit code `RUN_AGAIN`: the same command goes on from there.
"""

import signal
import threading

# "Temporary failure" of the BSD convention (sysexits.h); nothing else here ends with it.
RUN_AGAIN = 75
_asked = threading.Event()


class Stopped(Exception):
    """The command was asked to stop; everything up to here is safe."""


def listen() -> None:
    """Lets SIGTERM ask for a stop from now on, in the place of ending the process at once."""
    signal.signal(signal.SIGTERM, lambda *_: _asked.set())


def ask() -> None:
    """Asks for a stop in the name of another process."""
    _asked.set()


def is_asked() -> bool:
    """Says whether this process was asked to stop."""
    return _asked.is_set()
