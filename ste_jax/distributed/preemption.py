"""Stopping after SIGTERM (a preemption or a maintenance notice), at any moment between start and exit.

A command passes three phases. At its start SIGTERM ends it at once: there is nothing to save. A command that
saves work then calls `install_handler`, whose handler only records the request: the stages poll
`stop_requested`, raise `StopRequested` at a safe point, and the command exits. At its very end, when only the
interpreter shuts down, SIGTERM is ignored. In the first two phases the exit code is `EXIT_STOPPED`: the same
command resumes from there.
"""

import contextlib
import os
import signal
import threading
from typing import NoReturn

# EX_TEMPFAIL of sysexits.h; no other path of the program exits with it.
EXIT_STOPPED = 75
_LINE = b"ste: stopped; what was finished is safe, the same command goes on from there\n"
_requested = threading.Event()


class StopRequested(Exception):
    """A stop was requested; everything finished so far is on disk."""


def exit_on_signal() -> None:
    """Makes SIGTERM end the process at once with `EXIT_STOPPED`; only the main thread can do it."""
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGTERM, _exit)
    # `block_signal` may have held one back.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def block_signal() -> None:
    """Holds SIGTERM back until `exit_on_signal`, also across `exec`, which forgets handlers."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def install_handler() -> None:
    """Makes SIGTERM request a stop instead of ending the process at once."""
    signal.signal(signal.SIGTERM, lambda *_: _requested.set())


def ignore_signal() -> None:
    """Makes SIGTERM harmless to a command that is done, and Ctrl-C end it without a traceback.

    While the interpreter shuts down it restores the default actions of handlers in Python, but not these.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _exit(*_: object) -> NoReturn:
    with contextlib.suppress(OSError):
        os.write(2, _LINE)
    os._exit(EXIT_STOPPED)


def request_stop() -> None:
    """Requests a stop, as SIGTERM does; used when another process received the signal."""
    _requested.set()


def stop_requested() -> bool:
    """Returns True if a stop of this process was requested."""
    return _requested.is_set()
