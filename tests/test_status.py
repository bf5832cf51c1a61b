"""The table of `ste status`."""

from pathlib import Path

import pytest
from etils import epath
from rich.console import Console

from ste_jax.records import Generation
from ste_jax.status import render_status
from ste_jax.storage.record_set import RecordSet
from ste_jax.storage.sink import Work

NAMES = ["select", "pairs", "iteration_1/annotate", "iteration_1/evaluate"]


def text(workdir: Path, width: int) -> list[str]:
    console = Console(width=width, record=True, quiet=False)
    with console.capture() as capture:
        console.print(render_status(epath.Path(workdir), NAMES))
    return [line.rstrip() for line in capture.get().splitlines()]


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (Work(), ["0", "0:00", "0", "0"]),
        (Work(done=18, total=147, seconds=600.0), ["18/147", "10:00", "1:11:40", "0", "0"]),
        (Work(done=5, total=5, seconds=59.6, prompt_tokens=999), ["5", "1:00", "999", "0"]),
        (
            Work(done=1, total=2, seconds=3725.0, prompt_tokens=1_250_000, generated_tokens=93_120),
            ["1/2", "1:02:05", "1:02:05", "1.2M", "93k", "25"],
        ),
    ],
)
def test_counts_times_and_tokens(tmp_path: Path, work: Work, expected: list[str]) -> None:
    records = RecordSet(epath.Path(tmp_path / "iteration_1/annotate"), Generation, {"stage": "annotate"})
    records.work = work
    records.flush()
    lines = text(tmp_path, 80)
    (row,) = (line.split() for line in lines if line.startswith("iteration_1/annotate"))
    assert row == ["iteration_1/annotate", "started", *expected]
    assert not any("…" in line for line in lines)
    assert max(map(len, lines)) <= 80
