"""Metrics of a training run, as JSON lines and for TensorBoard."""

import json
import logging
import os
from pathlib import Path
from typing import Any, TextIO

from ste_jax.distributed import process
from ste_jax.errors import SteError
from ste_jax.storage.files import parse_object

FILE = "metrics.jsonl"


class MetricsLog:
    """Writes `metrics.jsonl` and TensorBoard events into a local folder.

    `begin(step)` comes first: it removes what an interrupted run logged after `step`, so that the file of a
    resumed run equals that of an uninterrupted one, except for the seconds.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self._folder = Path(folder)
        self._writes = process.is_process_zero()
        self._lines: TextIO | None = None
        self._board: Any = None

    def begin(self, step: int, *, evaluated: bool = True) -> None:
        """Keeps the lines up to `step` and opens the files for more; only process zero writes.

        Args:
          step: Last finished step.
          evaluated: True if the evaluation of `step`, if it has one, is finished too.
        """
        if not self._writes:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / FILE
        kept = [
            line
            for line in read_metrics(self._folder)
            if line["step"] < step or (line["step"] == step and (evaluated or "evaluation" not in line))
        ]
        fresh = path.with_suffix(".new")
        fresh.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        fresh.replace(path)
        self._lines = path.open("a", encoding="utf-8")
        self._board = _open_board(self._folder, step)

    def log(self, step: int, **values: float) -> None:
        """Writes one line with `step` and the values, and one TensorBoard scalar per value."""
        if not self._writes:
            return
        if self._lines is None:
            raise RuntimeError("metrics: call begin(step) before log(...)")
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes and closes both files."""
        for file in (self._lines, self._board):
            if file is not None:
                file.close()
        self._lines = self._board = None


def _open_board(folder: Path, step: int) -> Any:
    """Returns a TensorBoard writer for the steps after `step`, or None without the extra [report]."""
    try:
        from tensorboardX import SummaryWriter  # here: it imports torch, if installed, which takes seconds
    except ModuleNotFoundError:
        logging.getLogger(__name__).info("no TensorBoard events: pip install 'ste-jax[report]' adds them")
        return None
    return SummaryWriter(str(folder), purge_step=step + 1, write_to_disk=True)


def read_metrics(folder: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Returns the logged lines, without a last line that a kill cut short.

    Raises:
      SteError: "data_invalid", naming the file and the line that is not a JSON object with a step.
    """
    path = Path(folder) / FILE
    lines: list[dict[str, float]] = []
    if not path.exists():
        return lines
    # The bytes after the last line feed were cut short.
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        value = parse_object(line, f"{path}, line {number}", "delete that line")
        if type(value.get("step")) is not int:
            raise SteError("data_invalid", f"{path}, line {number}: has no step; delete that line")
        lines.append(value)
    return lines
