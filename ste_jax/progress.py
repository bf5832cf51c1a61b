"""The live progress line of a stage: records, tokens a second, time left."""

import time

from tqdm import tqdm


class Progress:
    """A progress bar on the terminal (lines in a log); counts tokens as they are made, records as they
    end.
    """

    def __init__(self, label: str, total: int, done: int = 0, unit: str = "rec"):
        self.tokens = 0
        self._start = time.monotonic()
        self._bar = tqdm(
            total=total, initial=done, desc=f"{label:<20}", unit=unit, dynamic_ncols=True, mininterval=0.5
        )

    def advance(self, records: int = 0, tokens: int = 0) -> None:
        """Counts what was just done."""
        self.tokens += tokens
        seconds = max(time.monotonic() - self._start, 1e-9)
        self._bar.set_postfix_str(f"{self.tokens / seconds:.0f} tok/s", refresh=False)
        self._bar.update(records)
        if tokens and not records:
            self._bar.refresh()

    def close(self) -> None:
        """Leaves the line as it stands."""
        self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
