"""Progress bar of a stage: finished requests, tokens per second, time left."""

import sys
import time
from typing import TextIO

from tqdm import tqdm

_TERMINAL_SECONDS = 0.5
_LOG_SECONDS = 30.0


class _LogLines:
    """A text stream for tqdm that turns each redrawn bar into a line of its own."""

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.encoding = stream.encoding

    def write(self, text: str) -> None:
        if line := text.strip():
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()


class Progress:
    """A progress bar on stderr: redrawn on a terminal, a line every 30 seconds in a log.

    Args:
      label: name of the task.
      total: number of all requests.
      done: number of requests that were finished before.
      unit: short name of the counted items.
      disable: print nothing.

    Attributes:
      tokens: number of tokens generated so far.
    """

    def __init__(self, label: str, total: int, done: int = 0, unit: str = "rec", *, disable: bool = False):
        self.tokens = 0
        terminal = sys.stderr.isatty()
        self._seconds = _TERMINAL_SECONDS if terminal else _LOG_SECONDS
        self._start = self._drawn_at = time.monotonic()
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=f"{label:<20}",
            unit=unit,
            file=None if terminal else _LogLines(sys.stderr),
            ncols=None if terminal else 100,
            dynamic_ncols=terminal,
            mininterval=self._seconds,
            maxinterval=self._seconds,
            disable=disable,
        )

    def advance(self, records: int = 0, tokens: int = 0) -> None:
        """Counts finished requests and generated tokens."""
        self.tokens += tokens
        now = time.monotonic()
        speed = self.tokens / max(now - self._start, 1e-9)
        self._bar.set_postfix_str(f"{speed:.0f} tok/s", refresh=False)
        self._bar.update(records)
        # Tokens alone do not make tqdm redraw.
        if tokens and now - self._drawn_at >= self._seconds:
            self._drawn_at = now
            self._bar.refresh()

    def close(self) -> None:
        """Draws the bar a last time and leaves it."""
        self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
